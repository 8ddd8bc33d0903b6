//! Registration as Synapse does it: `RegisterRestServlet`, `AuthHandler.check_ui_auth`, and the admin API's `register`.

use std::collections::{BTreeMap, BTreeSet};

use aws_lc_rs::hmac;
use serde_json::{Map, Value, json};

use super::{
    Answer, Seen,
    state::{State, User},
};

/// What the homeserver shares with whoever may make accounts.
pub(crate) const SHARED_SECRET: &str = "a_secret_that_is_shared";
/// A registration token that it takes.
pub(crate) const REGISTRATION_TOKEN: &str = "token_to_register";
/// The access token of an application service.
pub(crate) const SERVICE_TOKEN: &str = "token_of_a_service";

/// How accounts are made.
#[derive(Clone, Debug)]
pub(crate) struct Registration {
    /// Each a list of stages, as it is told to clients.
    pub(crate) flows: Vec<Vec<&'static str>>,
    pub(crate) params: Value,
    /// Nobody registers by themselves.
    pub(crate) is_closed: bool,
    /// Whoever has done all stages is denied, as a module that looks for spam does it.
    pub(crate) is_denied: bool,
    pub(crate) shortest_password: usize,
    /// The name of all sessions, if they have but one.
    pub(crate) only_session: Option<&'static str>,
    sessions: BTreeMap<String, Session>,
    nonces: BTreeSet<String>,
}

impl Default for Registration {
    fn default() -> Self {
        Self {
            flows: vec![vec!["m.login.dummy"]],
            params: json!({}),
            is_closed: false,
            is_denied: false,
            shortest_password: 8,
            only_session: None,
            sessions: BTreeMap::new(),
            nonces: BTreeSet::new(),
        }
    }
}

impl Registration {
    /// Ends all sessions, as a homeserver does that keeps them in memory and begins anew.
    pub(super) fn forget(&mut self) {
        self.sessions.clear();
    }

    /// Does a stage of a session, as a page of the homeserver's own does.
    pub(crate) fn complete(&mut self, session: &str, stage: &str) {
        let session = self.sessions.get_mut(session).expect("a session");
        session.completed.push(stage.to_owned());
    }
}

/// A session of user-interactive authentication.
#[derive(Clone, Debug, Default)]
struct Session {
    /// The newest body that was not empty, without `auth` and `password`.
    params: Map<String, Value>,
    /// The first password that was told while stages were left.
    password: Option<String>,
    completed: Vec<String>,
    user_id: Option<String>,
}

type Done<T> = Result<T, Answer>;

fn says(status: u16, errcode: &str, error: &str) -> Answer {
    let body = json!({ "errcode": errcode, "error": error });
    Answer { status, body }
}

fn user_id_of(localpart: &str) -> String {
    format!("@{}:example.org", localpart.to_lowercase())
}

impl State {
    /// `POST /_matrix/client/v3/register`
    pub(super) fn register(&mut self, seen: &Seen) -> Done<Answer> {
        let Value::Object(mut body) = seen.json() else {
            return Err(says(400, "M_NOT_JSON", "Content not JSON."));
        };
        match kind(seen).as_str() {
            "guest" => return Ok(self.register_guest()),
            "user" => {}
            _ => {
                return Err(says(
                    404,
                    "M_UNRECOGNIZED",
                    "Do not understand membership kind",
                ));
            }
        }
        if body.get("type") == Some(&json!("m.login.application_service")) {
            return self.register_service(seen, &body);
        }
        if !seen.header("authorization").is_empty() {
            return Err(says(
                400,
                "M_UNKNOWN",
                "An access token should not be provided",
            ));
        }
        if self.registration.is_closed {
            return Err(says(403, "M_FORBIDDEN", "Registration has been disabled"));
        }
        let password = self.password_in(&mut body)?;
        if password.is_none() {
            // So that it does not wipe out what was asked for before.
            body.remove("initial_device_display_name");
        }
        let session = body.get("auth").and_then(|auth| auth["session"].as_str());
        let known = session.and_then(|session| self.registration.sessions.get(session));
        let registered = known.and_then(|known| known.user_id.clone());
        if let Some(username) = body.get("username") {
            let username = username
                .as_str()
                .ok_or_else(|| says(400, "M_UNKNOWN", "Invalid username"))?;
            self.check_username(username, registered.as_deref())?;
        }
        let refresh = body.get("refresh_token") == Some(&json!(true));
        let (session, params) = self.check_ui_auth(body, password.as_deref())?;
        let user_id = match registered {
            Some(user_id) => user_id,
            None => self.register_user(&session, &params, password)?,
        };
        Ok(self.details(&user_id, &params, refresh))
    }

    fn password_in(&self, body: &mut Map<String, Value>) -> Done<Option<String>> {
        let Some(password) = body.remove("password") else {
            return Ok(None);
        };
        let password = password.as_str().filter(|password| password.len() <= 512);
        let password = password.ok_or_else(|| says(400, "M_UNKNOWN", "Invalid password"))?;
        if password.len() < self.registration.shortest_password {
            return Err(says(400, "M_WEAK_PASSWORD", "The password must be longer."));
        }
        Ok(Some(password.to_owned()))
    }

    fn check_username(&self, username: &str, registered: Option<&str>) -> Done<()> {
        let username = username.to_lowercase();
        let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "._=-/+".contains(letter);
        if username.is_empty() || username.starts_with('_') || !username.chars().all(is_plain) {
            let words = "User ID can only contain characters a-z, 0-9, or '_-./=+'";
            return Err(says(400, "M_INVALID_USERNAME", words));
        }
        let user_id = user_id_of(&username);
        match registered {
            Some(registered) if registered == user_id => Ok(()),
            Some(_) => {
                let words = "A different user ID has already been registered for this session";
                Err(says(400, "M_UNKNOWN", words))
            }
            None if self.users.contains_key(&user_id) => {
                Err(says(400, "M_USER_IN_USE", "User ID already taken."))
            }
            None => Ok(()),
        }
    }

    /// The session, and what is asked for in it, once a flow is done.
    fn check_ui_auth(
        &mut self,
        mut body: Map<String, Value>,
        password: Option<&str>,
    ) -> Done<(String, Map<String, Value>)> {
        let auth = body.remove("auth").unwrap_or_default();
        let id = if let Some(id) = auth["session"].as_str() {
            let known = self.registration.sessions.get_mut(id);
            let words = format!("Unknown session ID: {id}");
            let known = known.ok_or_else(|| says(400, "M_UNKNOWN", &words))?;
            if !body.is_empty() {
                known.params = body;
            }
            id.to_owned()
        } else {
            let fresh = self.fresh("registration");
            let id = self.registration.only_session.map_or(fresh, str::to_owned);
            let session = Session {
                params: body,
                ..Session::default()
            };
            self.registration.sessions.insert(id.clone(), session);
            id
        };
        let refused = self.check_stage(&id, &auth);
        let session = self.registration.sessions.get_mut(&id).expect("a session");
        let is_done = |stage: &&str| session.completed.iter().any(|done| done == stage);
        let mut flows = self.registration.flows.iter();
        if !auth.is_null() && flows.any(|flow| flow.iter().all(&is_done)) {
            return Ok((id, session.params.clone()));
        }
        if session.password.is_none() {
            session.password = password.map(str::to_owned);
        }
        let flows = self.registration.flows.iter();
        let flows: Vec<Value> = flows.map(|flow| json!({ "stages": flow })).collect();
        let mut body = json!({ "session": id, "flows": flows, "params": self.registration.params });
        if !auth.is_null() {
            body["completed"] = json!(session.completed);
        }
        if let Some((errcode, error)) = refused {
            body["errcode"] = json!(errcode);
            body["error"] = json!(error);
        }
        Err(Answer { status: 401, body })
    }

    /// Marks the stage that is shown; why it is not done.
    fn check_stage(&mut self, id: &str, auth: &Value) -> Option<(&'static str, &'static str)> {
        let stage = auth["type"].as_str()?;
        let refused = match stage {
            "m.login.dummy" | "m.login.terms" => None,
            "m.login.recaptcha" if auth["response"] == "good" => None,
            "m.login.recaptcha" if auth["response"].is_null() => {
                Some(("M_CAPTCHA_NEEDED", "Captcha response is required"))
            }
            "m.login.recaptcha" => Some(("M_UNAUTHORIZED", "Captcha authentication failed")),
            "m.login.registration_token" if auth["token"] == REGISTRATION_TOKEN => None,
            "m.login.registration_token" => Some(("M_UNAUTHORIZED", "Invalid registration token")),
            "m.login.email.identity" | "m.login.msisdn" => {
                Some(("M_UNAUTHORIZED", "Unable to get validated threepid"))
            }
            _ => Some(("M_UNRECOGNIZED", "Unknown login type")),
        };
        let session = self.registration.sessions.get_mut(id).expect("a session");
        if refused.is_none() && !session.completed.iter().any(|done| done == stage) {
            session.completed.push(stage.to_owned());
        }
        refused
    }

    fn register_user(
        &mut self,
        session: &str,
        params: &Map<String, Value>,
        password: Option<String>,
    ) -> Done<String> {
        let known = &self.registration.sessions[session];
        let password = password.or_else(|| known.password.clone());
        let missing = || says(400, "M_MISSING_PARAM", "Missing params: password");
        let password = password.ok_or_else(missing)?;
        if self.registration.is_denied {
            return Err(says(403, "M_FORBIDDEN", "Registration has been denied"));
        }
        let user_id = match params.get("username").and_then(Value::as_str) {
            Some(username) => user_id_of(username),
            None => user_id_of(&self.fresh("")[1..]),
        };
        self.make(&user_id, &password)?;
        let known = self.registration.sessions.get_mut(session);
        known.expect("a session").user_id = Some(user_id.clone());
        Ok(user_id)
    }

    fn make(&mut self, user_id: &str, password: &str) -> Done<()> {
        if self.users.contains_key(user_id) {
            return Err(says(400, "M_USER_IN_USE", "User ID already taken."));
        }
        let user = User {
            password: password.to_owned(),
            ..User::default()
        };
        self.users.insert(user_id.to_owned(), user);
        Ok(())
    }

    /// A new device, and its tokens.
    fn details(&mut self, user_id: &str, params: &Map<String, Value>, refresh: bool) -> Answer {
        let mut body = json!({ "user_id": user_id, "home_server": "example.org" });
        if params.get("inhibit_login") != Some(&json!(true)) {
            let fresh = self.fresh("DEVICE");
            let device_id = params.get("device_id").and_then(Value::as_str);
            let device_id = device_id.map_or(fresh, str::to_owned);
            let token = self.fresh("token");
            let name = params
                .get("initial_device_display_name")
                .and_then(Value::as_str);
            let user = self.users.get_mut(user_id).expect("a user");
            user.tokens.insert(token.clone(), device_id.clone());
            user.device_names
                .insert(device_id.clone(), name.unwrap_or_default().to_owned());
            body["device_id"] = json!(device_id);
            body["access_token"] = json!(token);
            if refresh {
                body["refresh_token"] = json!(self.fresh("refresh"));
                body["expires_in_ms"] = json!(300_000);
            }
        }
        Answer { status: 200, body }
    }

    fn register_guest(&mut self) -> Answer {
        let user_id = user_id_of(&self.fresh("")[1..]);
        let guest = User {
            is_guest: true,
            ..User::default()
        };
        self.users.insert(user_id.clone(), guest);
        self.details(&user_id, &Map::new(), false)
    }

    fn register_service(&mut self, seen: &Seen, body: &Map<String, Value>) -> Done<Answer> {
        match seen.header("authorization").strip_prefix("Bearer ") {
            None => return Err(says(400, "M_UNKNOWN", "Appservice token must be provided")),
            Some(SERVICE_TOKEN) => {}
            Some(_) => {
                return Err(says(
                    401,
                    "M_UNKNOWN_TOKEN",
                    "Invalid application service token.",
                ));
            }
        }
        let username = body.get("username").and_then(Value::as_str);
        let username =
            username.ok_or_else(|| says(400, "M_UNKNOWN", "Desired Username is missing"))?;
        let user_id = user_id_of(username);
        self.make(&user_id, "")?;
        self.users.get_mut(&user_id).expect("a user").appservice = Some("service".to_owned());
        Ok(self.details(&user_id, body, false))
    }

    /// `GET /_matrix/client/v3/register/available`, and the admin API's `username_available`, which works where
    /// registration is closed.
    pub(super) fn available(&self, seen: &Seen, is_admin: bool) -> Done<Answer> {
        if self.registration.is_closed && !is_admin {
            return Err(says(403, "M_FORBIDDEN", "Registration has been disabled"));
        }
        let username = query(seen, "username");
        let username = username.ok_or_else(|| says(400, "M_MISSING_PARAM", "Missing username"))?;
        self.check_username(&username, None)?;
        let body = json!({ "available": true });
        Ok(Answer { status: 200, body })
    }

    /// `GET /_synapse/admin/v1/register`
    pub(super) fn nonce(&mut self) -> Answer {
        let nonce = self.fresh("nonce");
        self.registration.nonces.insert(nonce.clone());
        Answer {
            status: 200,
            body: json!({ "nonce": nonce }),
        }
    }

    /// `POST /_synapse/admin/v1/register`, which looks at no password policy.
    pub(super) fn register_by_secret(&mut self, body: &Value) -> Done<Answer> {
        let text = |key: &str| body[key].as_str().map(str::to_owned);
        let missing = || {
            says(
                400,
                "M_BAD_JSON",
                "nonce, username and password must be specified",
            )
        };
        let nonce = text("nonce").ok_or_else(missing)?;
        if !self.registration.nonces.remove(&nonce) {
            return Err(says(400, "M_UNKNOWN", "unrecognised nonce"));
        }
        let username = text("username").ok_or_else(missing)?;
        let password = text("password").ok_or_else(missing)?;
        let signed = [&nonce, username.as_str(), &password, "notadmin"].join("\0");
        let key = hmac::Key::new(
            hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY,
            SHARED_SECRET.as_bytes(),
        );
        let tag = hmac::sign(&key, signed.as_bytes());
        let mac: Vec<String> = tag
            .as_ref()
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect();
        if text("mac") != Some(mac.concat()) {
            return Err(says(403, "M_UNKNOWN", "HMAC incorrect"));
        }
        self.check_username(&username, None)?;
        let user_id = user_id_of(&username);
        self.make(&user_id, &password)?;
        let params = body.as_object().cloned().unwrap_or_default();
        let refresh = body["refresh_token"] == json!(true);
        Ok(self.details(&user_id, &params, refresh))
    }

    /// `GET /_synapse/admin/v2/users/{id}/devices`
    pub(super) fn devices_of(&self, user_id: &str) -> Done<Answer> {
        let user = self.users.get(user_id);
        let user = user.ok_or_else(|| says(404, "M_NOT_FOUND", "Unknown user"))?;
        let devices: BTreeSet<&String> = user.tokens.values().collect();
        let devices = devices.iter().map(|device_id| {
            json!({ "user_id": user_id, "device_id": device_id, "display_name": user.device_names.get(*device_id) })
        });
        let devices: Vec<Value> = devices.collect();
        let body = json!({ "total": devices.len(), "devices": devices });
        Ok(Answer { status: 200, body })
    }
}

fn kind(seen: &Seen) -> String {
    query(seen, "kind").unwrap_or_else(|| "user".to_owned())
}

fn query(seen: &Seen, key: &str) -> Option<String> {
    let (_, query) = seen.path.split_once('?')?;
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs
        .find(|(name, _)| name == key)
        .map(|(_, value)| value.into_owned())
}
