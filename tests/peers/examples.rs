//! The examples run and finish their flows.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde_json::{Value, json};

use crate::support::{
    client_api::ClientApi,
    js_sdk::JsSdk,
    mails::{code, link},
    server::{sid, until},
};

const ALICE: &str = "alice@example.org";
const PASSWORD: &str = "correct horse";
const NEW: &str = "battery staple";
const SECRET: &str = "monkeys_are_GREAT";
/// A number as people type it, and as it is stored.
const TYPED: &str = "07700 900001";
const MSISDN: &str = "447700900001";

/// Ends its process with itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test is a file");
    path.pop();
    path.pop();
    Command::new(path.join("examples").join(name))
}

/// Starts an example that is a homeserver; its base URL.
fn start(name: &str) -> (Running, String) {
    let mut running = example(name)
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .expect("cargo test builds the examples");
    let stdout = running.0.stdout.take().expect("it is piped");
    let greeting = BufReader::new(stdout)
        .lines()
        .next()
        .expect("a line")
        .expect("text");
    let server = greeting
        .split_whitespace()
        .find_map(|word| word.strip_suffix(';'))
        .expect("it tells where it listens");
    (running, server.to_owned())
}

#[test]
fn a_client_signs_up_at_the_embedding_homeserver_once() {
    let (_embed, server) = start("embed");
    let client = || {
        let run = example("client").arg(&server).stdin(Stdio::null()).output();
        let run = run.expect("it runs");
        (
            run.status.success(),
            String::from_utf8_lossy(&run.stdout).into_owned(),
        )
    };

    let (first, second) = (client(), client());

    assert!(
        first.0 && first.1.contains("registered: \"@alice:localhost\""),
        "{}",
        first.1
    );
    assert!(
        !second.0,
        "the address is taken: its owner gets a notice, and no code"
    );
}

#[test]
fn two_servers_are_homeserver_and_identity_server_to_each_other() {
    let run = example("two_servers").stdin(Stdio::null()).output();
    let run = run.expect("it runs");

    let told = String::from_utf8_lossy(&run.stdout);
    let why = String::from_utf8_lossy(&run.stderr);
    assert!(run.status.success(), "{told}\n{why}");
    assert_eq!(
        told.lines().last(),
        Some("Done: each was homeserver and identity server to the other.")
    );
}

/// The homeserver of `examples/homeserver`.
struct Homeserver {
    api: ClientApi,
    _running: Running,
}

impl Homeserver {
    fn start() -> Self {
        let (running, base) = start("homeserver");
        Self {
            api: ClientApi::at(base),
            _running: running,
        }
    }

    /// The same with Alice, who has signed up with her address; her access token.
    async fn with_alice() -> (Self, String) {
        let homeserver = Self::start();
        let (status, answer) = homeserver.register("alice", ALICE).await;
        assert_eq!(status, 200, "{answer}");
        (homeserver, token(&answer))
    }

    async fn post(&self, endpoint: &str, token: &str, body: &Value) -> (u16, Value) {
        let path = format!("/_matrix/client/v3/{endpoint}");
        self.api.post(&path, token, body).await
    }

    async fn get(&self, endpoint: &str, token: &str) -> (u16, Value) {
        let path = format!("/_matrix/client/v3/{endpoint}");
        self.api.get(&path, token).await
    }

    /// The newest of the messages to an address, once there are so many.
    async fn text_to(&self, address: &str, count: usize) -> String {
        let mut text = String::new();
        until("the message is there", async || {
            let (_, all) = self.api.get("/_threepid/mailbox/messages", "").await;
            let all = all.as_array().expect("a list of messages");
            let to = all.iter().filter(|one| one["to"] == address);
            let texts: Vec<_> = to.filter_map(|one| one["text"].as_str()).collect();
            texts
                .first()
                .copied()
                .unwrap_or_default()
                .clone_into(&mut text);
            texts.len() >= count
        })
        .await;
        text
    }

    /// Asks for the `count`-th message to an address, and shows its code: what `threepid_creds` holds.
    async fn prove(&self, what: &str, asked: &Value, address: &str, count: usize) -> Value {
        let mut body = json!({ "client_secret": SECRET, "send_attempt": 1 });
        for (key, value) in asked.as_object().expect("an object") {
            body[key] = value.clone();
        }
        let (status, answer) = self.post(&format!("{what}/requestToken"), "", &body).await;
        assert_eq!(status, 200, "{answer}");
        let text = self.text_to(address, count).await;
        let code = match address {
            MSISDN => text.split_whitespace().next().expect("a code"),
            _ => code(&text),
        };
        let creds = json!({ "sid": sid(&answer), "client_secret": body["client_secret"] });
        let mut shown = creds.clone();
        shown["token"] = code.into();
        let url = answer["submit_url"].as_str().expect("a URL for codes");
        let path = url.strip_prefix(&self.api.base).expect("a URL of ours");
        let (status, answer) = self.api.post(path, "", &shown).await;
        assert_eq!((status, answer), (200, json!({ "success": true })));
        creds
    }

    async fn prove_email(&self, address: &str, count: usize) -> Value {
        let asked = json!({ "email": address });
        self.prove("register/email", &asked, address, count).await
    }

    async fn prove_number(&self, what: &str) -> Value {
        let asked = json!({ "country": "GB", "phone_number": TYPED });
        let what = format!("{what}/msisdn");
        self.prove(&what, &asked, MSISDN, 1).await
    }

    /// Begins to sign up; the request that ends it, for a stage with these credentials.
    async fn begin(&self, localpart: &str, creds: &Value) -> Value {
        let mut wanted = json!({ "username": localpart, "password": PASSWORD });
        let (status, challenge) = self.post("register", "", &wanted).await;
        assert_eq!(status, 401, "{challenge}");
        let stages = json!([{ "stages": ["m.login.email.identity"] }]);
        assert_eq!(challenge["flows"], stages);
        let session = &challenge["session"];
        let stage = json!({ "type": "m.login.email.identity", "session": session, "threepid_creds": creds });
        wanted["auth"] = stage;
        wanted
    }

    /// Signs up with an address, by the code of its first message.
    async fn register(&self, localpart: &str, address: &str) -> (u16, Value) {
        let creds = self.prove_email(address, 1).await;
        let request = self.begin(localpart, &creds).await;
        self.post("register", "", &request).await
    }

    /// Does what asks for the password in a challenge first.
    async fn with_password(
        &self,
        endpoint: &str,
        token: &str,
        body: &Value,
        typed: &str,
    ) -> (u16, Value) {
        let (status, challenge) = self.post(endpoint, token, body).await;
        let stages = json!([{ "stages": ["m.login.password"] }]);
        assert_eq!((status, &challenge["flows"]), (401, &stages));
        let mut body = body.clone();
        let user = json!({ "type": "m.id.user", "user": "alice" });
        let session = &challenge["session"];
        body["auth"] = json!({
            "type": "m.login.password", "session": session, "identifier": user, "password": typed,
        });
        self.post(endpoint, token, &body).await
    }

    async fn login(&self, identifier: &Value, password: &str) -> (u16, Value) {
        let body =
            json!({ "type": "m.login.password", "identifier": identifier, "password": password });
        self.post("login", "", &body).await
    }
}

fn token(answer: &Value) -> String {
    let token = answer["access_token"].as_str();
    token.expect("an access token").to_owned()
}

fn told((status, answer): (u16, Value)) -> (u16, String) {
    let errcode = answer["errcode"].as_str();
    (status, errcode.unwrap_or_default().to_owned())
}

fn refused(status: u16, errcode: &str) -> (u16, String) {
    (status, errcode.to_owned())
}

fn by_email(address: &str) -> Value {
    json!({ "type": "m.id.thirdparty", "medium": "email", "address": address })
}

fn by_phone(number: &str) -> Value {
    json!({ "type": "m.id.phone", "country": "GB", "phone": number })
}

fn by_name(localpart: &str) -> Value {
    json!({ "type": "m.id.user", "user": localpart })
}

#[tokio::test]
async fn a_mailed_code_makes_one_account_however_often_it_is_shown() {
    let homeserver = Homeserver::start();
    let unproved = json!({ "sid": "s", "client_secret": SECRET });
    let early = homeserver.begin("alice", &unproved).await;
    let early = homeserver.post("register", "", &early).await;
    let creds = homeserver.prove_email(ALICE, 1).await;
    let request = homeserver.begin("alice", &creds).await;
    // A tab that the link opened knows no more than this.
    let in_a_new_tab = json!({ "auth": request["auth"] });

    let again = || homeserver.post("register", "", &request);
    let (first, second, third) = tokio::join!(again(), again(), again());
    let fourth = homeserver.post("register", "", &in_a_new_tab).await;

    assert_eq!(told(early), refused(401, "M_UNAUTHORIZED"));
    for (status, answer) in [first, second, third, fourth] {
        assert_eq!(
            (status, &answer["user_id"]),
            (200, &"@alice:localhost".into())
        );
        let (_, whoami) = homeserver.get("account/whoami", &token(&answer)).await;
        assert_eq!(whoami["device_id"], answer["device_id"]);
        let contacts = homeserver.api.contacts(&token(&answer)).await;
        assert_eq!(contacts, [format!("email:{ALICE}")]);
    }
    let other = homeserver.begin("bob", &creds).await;
    let other = homeserver.post("register", "", &other).await;
    assert_eq!(told(other), refused(401, "M_UNAUTHORIZED"));
}

#[tokio::test]
async fn of_two_that_want_one_name_the_later_takes_another_with_the_same_proof() {
    let homeserver = Homeserver::start();
    let hers = homeserver.prove_email(ALICE, 1).await;
    let his = homeserver.prove_email("bob@example.org", 1).await;
    let first = homeserver.begin("alice", &hers).await;
    let late = homeserver.begin("alice", &his).await;
    let in_a_new_tab = json!({ "auth": late["auth"] });

    let first = homeserver.post("register", "", &first).await;
    let late = homeserver.post("register", "", &late).await;
    let later = homeserver.post("register", "", &in_a_new_tab).await;
    let other = homeserver.begin("bob", &his).await;
    let other = homeserver.post("register", "", &other).await;

    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(told(late), refused(400, "M_USER_IN_USE"));
    assert_eq!(told(later), refused(400, "M_USER_IN_USE"));
    assert_eq!(
        (other.0, &other.1["user_id"]),
        (200, &"@bob:localhost".into())
    );
}

#[tokio::test]
async fn of_two_that_proved_one_address_one_gets_it_and_the_other_leaves_nothing() {
    let homeserver = Homeserver::start();
    let first = homeserver.prove_email(ALICE, 1).await;
    let asked = json!({ "email": ALICE, "client_secret": "another" });
    let second = homeserver.prove("register/email", &asked, ALICE, 2).await;
    let first = homeserver.begin("alice", &first).await;
    let second = homeserver.begin("alicia", &second).await;

    let first = homeserver.post("register", "", &first).await;
    let second = homeserver.post("register", "", &second).await;

    assert_eq!(first.0, 200, "{}", first.1);
    assert_eq!(told(second), refused(400, "M_THREEPID_IN_USE"));
    let free = homeserver
        .get("register/available?username=alicia", "")
        .await;
    assert_eq!(free.0, 200);
    assert_eq!(homeserver.login(&by_name("alicia"), PASSWORD).await.0, 403);
}

#[tokio::test]
async fn names_and_passwords_that_can_not_be_are_refused_before_a_mail_is_opened() {
    let (homeserver, _) = Homeserver::with_alice().await;
    let long = "a".repeat(255);
    for (name, errcode) in [
        ("alice", "M_USER_IN_USE"),
        ("Alice", "M_INVALID_USERNAME"),
        ("", "M_INVALID_USERNAME"),
        ("@carol:localhost", "M_INVALID_USERNAME"),
        ("a b", "M_INVALID_USERNAME"),
        (&long, "M_INVALID_USERNAME"),
    ] {
        let wanted = json!({ "username": name, "password": PASSWORD });
        let asked = homeserver.post("register", "", &wanted).await;
        assert_eq!(told(asked), refused(400, errcode), "{name}");
        let query = percent_encode(name.as_bytes(), NON_ALPHANUMERIC);
        let asked = format!("register/available?username={query}");
        let asked = homeserver.get(&asked, "").await;
        assert_eq!(told(asked), refused(400, errcode), "{name}");
    }
    let free = homeserver.get("register/available?username=bob", "").await;
    assert_eq!(free, (200, json!({ "available": true })));
    let weak = json!({ "username": "bob", "password": "short" });
    let weak = homeserver.post("register", "", &weak).await;
    assert_eq!(told(weak), refused(400, "M_WEAK_PASSWORD"));
}

#[tokio::test]
async fn a_number_is_no_email_address_and_guests_are_none() {
    let homeserver = Homeserver::start();
    let creds = homeserver.prove_number("register").await;
    let request = homeserver.begin("alice", &creds).await;

    let with_a_number = homeserver.post("register", "", &request).await;
    let as_a_guest = homeserver.post("register?kind=guest", "", &json!({})).await;

    assert_eq!(told(with_a_number), refused(401, "M_UNAUTHORIZED"));
    assert_eq!(told(as_a_guest), refused(403, "M_GUEST_ACCESS_FORBIDDEN"));
    let free = homeserver
        .get("register/available?username=alice", "")
        .await;
    assert_eq!(free.0, 200, "no account was made");
}

#[tokio::test]
async fn nobody_learns_by_a_login_who_has_an_account() {
    let (homeserver, _) = Homeserver::with_alice().await;
    let wrong = homeserver.login(&by_name("alice"), NEW).await;

    for identifier in [
        by_name("bob"),
        by_name("@alice:elsewhere.example"),
        by_email(ALICE),
        by_email("bob@example.org"),
        by_email("nonsense"),
        by_phone(TYPED),
    ] {
        let login = homeserver.login(&identifier, NEW).await;
        assert_eq!(login, wrong, "{identifier}");
    }

    assert_eq!(told(wrong), refused(403, "M_FORBIDDEN"));
    for identifier in [by_name("alice"), by_email("Alice@EXAMPLE.org")] {
        let (status, answer) = homeserver.login(&identifier, PASSWORD).await;
        assert_eq!(
            (status, &answer["user_id"]),
            (200, &"@alice:localhost".into())
        );
    }
}

#[tokio::test]
async fn a_device_that_is_logged_out_is_not_known_any_more() {
    let (homeserver, first) = Homeserver::with_alice().await;
    let second = homeserver.api.login("alice", PASSWORD).await;
    let third = homeserver.api.login("alice", PASSWORD).await;
    let whoami = async |token: &str| told(homeserver.get("account/whoami", token).await);

    assert_eq!(homeserver.post("logout", &first, &json!({})).await.0, 200);

    let unknown = refused(401, "M_UNKNOWN_TOKEN");
    assert_eq!(
        (whoami(&first).await, whoami(&second).await.0),
        (unknown.clone(), 200)
    );
    assert_eq!(
        homeserver.post("logout/all", &second, &json!({})).await.0,
        200
    );
    assert_eq!(
        (whoami(&second).await, whoami(&third).await),
        (unknown.clone(), unknown)
    );
    assert_eq!(whoami("").await, refused(401, "M_MISSING_TOKEN"));
}

#[tokio::test]
async fn a_forgotten_password_is_set_on_the_mailed_page() {
    let (homeserver, old_token) = Homeserver::with_alice().await;
    let asked = json!({ "client_secret": "another", "email": ALICE, "send_attempt": 1 });
    let asked = homeserver
        .post("account/password/email/requestToken", "", &asked)
        .await;
    assert_eq!(asked.0, 200, "{}", asked.1);
    let text = homeserver.text_to(ALICE, 2).await;
    let set = async |password: &str| {
        let form = [
            ("new_password", password),
            ("new_password_again", password),
            ("logout_devices", "on"),
        ];
        let sent = homeserver
            .api
            .client
            .post(link(&text))
            .form(&form)
            .send()
            .await;
        sent.expect("the page answers").status().as_u16()
    };

    let (weak, done) = (set("short").await, set(NEW).await);

    assert_eq!((weak, done), (400, 200));
    assert_eq!(homeserver.login(&by_email(ALICE), PASSWORD).await.0, 403);
    assert_eq!(homeserver.login(&by_email(ALICE), NEW).await.0, 200);
    let old_device = homeserver.get("account/whoami", &old_token).await;
    assert_eq!(told(old_device), refused(401, "M_UNKNOWN_TOKEN"));
    let notice = homeserver.text_to(ALICE, 3).await;
    assert!(notice.contains("@alice:localhost"), "{notice}");
}

#[tokio::test]
async fn a_password_is_changed_by_whoever_knows_the_old_one() {
    let (homeserver, token) = Homeserver::with_alice().await;
    let other = homeserver.api.login("alice", PASSWORD).await;
    let change = async |new: &str, typed: &str| {
        let wanted = json!({ "new_password": new });
        told(
            homeserver
                .with_password("account/password", &token, &wanted, typed)
                .await,
        )
    };

    assert_eq!(
        change(NEW, "not the password").await,
        refused(401, "M_FORBIDDEN")
    );
    assert_eq!(
        change("short", PASSWORD).await,
        refused(400, "M_WEAK_PASSWORD")
    );
    assert_eq!(change(NEW, PASSWORD).await.0, 200);

    assert_eq!(homeserver.login(&by_name("alice"), PASSWORD).await.0, 403);
    assert_eq!(homeserver.login(&by_name("alice"), NEW).await.0, 200);
    assert_eq!(homeserver.get("account/whoami", &token).await.0, 200);
    assert_eq!(homeserver.get("account/whoami", &other).await.0, 401);
}

#[tokio::test]
async fn a_number_is_added_with_the_password_and_logs_in() {
    let (homeserver, token) = Homeserver::with_alice().await;
    let creds = homeserver.prove_number("account/3pid").await;
    let add = async |typed: &str| {
        let added = homeserver.with_password("account/3pid/add", &token, &creds, typed);
        told(added.await)
    };

    let (wrong, added) = (add("not the password").await, add(PASSWORD).await);

    assert_eq!((wrong.0, added.0), (401, 200));
    let contacts = homeserver.api.contacts(&token).await;
    assert_eq!(
        contacts,
        [format!("email:{ALICE}"), format!("msisdn:{MSISDN}")]
    );
    assert_eq!(homeserver.login(&by_phone(TYPED), PASSWORD).await.0, 200);
}

#[tokio::test]
async fn an_account_that_ends_leaves_its_address_and_keeps_its_name() {
    let (homeserver, token) = Homeserver::with_alice().await;
    let end = async |typed: &str| {
        homeserver
            .with_password("account/deactivate", &token, &json!({}), typed)
            .await
    };

    let (wrong, ended) = (end("not the password").await, end(PASSWORD).await);

    assert_eq!(told(wrong), refused(401, "M_FORBIDDEN"));
    assert_eq!(
        ended,
        (200, json!({ "id_server_unbind_result": "success" }))
    );
    assert_eq!(homeserver.get("account/whoami", &token).await.0, 401);
    for identifier in [by_name("alice"), by_email(ALICE)] {
        assert_eq!(homeserver.login(&identifier, PASSWORD).await.0, 403);
    }
    let name = homeserver
        .get("register/available?username=alice", "")
        .await;
    assert_eq!(told(name), refused(400, "M_USER_IN_USE"));
    let creds = homeserver.prove_email(ALICE, 2).await;
    let request = homeserver.begin("alicia", &creds).await;
    assert_eq!(homeserver.post("register", "", &request).await.0, 200);
    assert_eq!(homeserver.login(&by_email(ALICE), PASSWORD).await.0, 200);
}

#[tokio::test]
async fn an_account_lives_its_life_in_the_library_of_a_real_client() {
    let homeserver = Homeserver::start();
    let mut client = JsSdk::start(&homeserver.api.base, None);
    let creds = homeserver.prove_email(ALICE, 1).await;
    let mut wanted = json!({ "username": "alice", "password": PASSWORD });
    let challenge = client.refused("registerRequest", json!([wanted])).await;
    let session = &challenge.data["session"];
    wanted["auth"] =
        json!({ "type": "m.login.email.identity", "session": session, "threepid_creds": creds });

    let registered = client.must("registerRequest", json!([wanted])).await;
    client.login("alice", PASSWORD).await;
    let auth =
        json!({ "type": "m.login.password", "identifier": by_name("alice"), "password": PASSWORD });
    let changed = client.must("setPassword", json!([auth, NEW, false])).await;
    let whoami = client.must("whoami", json!([])).await;
    let wrong = client
        .refused("deactivateAccount", json!([auth, true]))
        .await;
    let auth =
        json!({ "type": "m.login.password", "identifier": by_name("alice"), "password": NEW });
    let ended = client.must("deactivateAccount", json!([auth, true])).await;

    assert_eq!(registered["user_id"], "@alice:localhost");
    assert_eq!(
        (changed, &whoami["user_id"]),
        (json!({}), &registered["user_id"])
    );
    assert_eq!(
        (wrong.status, wrong.errcode.as_str()),
        (Some(401), "M_FORBIDDEN")
    );
    assert_eq!(ended, json!({ "id_server_unbind_result": "success" }));
}
