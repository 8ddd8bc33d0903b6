//! Who validates: every cell of the table in docs/identity-servers.md, over HTTP.

use serde_json::{Value, json};
use threepid::{
    threepid::Medium,
    validation::{Validate, Validates},
};

use crate::{
    proxy::{client_choice, named, willing},
    support::{app::*, upstream::Upstream},
};

const HERE: [&str; 3] = ["here", "here", "here"];
const CHOICE: [&str; 3] = ["here", "there", "here"];
const ALWAYS: [&str; 3] = ["400 M_MISSING_PARAM", "there", "400 M_SERVER_NOT_TRUSTED"];
const OFF: [&str; 3] = ["400 M_THREEPID_MEDIUM_NOT_SUPPORTED"; 3];

/// One row: a medium, a purpose, and whether an account has the address.
struct Row {
    medium: &'static str,
    group: &'static str,
    is_owned: bool,
}

impl Row {
    fn all() -> impl Iterator<Item = Self> {
        let media = ["email", "msisdn"].into_iter();
        let groups = ["register", "account/3pid", "account/password"];
        media
            .flat_map(move |medium| groups.map(|group| (medium, group)))
            .flat_map(|(medium, group)| [false, true].map(|is_owned| (medium, group, is_owned)))
            .map(|(medium, group, is_owned)| Self {
                medium,
                group,
                is_owned,
            })
    }

    fn path(&self) -> String {
        let Self { medium, group, .. } = self;
        format!("/_matrix/client/v3/{group}/{medium}/requestToken")
    }

    fn is_reset(&self) -> bool {
        self.group == "account/password"
    }

    fn body(&self, server: Option<&str>) -> Value {
        let mut body = match (self.medium, self.is_owned) {
            ("email", true) => json!({ "email": "owner@example.org" }),
            ("email", false) => json!({ "email": "free@example.org" }),
            (_, true) => json!({ "country": "GB", "phone_number": "07700900009" }),
            (_, false) => json!({ "country": "GB", "phone_number": "07700900008" }),
        };
        let secret = server.unwrap_or("nobody").replace(':', ".");
        body["client_secret"] = json!(secret);
        body["send_attempt"] = json!(1);
        match server {
            Some(server) => named(body, server),
            None => body,
        }
    }

    /// What is told where it is told who has an account; `None` where a token is due.
    fn revealed(&self) -> Option<&'static str> {
        match (self.is_reset(), self.is_owned) {
            (false, true) => Some("400 M_THREEPID_IN_USE"),
            (true, false) => Some("400 M_THREEPID_NOT_FOUND"),
            _ => None,
        }
    }
}

/// What a request met: who was asked, or the `errcode`.
async fn met(app: &TestApp, upstream: &Upstream, path: &str, body: &Value) -> String {
    let before = upstream.requests().len();
    let answer = app.post(path, body).await;
    let (asked, sent) = (upstream.requests().len() - before, app.mails().await.len());
    match (answer.status.as_u16(), asked, sent) {
        (200, 0, 1) => "here".to_owned(),
        (200, 1, 0) => "there".to_owned(),
        (status, 0, 0) => format!("{status} {}", answer.errcode()),
        other => panic!("{other:?}: {}", answer.text),
    }
}

async fn check(upstream: &Upstream, validate: Validate, reveal: bool, cells: [&str; 3]) {
    let all = Validates::all(validate);
    let app = TestApp::with(|builder| {
        client_choice(upstream)(builder)
            .validates(Medium::Email, all)
            .validates(Medium::Msisdn, all)
            .reveal(reveal)
    });
    for owned in ["owner@example.org", "07700900009"] {
        app.own("@owner:example.org", owned).await;
    }
    let trusted = upstream.name();
    for row in Row::all() {
        let stays = row.is_reset() && validate != Validate::Off;
        let cells = if stays { HERE } else { cells };
        let servers = [None, Some(trusted.as_str()), Some("other.example.org")];
        for (server, cell) in servers.into_iter().zip(cells) {
            let wanted = row
                .revealed()
                .filter(|_| reveal && validate != Validate::Off);

            let told = met(&app, upstream, &row.path(), &row.body(server)).await;

            let case = format!("{validate:?} {} {server:?}", row.path());
            assert_eq!(told, wanted.unwrap_or(cell), "{case} reveal={reveal}");
        }
    }
}

#[tokio::test]
async fn every_cell_holds_for_both_media_all_purposes_and_whether_or_not_it_is_told_who_has_an_account()
 {
    let upstream = willing().await;
    for reveal in [false, true] {
        check(&upstream, Validate::Here, reveal, HERE).await;
        check(&upstream, Validate::ClientChoice, reveal, CHOICE).await;
        check(&upstream, Validate::IdentityServer, reveal, ALWAYS).await;
        check(&upstream, Validate::Off, reveal, OFF).await;
    }
}
