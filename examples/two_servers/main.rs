//! Two servers that are homeserver and identity server to each other: each proxies what its own user asks, and proves and
//! finds addresses for the other's.
//!
//! `cargo run --example two_servers`: both run on loopback, with TLS; it tells what happens, and ends.
//!
//! | file | what it shows |
//! | --- | --- |
//! | `main.rs` | putting both together, and what a client does |
//! | `homeserver.rs` | what an identity server, and the library, ask of a homeserver |
//! | `tls.rs` | certificates and listeners |
#![expect(clippy::print_stdout, reason = "it tells its reader what happens")]

mod homeserver;
mod tls;

use std::{error::Error, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use tempfile::TempDir;
use threepid::{
    Background, Keyring, SigningKeys, Threepid,
    courier::capture::Capture,
    identity,
    outbound::{self, Outbound},
    secret::{ClientSecret, Sid},
    session::Purpose,
    store::sqlite::{Role, SqliteStore},
    threepid::Medium,
    validation::{IdentityServers, Validate, Validates},
};

use self::{
    homeserver::Homeserver,
    tls::{Authority, TlsListener},
};

type Result<T> = std::result::Result<T, Box<dyn Error>>;

/// How often, and how long apart, something is looked for that happens by itself.
const LOOKS: usize = 200;
const PAUSE: Duration = Duration::from_millis(50);

/// One of the two.
struct Server {
    /// `localhost` and its port: its name as a homeserver, and as an identity server.
    name: String,
    homeserver: Arc<Homeserver>,
    threepid: Threepid,
    mailbox: Arc<Capture>,
    /// Delivers messages, and tells homeservers of associations, until it is dropped.
    _background: Background,
    _folder: TempDir,
}

impl Server {
    /// Puts one together whose user may name `other` as identity server, and serves it.
    fn start(
        listener: TlsListener,
        name: &str,
        other: &str,
        localpart: &str,
        authority: &Authority,
    ) -> Result<Self> {
        let folder = tempfile::tempdir()?;
        let store = SqliteStore::open(&folder.path().join("threepid.db"), Role::Server)?;
        let mailbox = Arc::new(Capture::in_memory());
        let homeserver = Homeserver::new(name.to_owned(), localpart);
        let trusted = IdentityServers {
            trusted: vec![other.parse()?],
            ours: vec![name.parse()?],
            ..IdentityServers::default()
        };
        // The other server is on this machine, and its certificate is of no authority that the world knows.
        let calls = outbound::Settings {
            allow: vec!["127.0.0.0/8".parse()?, "::1/128".parse()?],
            ca_files: vec![authority.ca_file()],
            ..outbound::Settings::default()
        };
        let settings = identity::Settings::new(name.parse()?);
        let base = format!("https://{name}");
        let threepid = Threepid::builder(base.parse()?, store, Keyring::generate()?)
            .email(mailbox.clone())
            .sms(mailbox.clone())
            .accounts(homeserver.clone())
            .validates(Medium::Email, Validates::all(Validate::ClientChoice))
            .validates(
                Medium::Msisdn,
                Validates::all_but_password(Validate::ClientChoice),
            )
            .identity_servers(trusted)
            .outbound(Outbound::new(calls)?)
            .identity(settings, SigningKeys::generate()?)
            .build()?;
        let background = threepid.start();
        let router = threepid.router().merge(homeserver.router());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self {
            name: name.to_owned(),
            homeserver,
            threepid,
            mailbox,
            _background: background,
            _folder: folder,
        })
    }

    /// The newest message to an address.
    async fn message_to(&self, address: &str) -> Result<String> {
        for _ in 0..LOOKS {
            let messages = self.mailbox.messages();
            if let Some(message) = messages.iter().find(|one| one.to == address) {
                return Ok(message.text.clone());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("no message to {address} at {}", self.name).into())
    }
}

/// A client of a homeserver and of an identity server.
struct User<'a> {
    http: Client,
    homeserver: &'a Server,
    identity: &'a Server,
}

/// What one wants to be found by.
struct Contact {
    medium: &'static str,
    address: &'static str,
    /// What `requestToken` is told of it.
    wanted: Value,
}

#[tokio::main]
async fn main() -> Result<()> {
    let authority = Authority::make()?;
    let (here, there) = (authority.listen().await?, authority.listen().await?);
    let (a, b) = (here.name()?, there.name()?);
    let a = Server::start(here, &a, &b, "alice", &authority)?;
    let b = Server::start(there, &b, &a.name, "bob", &authority)?;
    println!("A is {}, B is {}.", a.name, b.name);

    println!("\nAlice of A has A ask B to prove her email address:");
    let alice = User {
        http: authority.client()?,
        homeserver: &a,
        identity: &b,
    };
    let email = "alice@example.org";
    let contact = Contact {
        medium: "email",
        address: email,
        wanted: json!({ "email": email }),
    };
    alice.is_found_by(&contact).await?;

    println!("\nBob of B has B ask A to prove his phone number:");
    let bob = User {
        http: authority.client()?,
        homeserver: &b,
        identity: &a,
    };
    let contact = Contact {
        medium: "msisdn",
        address: "447700900001",
        wanted: json!({ "country": "GB", "phone_number": "07700 900001" }),
    };
    bob.is_found_by(&contact).await?;

    println!("\nDone: each was homeserver and identity server to the other.");
    Ok(())
}

impl User<'_> {
    /// The whole story of one address.
    async fn is_found_by(&self, contact: &Contact) -> Result<()> {
        let Contact {
            medium, address, ..
        } = contact;
        let token = self.register().await?;
        let secret = format!("{:032x}", rand::random::<u128>());
        let sid = self.prove(contact, &token, &secret).await?;

        // What a homeserver does before it adds the address to the account.
        let pair = (Sid::parse(&sid)?, ClientSecret::parse(&secret)?);
        let validation = self.homeserver.threepid.validation();
        let user_id = Some(self.homeserver.homeserver.user_id.as_str());
        let proof = validation.proof(&pair.0, &pair.1, Purpose::Add, user_id);
        println!(
            "  proof     the homeserver is told: {:?}",
            proof.await?.threepid
        );

        let mut there = json!({ "id_server": self.identity.name, "id_access_token": token });
        there["sid"] = sid.into();
        there["client_secret"] = secret.into();
        self.at_home("account/3pid/bind", &there).await?;
        println!("  bind      {} is bound at {}", address, self.identity.name);
        self.wait_until_told(address).await?;
        println!("  onbind    and {} was told", self.homeserver.name);
        let found = self.look_up(contact, &token).await?;
        println!("  lookup    {address} leads to {found}");
        let gone = json!({ "medium": medium, "address": address, "id_server": self.identity.name });
        let undone = self.at_home("account/3pid/unbind", &gone).await?;
        println!("  unbind    {undone}");
        let found = self.look_up(contact, &token).await?;
        println!("  lookup    {address} leads to {found}");
        Ok(())
    }

    /// Opens an account at the identity server with the homeserver's word; its access token.
    async fn register(&self) -> Result<String> {
        let openid = self.homeserver.homeserver.openid_token();
        let answer = self
            .there(Method::POST, "account/register", "", Some(&openid))
            .await?;
        let token = answer["token"].as_str().ok_or("no token")?.to_owned();
        let account = self.there(Method::GET, "account", &token, None).await?;
        println!("  register  {} knows {account}", self.identity.name);
        Ok(token)
    }

    /// Asks the homeserver for a token, which has the identity server send it, and shows it; the session.
    async fn prove(&self, contact: &Contact, token: &str, secret: &str) -> Result<String> {
        let Contact {
            medium, address, ..
        } = contact;
        let mut asked = contact.wanted.clone();
        asked["client_secret"] = secret.into();
        asked["send_attempt"] = 1.into();
        asked["id_server"] = self.identity.name.as_str().into();
        asked["id_access_token"] = token.into();
        let path = format!("account/3pid/{medium}/requestToken");
        let opened = self.at_home(&path, &asked).await?;
        let sid = opened["sid"].as_str().ok_or("no sid")?.to_owned();
        println!(
            "  ask       {} asked {}",
            self.homeserver.name, self.identity.name
        );

        let text = self.identity.message_to(address).await?;
        let is_code = |word: &&str| word.len() >= 6 && word.bytes().all(|one| one.is_ascii_digit());
        let mut words = text.split(|letter: char| !letter.is_ascii_alphanumeric());
        let code = words.find(is_code).ok_or("no code in the message")?;
        println!(
            "  message   {} sent the code {code} to {address}",
            self.identity.name
        );

        let shown = json!({ "sid": sid, "client_secret": secret, "token": code });
        // The homeserver names its own URL for what it can pass on; an email is proved at the identity server.
        let path = format!("validate/{medium}/submitToken");
        let submitted = match opened["submit_url"].as_str() {
            Some(url) => self.call(Method::POST, url, "", Some(&shown)).await?,
            None => self.there(Method::POST, &path, token, Some(&shown)).await?,
        };
        println!("  submit    {submitted}");
        Ok(sid)
    }

    /// Waits until the identity server has told the homeserver.
    async fn wait_until_told(&self, address: &str) -> Result<()> {
        for _ in 0..LOOKS {
            if self.homeserver.homeserver.was_told_of(address) {
                return Ok(());
            }
            tokio::time::sleep(PAUSE).await;
        }
        Err(format!("{} was not told of {address}", self.homeserver.name).into())
    }

    /// Whom an address leads to; `null` if to nobody.
    async fn look_up(&self, contact: &Contact, token: &str) -> Result<Value> {
        let details = self.there(Method::GET, "hash_details", token, None).await?;
        let pepper = details["lookup_pepper"].as_str().ok_or("no pepper")?;
        let words = format!("{} {} {pepper}", contact.address, contact.medium);
        let hash = URL_SAFE_NO_PAD.encode(Sha256::digest(words));
        let asked = json!({ "algorithm": "sha256", "pepper": pepper, "addresses": [hash] });
        let mut answer = self
            .there(Method::POST, "lookup", token, Some(&asked))
            .await?;
        Ok(answer["mappings"][&hash].take())
    }

    /// Posts to the Client-Server API of the homeserver.
    async fn at_home(&self, path: &str, body: &Value) -> Result<Value> {
        let home = self.homeserver;
        let url = format!("https://{}/_matrix/client/v3/{path}", home.name);
        let token = &home.homeserver.access_token;
        self.call(Method::POST, &url, token, Some(body)).await
    }

    /// Calls the Identity Service API of the identity server.
    async fn there(
        &self,
        method: Method,
        path: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let url = format!("https://{}/_matrix/identity/v2/{path}", self.identity.name);
        self.call(method, &url, token, body).await
    }

    /// Sends a request, with a token unless it is empty; anything but 200 is an error.
    async fn call(
        &self,
        method: Method,
        url: &str,
        token: &str,
        body: Option<&Value>,
    ) -> Result<Value> {
        let mut request = self.http.request(method, url);
        if !token.is_empty() {
            request = request.bearer_auth(token);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let answer = request.send().await?;
        let status = answer.status();
        let body = answer.json().await?;
        if !status.is_success() {
            return Err(format!("{url}: {status}: {body}").into());
        }
        Ok(body)
    }
}
