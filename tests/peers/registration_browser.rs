//! People who sign up at a real Synapse, on pages in a real browser.

use serde_json::json;

use crate::support::{
    homeserver::Homeserver,
    mails::{code, link},
    newcomer::{Newcomer, SIGN_UP_EMAIL},
    plan::{APP, Plan},
    server::{sid, until},
    synapse::{Options, user_id},
    webdriver::{Browser, ENTER},
};

const ALICE: &str = "alice@example.org";
const SECRET: &str = "monkeys_are_GREAT";

/// A homeserver that is open, and a browser.
struct Visit {
    homeserver: Homeserver,
    browser: Browser,
}

impl Visit {
    async fn begin() -> Self {
        Self {
            homeserver: Plan::open(Options::default()).start().await,
            browser: Browser::start().await,
        }
    }

    /// A page past nginx, whose certificate no browser knows.
    async fn open(&self, url: &str) {
        let path = url.replace(&self.homeserver.front.base, "");
        let url = format!("{}{path}", self.homeserver.server.base);
        self.browser.open(&url).await;
    }

    async fn types(&self, text: &str) {
        for letter in text.chars() {
            self.browser.press(&letter.to_string()).await;
        }
    }

    async fn is_at(&self, heading: &str) {
        until(heading, async || {
            self.browser.has("h1").await && self.browser.words("h1").await == heading
        })
        .await;
    }

    async fn is_signed_up(&self) {
        let owner = self.homeserver.owner_of("email", ALICE).await;
        assert_eq!(owner, user_id("alice"));
        assert_eq!(self.homeserver.synapse.accounts().await, ["alice"]);
    }
}

#[tokio::test]
async fn the_button_of_the_mailed_page_ends_a_registration() {
    let visit = Visit::begin().await;
    let alice = Newcomer::at(&visit.homeserver, "alice");
    let session = alice.session().await;
    let next = format!("{APP}#/register?session_id={session}");
    let body = json!({
        "client_secret": SECRET, "email": ALICE, "send_attempt": 1, "next_link": next,
    });
    let (_, asked) = visit.homeserver.front.post(SIGN_UP_EMAIL, "", &body).await;
    let creds = json!({ "sid": sid(&asked), "client_secret": SECRET });
    let text = visit.homeserver.text_to(ALICE, 1).await;

    visit.open(link(&text)).await;
    visit.browser.picture("register.png").await;
    let early = alice.show(&session, &creds).await;
    visit.browser.click("form button").await;
    // Nobody listens there, and the address is that of the app.
    let target = format!("{next}&sid={}", sid(&asked));
    until("the browser is at the app", async || {
        visit.browser.url().await == target
    })
    .await;
    let (status, account) = alice.show(&session, &creds).await;

    assert_eq!(early.0, 401, "{}", early.1);
    assert_eq!(status, 200, "{account}");
    visit.is_signed_up().await;
}

#[tokio::test]
async fn the_fallback_page_does_the_stage_of_a_registration() {
    let visit = Visit::begin().await;
    let alice = Newcomer::at(&visit.homeserver, "alice");
    let session = alice.session().await;
    let page =
        format!("/_matrix/client/v3/auth/m.login.email.identity/fallback/web?session={session}");

    visit.browser.resize(420, 900).await;
    visit.open(&page).await;
    visit.browser.picture("register-fallback.png").await;
    visit.browser.click("#email").await;
    visit.types(ALICE).await;
    visit.browser.press(ENTER).await;
    visit.is_at("A message is on its way").await;
    let text = visit.homeserver.text_to(ALICE, 1).await;
    let knows = json!({ "auth": { "session": session } });
    let early = alice.post(&knows).await;
    visit.browser.click("#code").await;
    visit.types(code(&text)).await;
    visit.browser.press(ENTER).await;
    visit.is_at("Your address is confirmed").await;
    let (status, account) = alice.post(&knows).await;

    assert_eq!(early.0, 401, "{}", early.1);
    assert_eq!(
        (status, &account["user_id"]),
        (200, &user_id("alice").into())
    );
    visit.is_signed_up().await;
}

#[tokio::test]
async fn the_fallback_page_of_a_session_that_nobody_knows_does_nothing() {
    let visit = Visit::begin().await;
    let path = "/_matrix/client/v3/auth/m.login.email.identity/fallback/web?session=unknown";

    let (status, _) = visit.homeserver.front.get(path, "").await;

    assert!((400..500).contains(&status), "{status}");
}
