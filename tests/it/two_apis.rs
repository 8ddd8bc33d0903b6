//! The sessions of the Client-Server API and those of the Identity Service API: neither knows what is the other's.

use axum::http::{Request, header};
use serde_json::{Value, json};
use threepid::{
    http::delegate::{Prefix, Settings},
    limits,
    secret::AccessToken,
};

use crate::support::app::*;

const PREFIX: &str = "hs/7f0c5a1e9b2d4836a5c4e1f0d2b3a4958677";

/// Where tokens are shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Door {
    /// `submit_url`.
    Client,
    /// Its page.
    ClientPage,
    /// What a homeserver calls that has its users validate here.
    Delegate,
    Identity,
    IdentityPage,
}

impl Door {
    const ALL: [Self; 5] = [
        Self::Client,
        Self::ClientPage,
        Self::Delegate,
        Self::Identity,
        Self::IdentityPage,
    ];

    fn is_identity(self) -> bool {
        matches!(self, Self::Identity | Self::IdentityPage)
    }
}

struct World {
    app: TestApp,
    token: AccessToken,
}

impl World {
    async fn new() -> Self {
        let app = TestApp::with(|builder| {
            let builder = builder.limits(limits::Settings::OFF).delegate(Settings {
                prefixes: [Prefix::parse(PREFIX).expect("long enough")].into(),
                networks: vec!["127.0.0.0/8".parse().expect("a network")],
                public: false,
            });
            with_identity(builder, |_| {})
        });
        let token = app.identity_token("@alice:example.org").await;
        Self { app, token }
    }

    /// Asks for a token; the session, and the code.
    async fn asked(&self, medium: &str, of_identity: bool) -> (String, String) {
        let (body, path) = match medium {
            "email" => (alice(1), REGISTER),
            _ => (alices_phone(1), REGISTER_PHONE),
        };
        let answer = if of_identity {
            let path = format!("validate/{medium}/requestToken");
            self.app.post_as(&self.token, &path, &body).await
        } else {
            self.app.post(path, &body).await
        };
        (answer.sid(), code(&self.app.mail().await))
    }

    async fn show(&self, door: Door, medium: &str, body: &Value) -> Answer {
        let submit = format!("/_threepid/{medium}/submitToken");
        let validate = format!("validate/{medium}/submitToken");
        let query = url::form_urlencoded::Serializer::new(String::new())
            .extend_pairs(
                ["sid", "client_secret", "token"]
                    .map(|key| (key, body[key].as_str().expect("a string"))),
            )
            .finish();
        match door {
            Door::Client => self.app.post(&submit, body).await,
            Door::ClientPage => self.app.get(&format!("{submit}?{query}"), &[]).await,
            Door::Identity => self.app.post_as(&self.token, &validate, body).await,
            Door::IdentityPage => {
                let path = format!("{IDENTITY}/{validate}?{query}");
                self.app.get(&path, &[]).await
            }
            Door::Delegate => {
                let path = format!("/{PREFIX}/_matrix/identity/api/v1/{validate}");
                let request = Request::post(path).header(header::CONTENT_TYPE, "application/json");
                let request = request.body(body.to_string().into()).expect("a request");
                let router = self.app.threepid.internal_router();
                send(&router, "127.0.0.1:4711", request).await
            }
        }
    }
}

#[tokio::test]
async fn a_token_is_shown_where_it_was_asked_for_and_elsewhere_there_is_no_such_session() {
    for (medium, of_identity, door) in ["email", "msisdn"]
        .into_iter()
        .flat_map(|medium| [(medium, false), (medium, true)])
        .flat_map(|(medium, of_identity)| Door::ALL.map(|door| (medium, of_identity, door)))
    {
        let world = World::new().await;
        let (sid, code) = world.asked(medium, of_identity).await;
        let unknown = world.show(door, medium, &shown("1234", &code)).await;

        let answer = world.show(door, medium, &shown(&sid, &code)).await;

        let told = format!("{medium} {of_identity} {door:?} {}", answer.text);
        if door.is_identity() == of_identity {
            assert_eq!(answer.status, 200, "{told}");
        } else {
            assert_eq!(answer.status, 404, "{told}");
            assert_eq!(answer.text, unknown.text, "{told}");
            let own = if of_identity {
                Door::Identity
            } else {
                Door::Client
            };
            let right = world.show(own, medium, &shown(&sid, &code)).await;
            assert_eq!(right.json(), json!({ "success": true }), "{told}");
        }
    }
}

#[tokio::test]
async fn the_page_of_a_mailed_link_takes_the_sessions_of_both() {
    for of_identity in [false, true] {
        let world = World::new().await;
        let answer = if of_identity {
            let path = "validate/email/requestToken";
            world.app.post_as(&world.token, path, &alice(1)).await
        } else {
            world.app.post(REGISTER, &alice(1)).await
        };
        assert_eq!(answer.status, 200, "{}", answer.text);
        let link = link_path(&world.app.mail().await);

        let page = world.app.bare("POST", &link, &[]).await;

        assert_eq!(page.status, 200, "{of_identity} {}", page.text);
    }
}
