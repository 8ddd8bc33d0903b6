//! A headless Chromium, steered through chromedriver (W3C `WebDriver`, and Chromium's own commands beside it).

use std::{
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    process::Stdio,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt, BufReader, Lines},
    process::{Child, ChildStdout},
    time::timeout,
};

use super::{
    install::need,
    server::{PATIENCE, client, until},
};

/// What `WebDriver` calls the id of an element.
const ELEMENT: &str = "element-6066-11e4-a52e-4f735466cecf";
/// What keeps Chromium from doing anything that no test asked for.
const FLAGS: [&str; 10] = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-proxy-server",
    "--hide-scrollbars",
];

/// A key that has no letter.
pub(crate) const TAB: &str = "\u{e004}";
pub(crate) const ENTER: &str = "\u{e007}";

/// A browser with one window. It ends, and its profile goes, when it is dropped.
pub(crate) struct Browser {
    client: reqwest::Client,
    host: String,
    session: String,
    profile: TempDir,
    /// Killed by its id when it is dropped.
    _driver: Child,
    _told: Lines<BufReader<ChildStdout>>,
}

impl Browser {
    pub(crate) async fn start() -> Self {
        need(
            &["chromium", "chromedriver"],
            &["chromium", "chromium-driver"],
        );
        let mut driver = tokio::process::Command::new("chromedriver")
            .arg("--port=0")
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true)
            .spawn()
            .expect("chromedriver starts");
        let mut told = BufReader::new(driver.stdout.take().expect("it is piped")).lines();
        let port = port(&mut told).await;
        let mut browser = Self {
            client: client(),
            host: format!("127.0.0.1:{port}"),
            session: String::new(),
            profile: tempfile::tempdir().expect("there is room for a profile"),
            _driver: driver,
            _told: told,
        };
        let profile = browser.profile.path().display();
        let mut flags: Vec<_> = FLAGS.map(str::to_owned).to_vec();
        flags.push(format!("--user-data-dir={profile}"));
        let wanted = json!({ "capabilities": { "alwaysMatch": {
            "browserName": "chrome",
            "goog:chromeOptions": { "args": flags },
            "goog:loggingPrefs": { "browser": "ALL" },
        } } });
        let opened = browser.send("", Some(&wanted)).await.expect("a session");
        let id = opened["sessionId"].as_str().expect("a session has an id");
        browser.session = format!("/{id}");
        browser
    }

    /// Sends a command: a `POST` if there is a body, else a `GET`. Its value, or what went wrong.
    async fn send(&self, command: &str, body: Option<&Value>) -> Result<Value, Value> {
        let url = format!("http://{}/session{}{command}", self.host, self.session);
        let asked = match body {
            Some(body) => self.client.post(url).json(body),
            None => self.client.get(url),
        };
        let answer = asked.send().await.expect("chromedriver lives");
        let is_done = answer.status().is_success();
        let mut answer: Value = answer.json().await.expect("it answers in JSON");
        let value = answer["value"].take();
        if is_done { Ok(value) } else { Err(value) }
    }

    async fn post(&self, command: &str, body: &Value) -> Value {
        let done = self.send(command, Some(body)).await;
        done.unwrap_or_else(|error| panic!("{command} {body}: {error}"))
    }

    async fn text(&self, query: &str) -> String {
        let value = self.send(query, None).await.expect("a query");
        value.as_str().expect("a text").to_owned()
    }

    /// Opens a page, and waits until it is loaded.
    pub(crate) async fn open(&self, url: &str) {
        self.post("/url", &json!({ "url": url })).await;
    }

    /// The address of the page.
    pub(crate) async fn url(&self) -> String {
        self.text("/url").await
    }

    /// The title of the page.
    pub(crate) async fn title(&self) -> String {
        self.text("/title").await
    }

    /// The element that a CSS selector finds first.
    async fn find(&self, selector: &str) -> Option<String> {
        let wanted = json!({ "using": "css selector", "value": selector });
        let found = self.send("/element", Some(&wanted)).await.ok()?;
        found[ELEMENT].as_str().map(str::to_owned)
    }

    /// Whether a CSS selector finds anything.
    pub(crate) async fn has(&self, selector: &str) -> bool {
        self.find(selector).await.is_some()
    }

    /// Clicks on an element, as soon as it is there.
    pub(crate) async fn click(&self, selector: &str) {
        let what = format!("{selector} can be clicked");
        until(&what, async || {
            // A page that loads anew meanwhile takes its elements with it.
            match self.find(selector).await {
                Some(id) => self
                    .send(&format!("/element/{id}/click"), Some(&json!({})))
                    .await
                    .is_ok(),
                None => false,
            }
        })
        .await;
    }

    /// The words of an element.
    pub(crate) async fn words(&self, selector: &str) -> String {
        let found = self.find(selector).await;
        let id = found.unwrap_or_else(|| panic!("no {selector}"));
        self.text(&format!("/element/{id}/text")).await
    }

    /// Presses a key and lets it go.
    pub(crate) async fn press(&self, key: &str) {
        let actions = json!({ "actions": [{ "type": "key", "id": "keyboard", "actions": [
            { "type": "keyDown", "value": key }, { "type": "keyUp", "value": key },
        ] }] });
        self.post("/actions", &actions).await;
    }

    /// What a function body in JavaScript returns.
    pub(crate) async fn run(&self, script: &str) -> Value {
        let body = json!({ "script": script, "args": [] });
        self.post("/execute/sync", &body).await
    }

    /// Goes into the first frame of the page.
    pub(crate) async fn enter_frame(&self) {
        self.post("/frame", &json!({ "id": 0 })).await;
    }

    /// A command of the Chrome `DevTools` Protocol.
    pub(crate) async fn devtools(&self, command: &str, parameters: Value) {
        let body = json!({ "cmd": command, "params": parameters });
        self.post("/goog/cdp/execute", &body).await;
    }

    /// Makes the window's inside as large as this, at one pixel for each of CSS.
    pub(crate) async fn resize(&self, width: u32, height: u32) {
        let size =
            json!({ "width": width, "height": height, "deviceScaleFactor": 1, "mobile": false });
        self.devtools("Emulation.setDeviceMetricsOverride", size)
            .await;
    }

    /// What pages wrote to the console since the last time.
    pub(crate) async fn console(&self) -> Vec<String> {
        let entries = self.post("/se/log", &json!({ "type": "browser" })).await;
        let entries = entries.as_array().expect("a list").clone();
        entries
            .iter()
            .map(|entry| entry["message"].to_string())
            .collect()
    }

    /// Keeps a picture of the page, if pictures are wanted.
    pub(crate) async fn picture(&self, name: &str) {
        if let Some(folder) = std::env::var_os("THREEPID_SCREENSHOTS") {
            let png = STANDARD
                .decode(self.text("/screenshot").await)
                .expect("a PNG");
            std::fs::write(Path::new(&folder).join(name), png).expect("the folder can be written");
        }
    }
}

impl Drop for Browser {
    /// Ends Chromium, which does not end with its driver.
    fn drop(&mut self) {
        let Ok(mut stream) = TcpStream::connect(&self.host) else {
            return;
        };
        let (host, session) = (&self.host, &self.session);
        let _ = stream.set_read_timeout(Some(Duration::from_secs(20)));
        let _ = write!(
            stream,
            "DELETE /session{session} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n"
        );
        let _ = stream.read(&mut [0; 1024]);
    }
}

/// The port that chromedriver tells when it has started.
async fn port(told: &mut Lines<BufReader<ChildStdout>>) -> u16 {
    loop {
        let line = timeout(PATIENCE, told.next_line()).await;
        let line = line.expect("it starts soon").expect("it says text");
        let line = line.expect("chromedriver tells its port");
        if let Some((_, port)) = line.split_once("successfully on port ") {
            return port.trim_end_matches('.').parse().expect("a port");
        }
    }
}
