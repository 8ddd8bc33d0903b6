//! A homeserver's side of the contract in `docs/webhook.md`: accounts in memory, behind signed calls that may come twice.
//!
//! `cargo run --example webhook_server -- KEYS_FILE [LISTEN]`, and `homeserver.url = "http://LISTEN/threepid"`.
#![expect(clippy::print_stdout, reason = "it tells its reader where it listens")]

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use axum::http::{HeaderMap, StatusCode, Uri};
use axum::{Json, Router, body::Bytes, extract::State, routing::post};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, KeyInit, Mac};
use serde_json::{Value, json};
use sha2::Sha256;
use threepid::clock::{Clock, SystemClock};

const SERVER_NAME: &str = "example.org";
const SHORTEST_PASSWORD: usize = 8;
/// How far the clocks may be apart, in seconds.
const TOLERANCE: u64 = 300;

/// The JSON of a 200, or another status and its JSON.
type Answer<T = Value> = Result<T, (u16, Value)>;

#[derive(Default)]
struct Accounts {
    /// By user id. A genuine homeserver keeps a hash.
    passwords: BTreeMap<String, String>,
    /// By access token: what `account/whoami` tells.
    devices: HashMap<String, Value>,
    /// By medium and address: what `directory/list` tells, and whose it is.
    threepids: BTreeMap<(String, String), Value>,
    /// What was done, by path and `op_id`. A genuine homeserver keeps this with the accounts, in the same transaction,
    /// and of a registration the user id alone.
    done: HashMap<(String, String), Value>,
}

struct Server {
    /// One, and a second while they are exchanged.
    keys: Vec<String>,
    clock: Arc<dyn Clock>,
    /// One lock for all: what is asked for twice at once waits, and finds what the first has done.
    accounts: Mutex<Accounts>,
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let file = arguments.next().ok_or("give a file with keys")?;
    let address = arguments.next().unwrap_or("127.0.0.1:8009".to_owned());
    let keys = std::fs::read_to_string(file)?;
    let keys = keys.split_whitespace().map(str::to_owned).collect();
    let listener = tokio::net::TcpListener::bind(address).await?;
    let address = listener.local_addr()?;
    println!("A homeserver's webhook on http://{address}/threepid");
    Ok(axum::serve(listener, router(keys, Arc::new(SystemClock))).await?)
}

pub(crate) fn router(keys: Vec<String>, clock: Arc<dyn Clock>) -> Router {
    let server = Arc::new(Server {
        keys,
        clock,
        accounts: Mutex::default(),
    });
    let routes = Router::new().route("/threepid/{*verb}", post(answer));
    routes.with_state(server)
}

type Reply = (StatusCode, Json<Value>);

async fn answer(server: State<Arc<Server>>, uri: Uri, headers: HeaderMap, body: Bytes) -> Reply {
    let told = server.answer(uri.path(), &headers, &body);
    let (status, body) = told.map_or_else(|refused| refused, |body| (200, body));
    (StatusCode::from_u16(status).unwrap_or_default(), Json(body))
}

fn refuse<T>(status: u16, errcode: &str, words: &str) -> Answer<T> {
    Err((status, json!({ "errcode": errcode, "error": words })))
}

fn text(body: &Value, key: &str) -> Answer<String> {
    match body[key].as_str() {
        Some(text) => Ok(text.to_owned()),
        None => refuse(400, "M_MISSING_PARAM", &format!("{key} is missing.")),
    }
}

fn threepid(body: &Value) -> Answer<(String, String)> {
    Ok((text(body, "medium")?, text(body, "address")?))
}

fn random() -> String {
    let mut bytes = [0; 24];
    aws_lc_rs::rand::fill(&mut bytes).expect("the operating system has a generator");
    URL_SAFE_NO_PAD.encode(bytes)
}

impl Server {
    fn answer(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> Answer {
        if self.is_signed(path, headers, body) != Some(true) {
            return refuse(401, "THREEPID_BAD_SIGNATURE", "Badly signed, or late.");
        }
        let Ok(body) = serde_json::from_slice::<Value>(body) else {
            return refuse(400, "M_NOT_JSON", "The body is not JSON.");
        };
        let verb = path.strip_prefix("/threepid/").unwrap_or_default();
        let mut accounts = self.accounts.lock().unwrap_or_else(PoisonError::into_inner);
        if body["op_id"].is_null() || verb == "account/registered" {
            return accounts.act(verb, &body, self.clock.now().0);
        }
        let operation = (verb.to_owned(), text(&body, "op_id")?);
        if let Some(done) = accounts.done.get(&operation) {
            return Ok(done.clone());
        }
        // A refusal changes nothing, and is not kept: the next try may be a better one.
        let done = accounts.act(verb, &body, self.clock.now().0)?;
        accounts.done.insert(operation, done.clone());
        Ok(done)
    }

    /// Whether one of the keys has signed this, within the last minutes; compared in constant time.
    fn is_signed(&self, path: &str, headers: &HeaderMap, body: &[u8]) -> Option<bool> {
        let signature = headers.get("X-Threepid-Signature")?.to_str().ok()?;
        let (seconds, hex) = signature.strip_prefix("t=")?.split_once(",v1=")?;
        let sent_at = seconds.parse::<i64>().ok()?;
        let byte = |at| u8::from_str_radix(hex.get(at..at + 2)?, 16).ok();
        let given: Option<Vec<u8>> = (0..hex.len()).step_by(2).map(byte).collect();
        let given = given?;
        let signed = [format!("{seconds}.{path}.").as_bytes(), body].concat();
        let is_by = |key: &String| {
            let mac = Hmac::<Sha256>::new_from_slice(key.as_bytes()).expect("any length will do");
            mac.chain_update(&signed).verify_slice(&given).is_ok()
        };
        let is_recent = sent_at.abs_diff(self.clock.now().0 / 1000) <= TOLERANCE;
        Some(is_recent && self.keys.iter().any(is_by))
    }
}

impl Accounts {
    fn act(&mut self, verb: &str, body: &Value, now: i64) -> Answer {
        match verb {
            "directory/owner" => {
                let entry = self.threepids.get(&threepid(body)?).unwrap_or(&Value::Null);
                Ok(json!({ "user_id": entry["user_id"] }))
            }
            "directory/list" => {
                let is_theirs = |entry: &&Value| entry["user_id"] == body["user_id"];
                let threepids: Vec<_> = self.threepids.values().filter(is_theirs).collect();
                Ok(json!({ "threepids": threepids }))
            }
            "directory/bind" => self.bind(&self.known(body)?, body, now),
            "directory/unbind" => {
                let (before, gone) = (self.threepids.len(), threepid(body)?);
                let stays = |entry: &Value| entry["user_id"] != body["user_id"];
                self.threepids
                    .retain(|at, entry| *at != gone || stays(entry));
                Ok(json!({ "removed": self.threepids.len() < before }))
            }
            "account/whoami" => self.bearer(body),
            "account/reauth" => self.reauth(body),
            "account/register" => self.register(body),
            "account/registered" => {
                let operation = ("account/register".to_owned(), text(body, "op_id")?);
                let done = self.done.get(&operation).unwrap_or(&Value::Null);
                Ok(json!({ "user_id": done["user_id"] }))
            }
            "account/reset_password" => {
                let (user_id, new) = (self.known(body)?, password(body, "new_password")?);
                if body["logout_devices"] == true {
                    self.devices
                        .retain(|_, device| device["user_id"] != user_id);
                }
                self.passwords.insert(user_id, new);
                Ok(json!({}))
            }
            "account/password_policy" => Ok(json!({ "m.minimum_length": SHORTEST_PASSWORD })),
            "account/is_suspended" => Ok(json!({ "suspended": false })),
            "account/available" => self
                .free(&text(body, "username")?)
                .map(|_| json!({ "available": true })),
            _ => refuse(404, "M_UNRECOGNIZED", "There is no such call."),
        }
    }

    /// The user id of an account that there is.
    fn known(&self, body: &Value) -> Answer<String> {
        let user_id = text(body, "user_id")?;
        if !self.passwords.contains_key(&user_id) {
            return refuse(404, "M_NOT_FOUND", "There is no such account.");
        }
        Ok(user_id)
    }

    fn bind(&mut self, user_id: &str, body: &Value, now: i64) -> Answer {
        let (medium, address) = threepid(body)?;
        let mut entry = json!({ "user_id": user_id, "medium": medium, "address": address });
        (entry["validated_at"], entry["added_at"]) = (body["validated_at"].clone(), now.into());
        let bound = self.threepids.entry((medium, address)).or_insert(entry);
        if bound["user_id"] != user_id {
            return refuse(409, "M_THREEPID_IN_USE", "Another account has it.");
        }
        Ok(json!({}))
    }

    fn bearer(&self, body: &Value) -> Answer<Value> {
        let device = self.devices.get(&text(body, "access_token")?).cloned();
        device.map_or_else(|| refuse(401, "M_UNKNOWN_TOKEN", "Log in again."), Ok)
    }

    fn reauth(&self, body: &Value) -> Answer {
        let (user_id, auth) = (text(&self.bearer(body)?, "user_id")?, &body["auth"]);
        if auth["type"] == "m.login.password" && auth["password"] == self.passwords[&user_id] {
            return Ok(json!({}));
        }
        let session = text(auth, "session").unwrap_or_else(|_| random());
        let flows = json!([{ "stages": ["m.login.password"] }]);
        let mut challenge = json!({ "session": session, "flows": flows, "params": {} });
        if !auth.is_null() {
            challenge["errcode"] = "M_FORBIDDEN".into();
            challenge["error"] = "Wrong password.".into();
        }
        Err((401, challenge))
    }

    /// The addresses come by `directory/bind`.
    fn register(&mut self, body: &Value) -> Answer {
        let params = &body["params"];
        let or_random = |key| text(params, key).unwrap_or_else(|_| random());
        let user_id = self.free(&or_random("username"))?;
        let password = password(params, "password")?;
        for proved in body["threepids"].as_array().into_iter().flatten() {
            if self.threepids.contains_key(&threepid(proved)?) {
                return refuse(400, "M_THREEPID_IN_USE", "Another account has it.");
            }
        }
        self.passwords.insert(user_id.clone(), password);
        let (token, device_id) = (random(), or_random("device_id"));
        let device = json!({ "user_id": user_id, "device_id": device_id, "is_guest": false });
        self.devices.insert(token.clone(), device);
        Ok(json!({ "user_id": user_id, "device_id": device_id, "access_token": token }))
    }

    /// The user id that a name would have.
    fn free(&self, name: &str) -> Answer<String> {
        let user_id = format!("@{}:{SERVER_NAME}", name.to_lowercase());
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !(1..=200).contains(&name.len()) || !name.bytes().all(is_plain) {
            return refuse(400, "M_INVALID_USERNAME", "Write a-z 0-9 . _ - alone.");
        }
        match self.passwords.get(&user_id) {
            Some(_) => refuse(400, "M_USER_IN_USE", "This name is taken."),
            None => Ok(user_id),
        }
    }
}

fn password(body: &Value, key: &str) -> Answer<String> {
    match text(body, key)? {
        text if text.len() < SHORTEST_PASSWORD => {
            refuse(400, "M_WEAK_PASSWORD", "Write a longer one.")
        }
        text => Ok(text),
    }
}
