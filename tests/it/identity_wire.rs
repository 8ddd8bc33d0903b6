//! What browsers get of the identity server: headers of refusals, spellings of keys, and where a link leads next.

use axum::http::Request;
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE, URL_SAFE_NO_PAD},
};
use rusqlite::Connection;
use serde_json::{Value, json};
use threepid::{limits, next_link::NextLinkPolicy, rate::Rate, secret::AccessToken};

use crate::support::app::*;

const ALICE: &str = "@alice:example.org";
const NEXT: &str = "https://app.example.org/#/register?client_secret=abc&hs_url=x";

#[tokio::test]
async fn web_clients_can_read_why_a_lookup_is_refused() {
    let limits = limits::Settings {
        lookups_per_account: Rate::new(2, std::time::Duration::from_hours(24)),
        ..limits::Settings::OFF
    };
    let app = TestApp::with(|builder| with_identity(builder.limits(limits), |_| {}));
    let token = app.identity_token(ALICE).await;
    let details = app.get_as(&token, "hash_details").await.json();
    let many = json!({
        "addresses": ["A".repeat(43), "B".repeat(43)], "algorithm": "sha256", "pepper": details["lookup_pepper"],
    });
    assert_eq!(app.post_as(&token, "lookup", &many).await.status, 200);
    let large = json!({ "padding": "x".repeat(1_100_000) });
    let nobody = AccessToken::parse("nobody").expect("a token");

    for (token, body, status, errcode) in [
        (&token, &many, 429, "M_LIMIT_EXCEEDED"),
        (&token, &large, 413, "M_TOO_LARGE"),
        (&nobody, &many, 401, "M_UNAUTHORIZED"),
    ] {
        let answer = app.post_as(token, "lookup", body).await;

        let told = (answer.status.as_u16(), answer.errcode());
        assert_eq!(told, (status, errcode.to_owned()));
        assert_eq!(answer.header("access-control-allow-origin"), "*");
        assert_eq!(answer.header("content-type"), "application/json");
    }
}

#[tokio::test]
async fn a_key_of_an_invitation_is_found_however_it_is_spelt() {
    let app = TestApp::identity(|_| {});
    let token = app.identity_token(ALICE).await;
    let body = json!({
        "medium": "email", "address": "bob@example.org", "room_id": "!room:example.org", "sender": ALICE,
    });
    assert_eq!(app.post_as(&token, "store-invite", &body).await.status, 200);
    // Keys that we make look the same in both alphabets; this one, of an older program, does not.
    let key = [0xfb_u8, 0xff, 0xbf].repeat(11)[..32].to_vec();
    let connection = Connection::open(app.dir().join("threepid.db")).expect("the database");
    let changed = connection.execute("UPDATE invite SET public_key = ?1", [&key]);
    assert_eq!(changed.expect("one row"), 1);
    let plain = STANDARD_NO_PAD.encode(&key);
    assert!(plain.contains('+') && plain.contains('/'), "{plain}");

    for spelling in [
        plain.replace('+', "%2B"),
        STANDARD.encode(&key).replace('+', "%2B"),
        STANDARD
            .encode(&key)
            .replace('+', "%2B")
            .replace('=', "%3D"),
        URL_SAFE_NO_PAD.encode(&key),
        URL_SAFE.encode(&key),
        // A "+" that nobody escaped is a blank in a query.
        plain.clone(),
        plain.replace('+', "%20"),
    ] {
        let path = format!("{IDENTITY}/pubkey/ephemeral/isvalid?public_key={spelling}");
        let answer = app.get(&path, &[]).await;
        assert_eq!(answer.json(), json!({ "valid": true }), "{spelling}");
    }
    let other = plain.replacen('+', "A", 1).replace('+', "%2B");
    let path = format!("{IDENTITY}/pubkey/ephemeral/isvalid?public_key={other}");
    assert_eq!(app.get(&path, &[]).await.json(), json!({ "valid": false }));
}

/// Where the browser goes that shows a code at `shown`, and the session.
async fn goes_to(
    app: &TestApp,
    asked: Request<axum::body::Body>,
    shown: &str,
) -> (u16, String, String) {
    let sid = app.send(asked).await.sid();
    let code = code(&app.mail().await);
    let path = format!("{shown}?sid={sid}&client_secret=monkeys_are_GREAT&token={code}");
    let answer = app.get(&path, &[]).await;
    let location = answer.header("location").to_owned();
    (answer.status.as_u16(), location, sid)
}

#[tokio::test]
async fn the_page_of_a_code_leads_to_the_next_link_as_the_homeserver_s_does() {
    let policy = NextLinkPolicy::new(["app.example.org"]).expect("a list");
    let app = TestApp::with(|builder| {
        let builder = builder.limits(limits::Settings::OFF).next_links(policy);
        with_identity(builder, |_| {})
    });
    let mut body: Value = alice(1);
    body["next_link"] = json!(NEXT);
    let token = app.identity_token(ALICE).await;
    let ask = format!("{IDENTITY}/validate/email/requestToken");
    let show = format!("{IDENTITY}/validate/email/submitToken");
    let bearer = format!("Bearer {}", token.reveal());

    for (ask, show) in [(ask.as_str(), show.as_str()), (REGISTER, SUBMIT)] {
        let asked = Request::post(ask).header("authorization", &bearer);
        let asked = asked.body(body.to_string().into()).expect("a request");
        let (status, location, sid) = goes_to(&app, asked, show).await;

        assert_eq!(
            (status, location),
            (303, format!("{NEXT}&sid={sid}")),
            "{ask}"
        );
    }
}
