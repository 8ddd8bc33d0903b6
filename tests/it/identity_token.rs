//! Where the identity server takes an access token from.

use serde_json::json;

use crate::support::app::*;

#[tokio::test]
async fn hash_details_take_the_token_in_the_query_as_synapse_sends_it() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token("@alice:example.org").await;
    let path = |token: &str| format!("{IDENTITY}/hash_details?access_token={token}");

    let known = app.get(&path(token.reveal()), &[]).await;
    let unknown = app.get(&path("nobodys"), &[]).await;
    let without = app.get(&format!("{IDENTITY}/hash_details"), &[]).await;

    assert_eq!(known.status, 200, "{}", known.text);
    for refused in [unknown, without] {
        assert_eq!(refused.refusal(), refusal(401, "M_UNAUTHORIZED"));
    }
}

#[tokio::test]
async fn no_other_endpoint_takes_a_token_in_the_query() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token("@alice:example.org").await;
    let query = format!("?access_token={}", token.reveal());

    let account = app.get(&format!("{IDENTITY}/account{query}"), &[]).await;
    let lookup = app
        .post(&format!("{IDENTITY}/lookup{query}"), &json!({}))
        .await;

    for refused in [account, lookup] {
        assert_eq!(refused.refusal(), refusal(401, "M_UNAUTHORIZED"));
    }
}
