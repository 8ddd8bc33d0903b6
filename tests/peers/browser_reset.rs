//! A forgotten password, in a real browser and on a real Synapse.

use serde_json::json;

use crate::support::{
    elsewhere::Elsewhere,
    homeserver::{Homeserver, Recipe},
    mails::{code, link},
    server::until,
    webdriver::{Browser, ENTER, TAB},
};

const ALICE: &str = "alice@example.org";
const SECRET: &str = "monkeys_are_GREAT";
const NEW: &str = "correct horse";
const RESET: &str = "/_matrix/client/v3/account/password/email/requestToken";
const PASSWORD: &str = "/_matrix/client/v3/account/password";

/// Alice, who has an address and forgot her password, and a browser.
struct Forgetful {
    homeserver: Homeserver,
    browser: Browser,
}

impl Forgetful {
    async fn new() -> Self {
        let homeserver = Homeserver::start(Recipe::Sidecar).await;
        let token = homeserver.register("alice").await;
        let creds = homeserver.prove(ALICE, "another.secret").await;
        let (status, answer) = homeserver.add("alice", &token, &creds).await;
        assert_eq!(status, 200, "{answer}");
        Self {
            homeserver,
            browser: Browser::start().await,
        }
    }

    /// Asks for a reset as an app does; the link of the mail, past nginx, whose certificate no browser knows.
    async fn asked(&self) -> String {
        let body = json!({ "client_secret": SECRET, "email": ALICE, "send_attempt": 1 });
        let (status, answer) = self.homeserver.front.post(RESET, "", &body).await;
        assert_eq!(status, 200, "{answer}");
        let text = self.homeserver.text_to(ALICE, 2).await;
        let path = link(&text).replace(&self.homeserver.front.base, "");
        format!("{}{path}", self.homeserver.server.base)
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

    async fn logs_in_with(&self, password: &str) -> u16 {
        self.homeserver
            .front
            .login_by_email(ALICE, password)
            .await
            .0
    }
}

#[tokio::test]
async fn a_new_password_is_set_on_the_page_with_the_keyboard_alone_and_without_javascript() {
    let alice = Forgetful::new().await;
    let browser = &alice.browser;
    browser.resize(420, 1180).await;
    let off = json!({ "value": true });
    browser
        .devtools("Emulation.setScriptExecutionDisabled", off)
        .await;

    browser.open(&alice.asked().await).await;
    browser.picture("finish.png").await;
    browser.click("#new").await;
    alice.types(NEW).await;
    browser.press(TAB).await;
    alice.types("something else").await;
    browser.press(ENTER).await;
    until("the page says that they differ", async || {
        browser.has("#problem").await
    })
    .await;
    browser.picture("finish-differ.png").await;
    assert_eq!(alice.logs_in_with(NEW).await, 403);
    browser.click("#new").await;
    alice.types(NEW).await;
    browser.press(TAB).await;
    alice.types(NEW).await;
    browser.press(ENTER).await;

    alice.is_at("Your password is changed").await;
    browser.picture("changed.png").await;
    assert_eq!(alice.logs_in_with(NEW).await, 200);
}

#[tokio::test]
async fn the_second_button_hands_the_reset_to_the_app() {
    let alice = Forgetful::new().await;

    alice.browser.open(&alice.asked().await).await;
    alice.browser.click("button.second").await;

    alice.is_at("Done, go back to your app").await;
    assert_eq!(alice.logs_in_with(NEW).await, 403);
}

#[tokio::test]
async fn the_fallback_page_does_the_stage_and_tells_whoever_opened_it() {
    let alice = Forgetful::new().await;
    let (browser, front) = (&alice.browser, &alice.homeserver.front);
    browser.resize(420, 900).await;
    let (_, challenge) = front.post(PASSWORD, "", &json!({})).await;
    let session = challenge["session"].as_str().expect("a session");
    let page = format!(
        "{}/_matrix/client/v3/auth/m.login.email.identity/fallback/web?session={session}",
        alice.homeserver.server.base
    );

    browser.open(&page).await;
    browser.picture("fallback.png").await;
    browser.click("#email").await;
    alice.types(ALICE).await;
    browser.press(ENTER).await;
    alice.is_at("A message is on its way").await;
    browser.click("#code").await;
    alice
        .types(code(&alice.homeserver.text_to(ALICE, 2).await))
        .await;
    browser.press(ENTER).await;
    alice.is_at("Your address is confirmed").await;
    // What a client does: opens the page, and waits for its word.
    let elsewhere = Elsewhere::start().await;
    elsewhere.show(format!(
        "<h1>waiting</h1><button onclick=\"window.open('{page}')\">open</button>
         <script>onmessage = event => document.querySelector('h1').textContent = event.data</script>"
    ));
    browser.open(&elsewhere.at("127.0.0.1")).await;
    browser.click("button").await;

    alice.is_at("authDone").await;
    let reset = json!({ "new_password": NEW, "auth": { "session": session } });
    let (status, answer) = front.post(PASSWORD, "", &reset).await;
    assert_eq!(status, 200, "{answer}");
    assert_eq!(alice.logs_in_with(NEW).await, 200);
}
