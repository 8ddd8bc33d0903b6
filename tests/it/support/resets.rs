//! What tests of password resets share.

use std::sync::Arc;

use serde_json::{Value, json};
use threepid::{Builder, limits};

use super::{
    accounts::FakeAccounts,
    app::{Answer, PASSWORD, SUBMIT, TestApp, alice, code, link_path, shown},
};

/// Where passwords are set.
pub(crate) const RESET: &str = "/_matrix/client/v3/account/password";
/// Whose password is reset.
pub(crate) const OWNER: &str = "@owner:example.org";

/// An app, and a homeserver on which the owner has alice's address.
pub(crate) struct Resets {
    pub(crate) app: TestApp,
    pub(crate) accounts: Arc<FakeAccounts>,
}

/// A session of alice's, with where its mail leads.
pub(crate) struct Mailed {
    pub(crate) sid: String,
    pub(crate) link: String,
    pub(crate) code: String,
}

impl Resets {
    pub(crate) async fn new() -> Self {
        Self::with(|builder| builder).await
    }

    pub(crate) async fn with(set: impl FnOnce(Builder) -> Builder) -> Self {
        let accounts = FakeAccounts::of(&[OWNER]);
        let app = TestApp::with(|builder| {
            let builder = builder.limits(limits::Settings::OFF);
            set(builder.accounts(Arc::<FakeAccounts>::clone(&accounts)))
        });
        app.own(OWNER, "alice@example.org").await;
        Self { app, accounts }
    }

    /// Asks for a reset, and reads the mail.
    pub(crate) async fn mailed(&self) -> Mailed {
        self.asked(&alice(1)).await
    }

    /// The same with a body of the test's own.
    pub(crate) async fn asked(&self, body: &Value) -> Mailed {
        let sid = self.app.post(PASSWORD, body).await.sid();
        let mail = self.app.mail().await;
        Mailed {
            sid,
            link: link_path(&mail),
            code: code(&mail),
        }
    }

    /// Asks for a reset, and types the code into the app.
    pub(crate) async fn proved(&self) -> Mailed {
        let mailed = self.mailed().await;
        let answer = self
            .app
            .post(SUBMIT, &shown(&mailed.sid, &mailed.code))
            .await;
        assert_eq!(answer.status, 200);
        mailed
    }

    /// Sends what a client polls with.
    pub(crate) async fn set(&self, sid: &str, new: &str) -> Answer {
        self.app.post(RESET, &setting(sid, new)).await
    }

    /// Sends the form of a link's page.
    pub(crate) async fn type_into_page(&self, link: &str, new: &str) -> Answer {
        let fields = [
            ("username", OWNER),
            ("new_password", new),
            ("new_password_again", new),
            ("logout_devices", "true"),
        ];
        self.app.submit_form(link, &fields).await
    }

    pub(crate) fn password(&self) -> String {
        self.accounts.password(OWNER)
    }
}

/// The body of an `account/password` that shows a session of alice's.
pub(crate) fn setting(sid: &str, new: &str) -> Value {
    json!({ "new_password": new, "auth": email_stage(sid) })
}

/// The key `auth` that shows a session of alice's.
pub(crate) fn email_stage(sid: &str) -> Value {
    json!({
        "type": "m.login.email.identity",
        "threepid_creds": { "sid": sid, "client_secret": "monkeys_are_GREAT" },
    })
}
