//! What clients are told of the server: versions and capabilities.

use serde_json::json;
use std::{sync::Arc, time::Duration};
use threepid::homeserver::synapse::{Registration, Synapse, SynapseSettings};

use crate::support::{
    app::*,
    homeserver::{Fault, Homeserver},
    host::as_user,
    resets::Resets,
};

const VERSIONS: &str = "/_matrix/client/versions";
const CAPABILITIES: &str = "/_matrix/client/v3/capabilities";

fn before(homeserver: &Homeserver) -> TestApp {
    let settings = SynapseSettings {
        url: homeserver.url(),
        admin_token: None,
        timeout: Duration::from_secs(5),
        ca_files: Vec::new(),
        registration: Registration::default(),
    };
    let synapse = Synapse::new(settings).expect("settings that can be used");
    TestApp::with(|builder| builder.accounts(Arc::clone(&synapse) as _))
}

#[tokio::test]
async fn without_a_homeserver_clients_are_told_what_is_here() {
    let app = TestApp::with(|builder| builder.allow_changes(false));

    let versions = app.get(VERSIONS, &[]).await;
    let told = app
        .send(as_user("GET", "syt_x", CAPABILITIES, &json!({})))
        .await;

    assert_eq!(versions.status, 200);
    assert_eq!(versions.header("access-control-allow-origin"), "*");
    let versions = versions.json();
    assert!(
        versions["versions"]
            .as_array()
            .unwrap()
            .contains(&json!("r0.6.0"))
    );
    assert_eq!(
        versions["unstable_features"]["m.require_identity_server"],
        false
    );
    assert_eq!(
        told.json()["capabilities"],
        json!({ "m.3pid_changes": { "enabled": false }, "m.change_password": { "enabled": true } })
    );
}

#[tokio::test]
async fn capabilities_are_told_to_those_who_are_logged_in() {
    for prefix in ["v3", "r0", "unstable", "api/v1"] {
        let path = format!("/_matrix/client/{prefix}/capabilities");
        let answer = TestApp::new().get(&path, &[]).await;
        assert_eq!(
            (answer.status.as_u16(), answer.errcode().as_str()),
            (401, "M_MISSING_TOKEN"),
            "{path}"
        );
    }
}

#[tokio::test]
async fn the_homeserver_s_versions_are_told_with_our_features() {
    let homeserver = Homeserver::start().await;
    let app = before(&homeserver);

    let versions = app.get(VERSIONS, &[]).await.json();

    assert_eq!(versions["versions"], json!(["v1.11"]));
    assert_eq!(
        versions["unstable_features"]["m.separate_add_and_bind"],
        true
    );
}

#[tokio::test]
async fn what_the_homeserver_refuses_is_told_as_it_is() {
    let resets = Resets::new().await;

    let request = as_user("GET", "syt_x", CAPABILITIES, &json!({}));
    let answer = resets.app.send(request).await;

    assert_eq!(
        (answer.status.as_u16(), answer.header("retry-after")),
        (429, "7")
    );
    let passed = resets.accounts.passed_on().remove(0);
    assert_eq!(
        (passed.method.as_str(), passed.path_and_query.as_str()),
        ("GET", CAPABILITIES)
    );
}

#[tokio::test]
async fn a_homeserver_that_fails_is_no_fault_of_the_client() {
    let homeserver = Homeserver::start().await;
    let app = before(&homeserver);
    homeserver.set(Fault::Drop);

    let answer = app.get(VERSIONS, &[]).await;

    assert_eq!(
        (answer.status.as_u16(), answer.errcode().as_str()),
        (502, "M_UNKNOWN")
    );
}
