//! Synapse, the homeserver that most people run, with nobody else to talk to.

use std::{
    fs::{self, OpenOptions},
    path::{Path, PathBuf},
    process::Stdio,
};

use aws_lc_rs::hmac;
use reqwest::Method;
use serde_json::{Map, Value, json};
use tokio::process::{Child, Command};

use super::{
    captcha::{self, Captcha},
    certificates::{Certified, authority_in, pem},
    client_api::ClientApi,
    install::python_with,
    ports::free_port,
    server::{send_signal, until},
};

/// The release that is installed.
const SYNAPSE: &str = "matrix-synapse==1.163.2";
/// Its name in the ids of users.
pub(crate) const SERVER_NAME: &str = "synapse.test";
/// What lets us register whom we like.
pub(crate) const SHARED_SECRET: &str = "for the tests alone";
/// How often it is started again where it was.
const RESTARTS: usize = 5;
/// The administrator who is always there.
const OPERATOR: &str = "operator";
/// The access token of the bridge that some Synapses know: an application service.
pub(crate) const BRIDGE_TOKEN: &str = "token-of-the-bridge";
/// How the bridge is made known (Application Service API, "Registration").
const BRIDGE: &str = r#"{
    "id": "bridge", "url": null, "as_token": "token-of-the-bridge", "hs_token": "h", "sender_localpart": "bridge",
    "namespaces": { "users": [{ "exclusive": true, "regex": "@bridged_.*" }] }
}"#;
/// The terms that people agree to, in Synapse's own way of templates.
const TERMS: &str = "<!doctype html><title>Terms</title><p>Be kind.";

/// What differs from a Synapse that is as open and as quick as it can be.
#[derive(Clone, Debug, Default)]
pub(crate) struct Options {
    settings: Map<String, Value>,
    /// What lies beside the configuration: names and texts.
    files: Vec<(&'static str, &'static str)>,
    /// Whether other servers find and trust it.
    federates: bool,
}

impl Options {
    /// The same with one of Synapse's own settings.
    pub(crate) fn set(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.settings.insert(key.to_owned(), value.into());
        self
    }

    /// The same with a file in its folder.
    fn file(mut self, name: &'static str, text: &'static str) -> Self {
        self.files.push((name, text));
        self
    }

    /// Everybody may sign up who does what is asked for; without more that is nothing.
    pub(crate) fn open(self) -> Self {
        self.set("enable_registration", true)
            .set("enable_registration_without_verification", true)
    }

    /// Whoever signs up solves a captcha.
    pub(crate) fn asking_for_captchas(self, captcha: &Captcha) -> Self {
        self.set("enable_registration_captcha", true)
            .set("recaptcha_public_key", "everybody's key")
            .set("recaptcha_private_key", captcha::KEY)
            .set("recaptcha_siteverify_api", captcha.url())
    }

    /// Whoever signs up agrees to the terms.
    pub(crate) fn asking_for_consent(self) -> Self {
        let consent = json!({
            "version": "1.0", "template_dir": "consent", "require_at_registration": true,
            "policy_name": "House rules",
        });
        self.set("user_consent", consent)
            .file("consent/en/1.0.html", TERMS)
            .file("consent/en/success.html", TERMS)
    }

    /// Whoever signs up has a registration token; [`Synapse::allow`] makes them.
    pub(crate) fn asking_for_tokens(self) -> Self {
        self.set("registration_requires_token", true)
    }

    /// There is a bridge, whose users' names begin with `bridged_`.
    pub(crate) fn with_bridge(self) -> Self {
        self.set("app_service_config_files", json!(["bridge.yaml"]))
            .file("bridge.yaml", BRIDGE)
    }

    /// Phone numbers are proved at `delegate`; clients reach Synapse at `public_baseurl`.
    pub(crate) fn phones_proved_by(self, delegate: &str, public_baseurl: &str) -> Self {
        self.set("account_threepid_delegates", json!({ "msisdn": delegate }))
            .set("public_baseurl", public_baseurl)
    }

    /// Passwords must be this long.
    pub(crate) fn passwords_of_at_least(self, minimum_length: u32) -> Self {
        let policy = json!({ "enabled": true, "minimum_length": minimum_length });
        self.set("password_config", json!({ "policy": policy }))
    }

    /// Accounts are those of an OAuth account server, with which Synapse shares a secret.
    pub(crate) fn accounts_of(self, endpoint: &str, secret: &str) -> Self {
        let service = json!({ "enabled": true, "endpoint": endpoint, "secret": secret });
        self.set("matrix_authentication_service", service)
    }

    /// Other servers on this machine reach it by its own name, and it reaches them: `localhost` and its port, with TLS.
    pub(crate) fn federating(self) -> Self {
        let federating = Self {
            federates: true,
            ..self
        };
        federating
            .set("ip_range_blacklist", json!([]))
            .set("tls_certificate_path", "site.pem")
            .set("tls_private_key_path", "site.key")
    }

    /// What it is called in the ids of users.
    fn server_name(&self, port: u16) -> String {
        if self.federates {
            format!("localhost:{port}")
        } else {
            SERVER_NAME.to_owned()
        }
    }

    fn has_own_accounts(&self) -> bool {
        !self.settings.contains_key("matrix_authentication_service")
    }

    /// The whole configuration: YAML, of which JSON is a part.
    fn configuration(&self, dir: &Path, port: u16) -> String {
        let path = |name: &str| dir.join(name).display().to_string();
        let often = json!({ "per_second": 1000, "burst_count": 1000 });
        let mut names = vec!["client", "federation"];
        if self.settings.contains_key("user_consent") {
            names.push("consent");
        }
        let resources = json!([{ "names": names }]);
        let mut configuration = json!({
            "server_name": self.server_name(port),
            "listeners": [{
                "port": port, "type": "http", "tls": self.federates, "x_forwarded": true,
                "bind_addresses": ["127.0.0.1"], "resources": resources,
            }],
            "database": { "name": "sqlite3", "args": { "database": path("homeserver.db") } },
            "media_store_path": path("media"),
            "signing_key_path": path("signing.key"),
            "registration_shared_secret": SHARED_SECRET,
            "macaroon_secret_key": "m",
            "form_secret": "f",
            "trusted_key_servers": [],
            "suppress_key_server_warning": true,
            "report_stats": false,
            "allow_guest_access": self.has_own_accounts(),
            "bcrypt_rounds": 4,
            "rc_login": { "address": often, "account": often, "failed_attempts": often },
            "rc_registration": often,
            "rc_3pid_validation": often,
            "rc_message": often,
        });
        let keys = configuration.as_object_mut().expect("it is a table");
        keys.extend(self.settings.clone());
        configuration.to_string()
    }
}

/// A Synapse. Dropped, it is killed.
pub(crate) struct Synapse {
    /// Its API, past whatever stands in front of it.
    pub(crate) api: ClientApi,
    /// Its name in the ids of users.
    pub(crate) server_name: String,
    dir: PathBuf,
    /// The running process; killed by its id when it is dropped.
    child: Child,
    operator: String,
}

impl Synapse {
    /// Installs it if need be, starts it with its state in `dir`, and registers an administrator, if it has accounts.
    pub(crate) async fn start(dir: &Path, options: Options) -> Self {
        let port = free_port();
        let write = |name, text: &str| {
            let path: PathBuf = dir.join(name);
            let folder = path.parent().expect("it is in the folder");
            fs::create_dir_all(folder).expect("the folder can be written");
            fs::write(path, text).expect("the folder can be written");
        };
        write("homeserver.yaml", &options.configuration(dir, port));
        for (name, text) in &options.files {
            write(name, text);
        }
        // A key of 32 zeros: what it signs is worth nothing outside of the tests.
        write("signing.key", &format!("ed25519 a_test {}", "A".repeat(43)));
        let api = if options.federates {
            let (certificate, key) = pem(Certified::Localhost);
            write("site.pem", certificate);
            write("site.key", key);
            ClientApi::trusting(format!("https://localhost:{port}"), &authority_in(dir))
        } else {
            ClientApi::at(format!("http://127.0.0.1:{port}"))
        };
        let mut synapse = Self {
            api,
            server_name: options.server_name(port),
            dir: dir.to_owned(),
            child: spawn(dir),
            operator: String::new(),
        };
        synapse.wait_until_it_answers().await;
        if options.has_own_accounts() {
            synapse.operator = synapse.register(OPERATOR, "operator's", true).await;
        }
        synapse
    }

    /// The URL at which it listens.
    pub(crate) fn base(&self) -> &str {
        &self.api.base
    }

    /// A path in its folder.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// All that it has logged.
    pub(crate) fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default()
    }

    /// What it has logged of what went wrong.
    pub(crate) fn complaints(&self) -> String {
        let log = self.log();
        let is_one = |line: &&str| line.contains(" - WARNING - ") || line.contains(" - ERROR - ");
        let lines: Vec<_> = log.lines().filter(is_one).collect();
        lines.join("\n")
    }

    /// The access token of an administrator.
    pub(crate) fn admin_token(&self) -> &str {
        &self.operator
    }

    /// Ends that token.
    pub(crate) async fn revoke_admin_token(&self) {
        let path = "/_matrix/client/v3/logout";
        let (status, answer) = self.api.post(path, &self.operator, &json!({})).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// Makes an account; an access token.
    pub(crate) async fn register(&self, localpart: &str, password: &str, admin: bool) -> String {
        const PATH: &str = "/_synapse/admin/v1/register";
        let (_, answer) = self.api.get(PATH, "").await;
        let nonce = answer["nonce"].as_str().expect("it gives a nonce");
        let role = if admin { "admin" } else { "notadmin" };
        let body = json!({
            "nonce": nonce, "username": localpart, "password": password, "admin": admin,
            "mac": mac(&[nonce, localpart, password, role]),
        });
        let (status, answer) = self.api.post(PATH, "", &body).await;
        assert_eq!(status, 200, "{answer}");
        let token = answer["access_token"].as_str();
        token.expect("an account has a token").to_owned()
    }

    /// Opens a guest's account; an access token.
    pub(crate) async fn register_guest(&self) -> String {
        let path = "/_matrix/client/v3/register?kind=guest";
        let (status, answer) = self.api.post(path, "", &json!({})).await;
        assert_eq!(status, 200, "{answer}");
        let token = answer["access_token"].as_str();
        token.expect("a guest has a token").to_owned()
    }

    /// Makes a registration token, for as many accounts as one likes.
    pub(crate) async fn allow(&self, token: &str) {
        let path = "/_synapse/admin/v1/registration_tokens/new";
        let body = json!({ "token": token });
        let (status, answer) = self.api.post(path, &self.operator, &body).await;
        assert_eq!(status, 200, "{answer}");
    }

    /// The names of all accounts but that of the administrator, guests left out, in the order of the alphabet.
    pub(crate) async fn accounts(&self) -> Vec<String> {
        let path = "/_synapse/admin/v2/users?guests=false&limit=1000&order_by=name";
        let (status, answer) = self.api.get(path, &self.operator).await;
        assert_eq!(status, 200, "{answer}");
        let users = answer["users"].as_array().expect("a list");
        let names = users.iter().map(|user| {
            let name = user["name"].as_str().and_then(|name| name.split_once(':'));
            name.expect("a user id")
                .0
                .trim_start_matches('@')
                .to_owned()
        });
        names.filter(|name| name != OPERATOR).collect()
    }

    /// Suspends an account: it may read, and not write.
    pub(crate) async fn suspend(&self, localpart: &str) {
        let path = format!("/_synapse/admin/v1/suspend/{}", user_id(localpart));
        self.manage(&path, &json!({ "suspend": true })).await;
    }

    /// Locks an account: its tokens open nothing as long as it is.
    pub(crate) async fn lock(&self, localpart: &str) {
        let path = format!("/_synapse/admin/v2/users/{}", user_id(localpart));
        self.manage(&path, &json!({ "locked": true })).await;
    }

    async fn manage(&self, path: &str, body: &Value) {
        let (status, answer) = self.api.put(path, &self.operator, body).await;
        assert_eq!(status, 200, "{path}: {answer}");
    }

    /// The user who has an address, as an administrator sees it.
    pub(crate) async fn owner(&self, medium: &str, address: &str) -> Option<String> {
        let path = format!("/_synapse/admin/v1/threepid/{medium}/users/{address}");
        let (status, answer) = self.api.get(&path, &self.operator).await;
        assert!([200, 404].contains(&status), "{answer}");
        answer["user_id"].as_str().map(str::to_owned)
    }

    /// Kills it, as if its machine had lost its power.
    pub(crate) async fn stop(&mut self) {
        self.child.kill().await.expect("it can be killed");
    }

    /// Starts it again after [`Self::stop`], at the same address with the same data.
    pub(crate) async fn restart(&mut self) {
        // While it is gone, a connection of somebody else's may have its port for a moment.
        for _ in 0..RESTARTS {
            self.child = spawn(&self.dir);
            if self.answers().await {
                return;
            }
        }
        panic!("Synapse did not start again: {}", self.log());
    }

    /// Stops it in what it does: connections are taken, and nothing is answered.
    pub(crate) async fn pause(&self) {
        send_signal("STOP", self.id()).await;
    }

    /// Lets it go on.
    pub(crate) async fn resume(&self) {
        send_signal("CONT", self.id()).await;
    }

    fn id(&self) -> u32 {
        self.child.id().expect("it runs")
    }

    async fn wait_until_it_answers(&mut self) {
        let answers = self.answers().await;
        assert!(answers, "Synapse did not start: {}", self.log());
    }

    /// Waits until it answers; `false` if it ends before it does.
    async fn answers(&mut self) -> bool {
        let mut has_ended = false;
        until("Synapse answers", async || {
            has_ended = self
                .child
                .try_wait()
                .expect("it is a child of ours")
                .is_some();
            let path = "/_matrix/client/versions";
            let answer = self.api.try_call(Method::GET, path, "", None).await;
            has_ended || answer.is_some_and(|(status, _)| status == 200)
        })
        .await;
        !has_ended
    }
}

/// The whole id of a user.
pub(crate) fn user_id(localpart: &str) -> String {
    format!("@{localpart}:{SERVER_NAME}")
}

/// The python that it runs in, with the libraries that it needs.
pub(crate) fn python() -> PathBuf {
    python_with(SYNAPSE)
}

fn spawn(dir: &Path) -> Child {
    let log = OpenOptions::new()
        .create(true)
        .append(true)
        .open(dir.join("log"))
        .expect("the folder can be written");
    let mut command = Command::new(python());
    command
        .args(["-m", "synapse.app.homeserver", "-c", "homeserver.yaml"])
        .current_dir(dir)
        .stdin(Stdio::null())
        .stdout(log.try_clone().expect("a file can be opened twice"))
        .stderr(log)
        .kill_on_drop(true);
    let authority = dir.join("ca.pem");
    if authority.exists() {
        // What its client for identity servers trusts, which has no setting of its own.
        command.env("SSL_CERT_FILE", authority);
    }
    command.spawn().expect("python starts")
}

/// What proves that a registration is by somebody who knows the shared secret.
fn mac(parts: &[&str]) -> String {
    let key = hmac::Key::new(
        hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
        SHARED_SECRET.as_bytes(),
    );
    let tag = hmac::sign(&key, parts.join("\0").as_bytes());
    let bytes = tag.as_ref().iter();
    let digits: Vec<_> = bytes.map(|byte| format!("{byte:02x}")).collect();
    digits.concat()
}
