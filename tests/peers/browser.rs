//! The pages in a real browser, from the mail to the proof.

use serde_json::{Value, json};

use crate::support::{
    elsewhere::Elsewhere,
    mails::{code, link},
    server::{REGISTER, SUBMIT, Server, Site, asking, sid, until},
    webdriver::{Browser, ENTER, TAB},
};

const ALICE: &str = "alice@example.com";
const BUTTON: &str = "form button";
const DONE: &str = "Done, go back to your app";

/// A server, its one session, and a browser.
struct Visit {
    server: Server,
    browser: Browser,
    sid: String,
    text: String,
    site: Site,
}

impl Visit {
    async fn begin(site: Site, next_link: Option<&str>) -> Self {
        let server = site.start().await;
        let mut body = asking(ALICE);
        if let Some(next_link) = next_link {
            body["next_link"] = next_link.into();
        }
        let (status, answer) = server.post(REGISTER, &body).await;
        assert_eq!(status, 200, "{answer}");
        Self {
            text: server.mail_to(ALICE).await,
            sid: sid(&answer),
            browser: Browser::start().await,
            server,
            site,
        }
    }

    async fn plain() -> Self {
        Self::begin(Site::new(), None).await
    }

    fn link(&self) -> &str {
        link(&self.text)
    }

    /// The page that takes the code, as some clients open it for people.
    fn submit_page(&self) -> String {
        let (base, sid, token) = (&self.server.base, &self.sid, code(&self.text));
        format!("{base}{SUBMIT}?sid={sid}&client_secret=monkeys_are_GREAT&token={token}")
    }

    /// Whether the address is proved: then the link shows no button any more.
    async fn is_validated(&self) -> bool {
        let page = self.server.client.get(self.link()).send().await;
        let page = page.expect("the server answers").text().await;
        page.expect("a page").contains(DONE)
    }

    async fn is_at(&self, heading: &str) {
        until(heading, async || {
            self.browser.has("h1").await && self.browser.words("h1").await == heading
        })
        .await;
    }
}

#[tokio::test]
async fn the_button_validates_and_nothing_before_it_does() {
    let visit = Visit::plain().await;
    let browser = &visit.browser;
    browser.resize(420, 760).await;

    browser.open(visit.link()).await;
    browser.picture("landing.png").await;
    assert!(browser.has(BUTTON).await);
    assert!(!visit.is_validated().await);
    browser.click(BUTTON).await;

    visit.is_at(DONE).await;
    assert!(visit.is_validated().await);
    browser.picture("done.png").await;
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_button_works_without_javascript() {
    let visit = Visit::plain().await;
    let browser = &visit.browser;
    let off = json!({ "value": true });
    browser
        .devtools("Emulation.setScriptExecutionDisabled", off)
        .await;

    browser
        .open("data:text/html,<p>off</p><script>document.querySelector('p').remove()</script>")
        .await;
    assert!(browser.has("p").await, "scripts are off");
    browser.open(visit.link()).await;
    assert!(!visit.is_validated().await);
    browser.click(BUTTON).await;

    visit.is_at(DONE).await;
    assert!(visit.is_validated().await);
}

#[tokio::test]
async fn a_listed_next_link_is_gone_to_with_the_sid() {
    let elsewhere = Elsewhere::start().await;
    for name in ["127.0.0.1", "localhost"] {
        let next = elsewhere.at(name);
        let host = next.strip_prefix("http://").expect("an http URL");
        let site = Site::new().set("next_links.allowed", host);
        let visit = Visit::begin(site, Some(&format!("{next}/app#/login"))).await;

        visit.browser.open(visit.link()).await;
        visit.browser.click(BUTTON).await;

        visit.is_at("Elsewhere").await;
        let target = format!("{next}/app#/login?sid={}", visit.sid);
        assert_eq!(visit.browser.url().await, target);
        assert!(visit.is_validated().await);
        assert_eq!(visit.browser.console().await, Vec::<String>::new());
    }
    assert_eq!(elsewhere.referers("/app"), ["", ""]);
}

#[tokio::test]
async fn a_next_link_that_nobody_listed_is_named_and_gone_to_by_a_click() {
    let elsewhere = Elsewhere::start().await;
    let next = elsewhere.at("localhost");
    let visit = Visit::begin(Site::new(), Some(&format!("{next}/app"))).await;

    visit.browser.open(visit.link()).await;
    visit.browser.click(BUTTON).await;
    visit.is_at(DONE).await;
    let shown = visit.browser.words("a.button").await;
    assert!(shown.contains("localhost"), "{shown}");
    assert!(
        elsewhere.referers("/app").is_empty(),
        "nobody went there yet"
    );
    visit.browser.click("a.button").await;

    visit.is_at("Elsewhere").await;
    assert_eq!(
        visit.browser.url().await,
        format!("{next}/app?sid={}", visit.sid)
    );
    assert_eq!(elsewhere.referers("/app"), [""]);
}

#[tokio::test]
async fn a_form_of_another_page_validates_nothing() {
    let visit = Visit::plain().await;
    let elsewhere = Elsewhere::start().await;
    elsewhere.show(format!(
        "<form method=post action='{}'></form><script>document.forms[0].submit()</script>",
        visit.link()
    ));

    // Another site, and the same site on another port.
    for name in ["localhost", "127.0.0.1"] {
        visit.browser.open(&elsewhere.at(name)).await;

        visit.is_at("Open the link from your mail").await;
        let status = "return performance.getEntriesByType('navigation')[0].responseStatus";
        assert_eq!(visit.browser.run(status).await, 403);
        assert!(!visit.is_validated().await);
    }
}

#[tokio::test]
async fn a_form_without_a_referrer_of_another_page_validates_nothing() {
    let visit = Visit::plain().await;
    let elsewhere = Elsewhere::start().await;
    elsewhere.show(format!(
        "<meta name=referrer content=no-referrer><form method=post action='{}'></form>
         <script>document.forms[0].submit()</script>",
        visit.link()
    ));

    for name in ["localhost", "127.0.0.1"] {
        visit.browser.open(&elsewhere.at(name)).await;

        visit.is_at("Open the link from your mail").await;
        assert!(!visit.is_validated().await);
    }
}

#[tokio::test]
async fn a_frame_of_another_page_shows_no_button() {
    let visit = Visit::plain().await;
    let elsewhere = Elsewhere::start().await;
    elsewhere.show(format!(
        "<h1>Trap</h1><iframe src='{}'></iframe>",
        visit.link()
    ));

    for name in ["localhost", "127.0.0.1"] {
        visit.browser.open(&elsewhere.at(name)).await;
        assert_eq!(visit.browser.words("h1").await, "Trap");

        visit.browser.enter_frame().await;

        assert!(!visit.browser.has(BUTTON).await);
    }
}

#[tokio::test]
async fn a_prefetched_link_validates_nothing() {
    let site = Site::new().set("log.level", "info,threepid=debug");
    let visit = Visit::begin(site, None).await;
    let elsewhere = Elsewhere::start().await;
    let page = visit.submit_page();
    elsewhere.show(format!("<h1>List</h1><link rel=prefetch href='{page}'>"));

    visit.browser.open(&elsewhere.at("127.0.0.1")).await;
    until("the browser has looked ahead", async || {
        let log = visit.site.log();
        log.lines()
            .any(|line| line.contains(SUBMIT) && line.contains("GET"))
    })
    .await;

    assert!(!visit.is_validated().await);
    visit.browser.open(&page).await;
    visit.is_at(DONE).await;
    assert!(visit.is_validated().await);
}

#[tokio::test]
async fn the_mailbox_leads_to_the_page_by_a_click() {
    let visit = Visit::plain().await;
    let browser = &visit.browser;
    browser.resize(900, 1050).await;

    browser
        .open(&format!("{}/_threepid/mailbox", visit.server.base))
        .await;
    browser.picture("mailbox.png").await;
    assert!(browser.words("article").await.contains(ALICE));
    browser.click("article a").await;

    until("the link's page", async || {
        browser.url().await == visit.link()
    })
    .await;
    assert!(browser.has(BUTTON).await);
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_style_applies_in_the_light_and_in_the_dark() {
    let visit = Visit::plain().await;
    let browser = &visit.browser;
    let colour = async |of: &str| -> Value {
        let script =
            format!("return getComputedStyle(document.querySelector('{of}')).backgroundColor");
        browser.run(&script).await
    };
    let prefer = async |scheme: &str| {
        // Colours change at once, and not by and by.
        let features = json!({ "features": [
            { "name": "prefers-color-scheme", "value": scheme },
            { "name": "prefers-reduced-motion", "value": "reduce" },
        ] });
        browser
            .devtools("Emulation.setEmulatedMedia", features)
            .await;
    };
    browser.open(visit.link()).await;

    prefer("light").await;
    let light = (colour("body").await, colour(BUTTON).await);
    prefer("dark").await;
    let dark = (colour("body").await, colour(BUTTON).await);

    assert_eq!(
        light,
        ("rgb(243, 245, 248)".into(), "rgb(29, 91, 184)".into())
    );
    assert!(light.0 != dark.0 && light.1 != dark.1, "{dark:?}");
    assert_eq!(browser.console().await, Vec::<String>::new());
}

#[tokio::test]
async fn the_page_is_for_small_screens_and_for_keyboards() {
    let visit = Visit::plain().await;
    let browser = &visit.browser;
    browser.resize(320, 568).await;
    browser.open(visit.link()).await;

    let shape = browser
        .run(
            "return { wide: document.documentElement.scrollWidth > innerWidth, width: innerWidth,
                      headings: document.querySelectorAll('h1').length, language: document.documentElement.lang }",
        )
        .await;
    let shaped = json!({ "wide": false, "width": 320, "headings": 1, "language": "en" });
    assert_eq!(shape, shaped);
    assert_eq!(
        browser.title().await,
        "Confirm your email address – threepid"
    );
    browser.press(TAB).await;
    assert_eq!(
        browser.run("return document.activeElement.tagName").await,
        "BUTTON"
    );
    browser.press(ENTER).await;

    visit.is_at(DONE).await;
    assert!(visit.is_validated().await);
}
