//! A whole site: a reverse proxy with the configuration of `deploy/`, the program behind it, a homeserver beside it.

use std::{
    fs,
    io::{BufRead, BufReader},
    net::TcpStream,
    path::Path,
    process::{Command, Stdio},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Duration,
};

use axum::{
    Router,
    http::{HeaderMap, Method, Uri, header::UPGRADE},
};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::runtime::Runtime;

pub(crate) use crate::support::reverse_proxy::HOST;
use crate::support::{
    ports::free_port,
    reverse_proxy::{Process, caddy, haproxy, make_certificate, need_programs, nginx},
};

/// How often, and how many times, something that starts is looked at.
const LOOK_EVERY: Duration = Duration::from_millis(50);
const LOOKS: usize = 400;

/// Which reverse proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proxy {
    Nginx,
    Caddy,
    Haproxy,
}

/// Which part of threepid's a homeserver leaves to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// It proves what the homeserver adds to accounts.
    Delegate,
    /// It also signs people up, and resets passwords.
    Overlay,
    /// It also has the addresses of accounts.
    Sidecar,
    /// None: it is an identity server with a name of its own.
    Identity,
}

impl Recipe {
    const ALL: [Self; 3] = [Self::Delegate, Self::Overlay, Self::Sidecar];

    /// Those where people sign up through threepid.
    const SIGNING_UP: [Self; 2] = [Self::Overlay, Self::Sidecar];

    /// The name of the file in `deploy/`.
    fn file(self, proxy: Proxy) -> String {
        let recipe = match self {
            Self::Delegate => "delegate",
            Self::Overlay => "overlay",
            Self::Sidecar => "sidecar",
            Self::Identity => "identity",
        };
        match proxy {
            Proxy::Nginx => format!("nginx-{recipe}.conf"),
            Proxy::Caddy => format!("Caddyfile-{recipe}"),
            Proxy::Haproxy => format!("haproxy-{recipe}.cfg"),
        }
    }
}

/// What runs; all of it ends when it is dropped.
pub(crate) struct Site {
    proxy: Proxy,
    pub(crate) recipe: Recipe,
    /// The configuration's file in `deploy/`.
    pub(crate) name: String,
    folder: TempDir,
    port: u16,
    /// The program's internal listener, past the proxy.
    internal: String,
    threepid: Process,
    _reverse_proxy: Process,
    homeserver: Homeserver,
}

/// An answer as a client behind the proxy sees it; status 0 and curl's complaint if it got none.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) body: String,
}

impl Answer {
    /// Whether threepid answered: neither the homeserver nor the proxy itself.
    pub(crate) fn is_threepid_s(&self) -> bool {
        let is_homeserver_s = self.body.starts_with("homeserver:");
        let is_page_of_proxy = self.body.is_empty() || self.body.starts_with("<html>");
        let is_proxy_s = is_page_of_proxy || self.body.contains("There is nothing here.");
        self.status != 0 && !is_homeserver_s && !is_proxy_s
    }

    /// The body as JSON; `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or(Value::Null)
    }
}

impl Site {
    /// One with each configuration, each started when the one before is done with.
    pub(crate) fn all() -> impl Iterator<Item = Self> {
        Self::with(&Recipe::ALL)
    }

    /// Those where people sign up through threepid.
    pub(crate) fn signing_up() -> impl Iterator<Item = Self> {
        Self::with(&Recipe::SIGNING_UP)
    }

    /// Identity servers.
    pub(crate) fn identity() -> impl Iterator<Item = Self> {
        Self::with(&[Recipe::Identity])
    }

    fn with(recipes: &'static [Recipe]) -> impl Iterator<Item = Self> {
        let proxies = [Proxy::Nginx, Proxy::Caddy, Proxy::Haproxy].into_iter();
        proxies.flat_map(|proxy| {
            recipes
                .iter()
                .map(move |recipe| Self::start(proxy, *recipe))
        })
    }

    fn start(proxy: Proxy, recipe: Recipe) -> Self {
        need_programs();
        let folder = tempfile::tempdir().expect("there is room for temporary files");
        make_certificate(folder.path());
        let homeserver = Homeserver::start();
        let (threepid, listen, internal) = threepid(folder.path());
        let port = free_port();
        let mut ports = vec![("127.0.0.1:8090", listen)];
        if recipe != Recipe::Identity {
            ports.push(("127.0.0.1:8008", format!("127.0.0.1:{}", homeserver.port)));
        }
        let name = recipe.file(proxy);
        let deploy = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy");
        let text = fs::read_to_string(deploy.join(&name)).expect("the configuration is there");
        // One name for all sites.
        let text = text.replace("id.example.org", HOST);
        let text = text.replace("identity.access.log", "matrix.access.log");
        let reverse_proxy = match proxy {
            Proxy::Nginx => nginx(folder.path(), &text, port, &ports),
            Proxy::Caddy => caddy(folder.path(), &text, port, &ports),
            Proxy::Haproxy => haproxy(folder.path(), &text, port, &ports),
        };
        let mut site = Self {
            proxy,
            recipe,
            name,
            folder,
            port,
            internal,
            threepid,
            _reverse_proxy: reverse_proxy,
            homeserver,
        };
        site.wait_until_it_listens();
        site
    }

    fn wait_until_it_listens(&mut self) {
        for _ in 0..LOOKS {
            if TcpStream::connect(("127.0.0.1", self.port)).is_ok() {
                return;
            }
            thread::sleep(LOOK_EVERY);
        }
        panic!("{} does not listen: {}", self.name, self.logs());
    }

    /// Asks as a client at the loopback address `from`; `options` are curl's.
    pub(crate) fn ask(&self, from: &str, path: &str, options: &[&str]) -> Answer {
        let port = self.port;
        let output = Command::new("curl")
            .args(["--silent", "--show-error", "--path-as-is", "--globoff"])
            .args(["--noproxy", "*", "--max-time", "30", "--interface", from])
            .arg("--cacert")
            .arg(self.folder.path().join("site.pem"))
            .args(["--resolve", &format!("{HOST}:{port}:127.0.0.1")])
            .args(["--write-out", "\n%{http_code}"])
            .args(options)
            .arg(format!("https://{HOST}:{port}{path}"))
            .output()
            .expect("curl runs");
        let text = String::from_utf8_lossy(&output.stdout);
        let told = String::from_utf8_lossy(&output.stderr);
        let (body, status) = text.rsplit_once('\n').expect("curl says the status");
        Answer {
            status: status.parse().expect("a status is a number"),
            body: format!("{body}{told}"),
        }
    }

    /// Asks for a token for `email`.
    pub(crate) fn request_token(&self, from: &str, path: &str, email: &str) -> Answer {
        let body = json!({ "client_secret": "monkeys", "email": email, "send_attempt": 1 });
        self.ask(from, path, &["--data", &body.to_string()])
    }

    /// The link and the code in the only mail to `email`, read past the proxy.
    pub(crate) fn mail(&self, email: &str) -> (String, String) {
        for _ in 0..LOOKS {
            let url = format!("http://{}/_threepid/mailbox/messages", self.internal);
            let output = Command::new("curl")
                .args(["-sS", "--noproxy", "*", &url])
                .output()
                .expect("curl runs");
            let mails: Value = serde_json::from_slice(&output.stdout).expect("mails are JSON");
            let mails = mails.as_array().expect("mails are a list");
            if let Some(mail) = mails.iter().find(|mail| mail["to"] == email) {
                return link_and_code(mail["text"].as_str().expect("a mail has a text"));
            }
            thread::sleep(LOOK_EVERY);
        }
        panic!("no mail for {email} in time");
    }

    /// The versions of HTTP that the proxy speaks, as curl's options.
    pub(crate) fn http_versions(&self) -> &'static [&'static str] {
        match self.proxy {
            Proxy::Nginx => &["--http1.1"],
            Proxy::Caddy | Proxy::Haproxy => &["--http1.1", "--http2"],
        }
    }

    /// Ends the program, as if it had crashed.
    pub(crate) fn lose_threepid(&mut self) {
        self.threepid.end();
    }

    /// What the homeserver was asked: method, path, and whether another protocol was asked for.
    pub(crate) fn asked_of_homeserver(&self) -> Vec<String> {
        let asked = self.homeserver.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Everything that the proxy wrote down.
    pub(crate) fn logs(&self) -> String {
        let read = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        ["access.log", "error.log", "output.log"].map(read).concat()
    }
}

/// The path of the link, and the code.
fn link_and_code(text: &str) -> (String, String) {
    let base = format!("https://{HOST}");
    let link = text.lines().find_map(|line| line.strip_prefix(&base));
    let code = text
        .lines()
        .find(|line| line.len() == 8 && line.bytes().all(|byte| byte.is_ascii_digit()));
    let words = (link.expect("a link"), code.expect("a code"));
    (words.0.to_owned(), words.1.to_owned())
}

/// The program on ports that the system chooses; where it listens, and where internally.
fn threepid(folder: &Path) -> (Process, String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_threepid"));
    for (name, _) in std::env::vars_os() {
        if name.to_string_lossy().starts_with("THREEPID") {
            command.env_remove(name);
        }
    }
    let mut child = command
        .current_dir(folder)
        .env("THREEPID__SERVER__LISTEN", "127.0.0.1:0")
        .env("THREEPID__SERVER__INTERNAL_LISTEN", "127.0.0.1:0")
        .env("THREEPID__SERVER__PUBLIC_URL", format!("https://{HOST}"))
        .env("THREEPID__SERVER__TRUSTED_PROXIES", "127.0.0.1,::1")
        .env("THREEPID__LIMITS__PER_SOURCE", "2/1h")
        .env("THREEPID__NEXT_LINKS__ALLOWED", "app.example.org")
        .env("THREEPID__IDENTITY__ENABLED", "true")
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program starts");
    let stdout = child.stdout.take().expect("it is piped");
    let mut addresses = BufReader::new(stdout).lines().filter_map(|line| {
        let line = line.expect("the start text is text");
        let (_, address) = line.trim_end_matches('.').rsplit_once(' ')?;
        address.starts_with("127.").then(|| address.to_owned())
    });
    let mut next = || addresses.next().expect("it says where it listens");
    let (listen, internal) = (next(), next());
    (Process::new(child), listen, internal)
}

/// A homeserver that says which of its paths was asked for, and keeps count.
struct Homeserver {
    port: u16,
    asked: Arc<Mutex<Vec<String>>>,
    _runtime: Runtime,
}

impl Homeserver {
    fn start() -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
        let listener = listener.expect("a port is free");
        let port = listener.local_addr().expect("it is bound").port();
        let asked = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&asked);
        let told = async move |method: Method, uri: Uri, headers: HeaderMap| {
            let mut asked = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let upgrade = if headers.contains_key(UPGRADE) {
                ", or something else"
            } else {
                ""
            };
            asked.push(format!("{method} {uri}{upgrade}"));
            format!("homeserver: {uri}")
        };
        let router = Router::new().fallback(told);
        runtime.spawn(async move { axum::serve(listener, router).await });
        Self {
            port,
            asked,
            _runtime: runtime,
        }
    }
}
