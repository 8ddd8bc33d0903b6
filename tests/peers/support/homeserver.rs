//! A whole homeserver as an operator runs it: nginx, and behind it Synapse and the program.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    net::TcpStream,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};

use super::{
    client_api::ClientApi,
    gate::Gate,
    js_sdk::JsSdk,
    mails::link,
    plan::Plan,
    ports::free_port,
    reverse_proxy::{Process, make_certificate, need_programs, nginx},
    server::{Server, Site, client_that_trusts, sid, until},
    synapse::{Options, Synapse},
};

/// What Synapse puts before the paths of its delegate.
pub(crate) const PREFIX: &str = "hs/0123456789abcdefghijklmnopqrstuv";
/// Where proved addresses are added.
pub(crate) const ADD: &str = "/_matrix/client/v3/account/3pid/add";

/// Which of the program's places beside a Synapse.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Recipe {
    /// The proxy gives it all that concerns addresses and forgotten passwords; it has the token of an administrator.
    Sidecar,
    /// The proxy gives it registration and forgotten passwords, and Synapse asks it who has proved what.
    Overlay,
    /// Synapse asks it who has proved what; it has no token.
    Delegate,
    /// The same with the token of an administrator.
    KnowingDelegate,
}

impl Recipe {
    fn file(self) -> &'static str {
        match self {
            Self::Sidecar => "nginx-sidecar.conf",
            Self::Overlay => "nginx-overlay.conf",
            Self::Delegate | Self::KnowingDelegate => "nginx-delegate.conf",
        }
    }
}

/// All of it; whatever runs is ended when it is dropped.
pub(crate) struct Homeserver {
    pub(crate) synapse: Synapse,
    /// What the program's calls go through, if it is gated.
    pub(crate) gate: Option<Gate>,
    pub(crate) server: Server,
    /// The way through nginx, which is that of all clients.
    pub(crate) front: ClientApi,
    pub(crate) site: Site,
    _nginx: Process,
}

impl Homeserver {
    /// With a Synapse like all others.
    pub(crate) async fn start(recipe: Recipe) -> Self {
        Plan::new(recipe).start().await
    }

    /// A sidecar, of which each change of an account can be held on its way to Synapse.
    pub(crate) async fn gated() -> Self {
        Plan::new(Recipe::Sidecar).gated().start().await
    }

    /// A sidecar, with a Synapse that differs.
    pub(crate) async fn with(options: Options) -> Self {
        Plan::new(Recipe::Sidecar).options(options).start().await
    }

    pub(super) async fn build(plan: Plan) -> Self {
        need_programs();
        let (site, ports) = lay_out();
        let base = format!("https://127.0.0.1:{}", ports.front);
        let options = plan.options.set("public_baseurl", base.as_str());
        let options = match plan.recipe {
            Recipe::Sidecar => options,
            Recipe::Overlay | Recipe::Delegate | Recipe::KnowingDelegate => {
                let delegate = format!("http://127.0.0.1:{}/{PREFIX}", ports.internal);
                options.phones_proved_by(&delegate, &base)
            }
        };
        let synapse = Synapse::start(&site.path("synapse"), options).await;
        for token in plan.tokens {
            synapse.allow(token).await;
        }
        let gate = if plan.is_gated {
            Some(Gate::start(synapse.base()).await)
        } else {
            None
        };
        let url = gate.as_ref().map_or(synapse.base(), |gate| &gate.url);
        let site = configure(site, plan.recipe, url, synapse.admin_token());
        let settings = plan.settings.into_iter();
        let site = settings.fold(site, |site, (key, value)| site.set(key, value));
        let site = site.set("server.public_url", base.as_str());
        let nginx = start_nginx(&site.path("nginx"), plan.recipe, &ports, &synapse).await;
        let front = ClientApi {
            base,
            client: client_that_trusts(&certificate(&site)),
        };
        Self {
            synapse,
            gate,
            server: site.start().await,
            front,
            site,
            _nginx: nginx,
        }
    }

    /// Kills the program as if its machine had lost its power, and starts it again.
    pub(crate) async fn restart(self) -> Self {
        self.server.kill().await;
        Self {
            server: self.site.start().await,
            ..self
        }
    }

    /// Makes an account whose password is its name and `'s`; an access token.
    pub(crate) async fn register(&self, localpart: &str) -> String {
        let password = password(localpart);
        self.synapse.register(localpart, &password, false).await
    }

    /// A client that nobody has logged in with.
    pub(crate) fn client(&self) -> JsSdk {
        JsSdk::start(&self.front.base, Some(&certificate(&self.site)))
    }

    /// A client of a new account.
    pub(crate) async fn client_of(&self, localpart: &str) -> JsSdk {
        self.register(localpart).await;
        let mut client = self.client();
        client.login(localpart, &password(localpart)).await;
        client
    }

    /// The texts that were sent to an address, newest first.
    pub(crate) async fn texts_to(&self, address: &str) -> Vec<String> {
        let messages = self.server.mailbox().await;
        let own = messages.iter().filter(|message| message["to"] == address);
        let texts = own.filter_map(|message| message["text"].as_str());
        texts.map(str::to_owned).collect()
    }

    /// The newest of so many texts, once they are there.
    pub(crate) async fn text_to(&self, address: &str, number: usize) -> String {
        let mut texts = Vec::new();
        until("the message is there", async || {
            texts = self.texts_to(address).await;
            texts.len() >= number
        })
        .await;
        assert_eq!(texts.len(), number, "{texts:?}");
        texts.swap_remove(0)
    }

    /// Presses a button of the page that a mail's link leads to, through nginx; status and page.
    pub(crate) async fn press(&self, text: &str, form: &[(&str, &str)]) -> (u16, String) {
        let page = self.pressed(text, form).await;
        let status = page.status().as_u16();
        (status, page.text().await.expect("a whole page"))
    }

    /// Presses the button that leads back to an app; where that is.
    pub(crate) async fn press_on(&self, text: &str) -> String {
        let page = self.pressed(text, &[]).await;
        let target = page.headers().get("location");
        let target = target.unwrap_or_else(|| panic!("{} leads nowhere", page.status()));
        target.to_str().expect("a URL").to_owned()
    }

    async fn pressed(&self, text: &str, form: &[(&str, &str)]) -> reqwest::Response {
        let link = link(text);
        assert!(link.starts_with(&self.front.base), "{link}");
        let pressed = self.front.client.post(link).form(form).send().await;
        pressed.expect("nginx answers")
    }

    /// Has an email proved for an account; what shows it.
    pub(crate) async fn prove(&self, email: &str, client_secret: &str) -> Value {
        let path = "/_matrix/client/v3/account/3pid/email/requestToken";
        self.prove_at(path, email, client_secret).await
    }

    /// The same by a token that is asked for at this path.
    pub(crate) async fn prove_at(&self, path: &str, email: &str, client_secret: &str) -> Value {
        let body = json!({ "client_secret": client_secret, "email": email, "send_attempt": 1 });
        let earlier = self.texts_to(email).await.len();
        let (status, answer) = self.front.post(path, "", &body).await;
        assert_eq!(status, 200, "{answer}");
        let text = self.text_to(email, earlier + 1).await;
        let (pressed, page) = self.press(&text, &[]).await;
        assert_eq!(pressed, 200, "{page}");
        json!({ "sid": sid(&answer), "client_secret": client_secret })
    }

    /// Waits until an account has the address; its user id.
    pub(crate) async fn owner_of(&self, medium: &str, address: &str) -> String {
        let mut owner = None;
        until("the address is bound", async || {
            owner = self.synapse.owner(medium, address).await;
            owner.is_some()
        })
        .await;
        owner.expect("it was just found")
    }

    /// Begins to add what was proved: the whole request, password and all, after the homeserver has asked for it.
    pub(crate) async fn ask_to_add(
        &self,
        localpart: &str,
        token: &str,
        creds: &Value,
    ) -> Result<Value, (u16, Value)> {
        let (status, answer) = self.front.post(ADD, token, creds).await;
        if status == 401 && answer["session"].is_string() {
            Ok(with_password(creds, localpart, &answer))
        } else {
            Err((status, answer))
        }
    }

    /// Adds what was proved, by the password of the account; status and answer.
    pub(crate) async fn add(&self, localpart: &str, token: &str, creds: &Value) -> (u16, Value) {
        match self.ask_to_add(localpart, token, creds).await {
            Ok(request) => self.front.post(ADD, token, &request).await,
            Err(refused) => refused,
        }
    }
}

/// The password of an account.
pub(crate) fn password(localpart: &str) -> String {
    format!("{localpart}'s")
}

/// The request again, with the password that the homeserver asks for.
pub(crate) fn with_password(request: &Value, localpart: &str, challenge: &Value) -> Value {
    let stages = challenge["flows"][0]["stages"].as_array();
    assert_eq!(
        stages,
        json!(["m.login.password"]).as_array(),
        "{challenge}"
    );
    let mut request = request.clone();
    request["auth"] = json!({
        "type": "m.login.password",
        "session": challenge["session"],
        "identifier": { "type": "m.id.user", "user": localpart },
        "password": password(localpart),
    });
    request
}

/// Where everything listens that must know of others, or be found again after it was killed.
struct Ports {
    front: u16,
    program: u16,
    internal: u16,
}

fn lay_out() -> (Site, Ports) {
    let ports = Ports {
        front: free_port(),
        program: free_port(),
        internal: free_port(),
    };
    let local = |port: u16| format!("127.0.0.1:{port}");
    let site = Site::new()
        .set("server.listen", local(ports.program))
        .set("server.internal_listen", local(ports.internal))
        .set("server.trusted_proxies", "127.0.0.1")
        .set("sms.transport", "capture");
    (site, ports)
}

/// The program's place beside the Synapse at `url`.
pub(crate) fn configure(site: Site, recipe: Recipe, url: &str, admin_token: &str) -> Site {
    let site = match recipe {
        Recipe::Sidecar => site,
        Recipe::Delegate => {
            return site
                .set("homeserver.kind", "none")
                .set("delegate.prefixes", PREFIX);
        }
        Recipe::Overlay | Recipe::KnowingDelegate => site.set("delegate.prefixes", PREFIX),
    };
    let file = site.path("admin-token");
    OpenOptions::new()
        .create_new(true)
        .write(true)
        .mode(0o600)
        .open(&file)
        .and_then(|mut file| file.write_all(admin_token.as_bytes()))
        .expect("the folder can be written");
    site.set("homeserver.kind", "synapse")
        .set("homeserver.url", url)
        .set("homeserver.admin_token_file", file.display().to_string())
}

async fn start_nginx(folder: &Path, recipe: Recipe, ports: &Ports, synapse: &Synapse) -> Process {
    fs::create_dir_all(folder).expect("the folder can be made");
    make_certificate(folder);
    let file = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("deploy")
        .join(recipe.file());
    let text = fs::read_to_string(&file).expect("the recipe is there");
    let synapse = synapse.base().trim_start_matches("http://");
    let addresses = [
        ("127.0.0.1:8090", format!("127.0.0.1:{}", ports.program)),
        ("127.0.0.1:8008", synapse.to_owned()),
    ];
    let nginx = nginx(folder, &text, ports.front, &addresses);
    until("nginx listens", async || {
        TcpStream::connect(("127.0.0.1", ports.front)).is_ok()
    })
    .await;
    nginx
}

fn certificate(site: &Site) -> PathBuf {
    site.path("nginx").join("site.pem")
}
