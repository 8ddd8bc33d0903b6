//! The accounts of the stand-in, and who may do what.

use std::collections::BTreeMap;

use serde_json::{Map, Value, json};

use super::{ADMIN_TOKEN, Answer, Seen, register::Registration};

/// An account.
#[derive(Clone, Debug, Default)]
#[expect(
    clippy::struct_excessive_bools,
    reason = "the admin API has these keys, each true or false"
)]
pub(crate) struct User {
    pub(crate) password: String,
    /// Access tokens, and the devices that have them.
    pub(crate) tokens: BTreeMap<String, String>,
    /// What devices are called.
    pub(crate) device_names: BTreeMap<String, String>,
    /// Medium and address, and when it was added, in milliseconds.
    pub(crate) threepids: BTreeMap<(String, String), i64>,
    pub(crate) is_deactivated: bool,
    pub(crate) is_guest: bool,
    pub(crate) is_locked: bool,
    pub(crate) is_suspended: bool,
    pub(crate) appservice: Option<String>,
}

impl User {
    pub(super) fn new(password: &str, token: &str) -> Self {
        Self {
            password: password.to_owned(),
            tokens: BTreeMap::from([(token.to_owned(), "DEVICE".to_owned())]),
            ..Self::default()
        }
    }
}

/// All that the stand-in knows.
#[derive(Clone, Debug, Default)]
pub(super) struct State {
    pub(super) users: BTreeMap<String, User>,
    pub(super) policy: Value,
    pub(super) constant_session: Option<String>,
    pub(super) accounts_live_elsewhere: bool,
    pub(super) skips_reauth: bool,
    /// How accounts are made.
    pub(super) registration: Registration,
    /// An address that it does not take.
    pub(super) refused: Option<String>,
    /// Sessions of user-interactive authentication, and what each is for.
    sessions: BTreeMap<String, Value>,
    /// Counts all that needs a fresh name.
    count: u32,
    /// Its clock, which ticks with each change.
    now: i64,
}

/// Who a token belongs to.
pub(super) struct Bearer {
    pub(super) user_id: String,
    pub(super) device_id: String,
    pub(super) is_guest: bool,
}

impl State {
    /// Gives an address to an account; whoever had it loses it. One that the account has keeps its time.
    pub(super) fn give(&mut self, user_id: &str, medium: &str, address: &str) {
        let threepid = (medium.to_owned(), address.to_owned());
        for (other, user) in &mut self.users {
            if other != user_id {
                user.threepids.remove(&threepid);
            }
        }
        self.now += 1000;
        let user = self.users.entry(user_id.to_owned()).or_default();
        user.threepids.entry(threepid).or_insert(self.now);
    }

    pub(super) fn owner(&self, medium: &str, address: &str) -> Option<&str> {
        let threepid = (medium.to_owned(), address.to_owned());
        let mut users = self.users.iter();
        let found = users.find(|(_, user)| user.threepids.contains_key(&threepid));
        found.map(|(user_id, _)| user_id.as_str())
    }

    /// The account that sent a request, as `Auth.get_user_by_req` finds it.
    pub(super) fn bearer(&self, seen: &Seen) -> Result<Bearer, Answer> {
        let Some(token) = seen.header("authorization").strip_prefix("Bearer ") else {
            return Err(Answer::error(401, "M_MISSING_TOKEN"));
        };
        let has = |user: &User| user.tokens.get(token).cloned();
        let mut users = self.users.iter();
        let found = users.find_map(|(user_id, user)| Some((user_id, user, has(user)?)));
        let Some((user_id, user, device_id)) = found else {
            let mut unknown = Answer::error(401, "M_UNKNOWN_TOKEN");
            unknown.body["soft_logout"] = json!(false);
            return Err(unknown);
        };
        if user.is_locked {
            let mut locked = Answer::error(401, "M_USER_LOCKED");
            locked.body["soft_logout"] = json!(true);
            return Err(locked);
        }
        Ok(Bearer {
            user_id: user_id.clone(),
            device_id,
            is_guest: user.is_guest,
        })
    }

    /// Whether a request has the right of a server admin.
    pub(super) fn admin(&self, seen: &Seen) -> Result<(), Answer> {
        if seen.header("authorization") == format!("Bearer {ADMIN_TOKEN}") {
            return Ok(());
        }
        self.bearer(seen)?;
        Err(Answer::error(403, "M_FORBIDDEN"))
    }

    /// User-interactive authentication by password, as `AuthHandler.check_ui_auth` does it: a session is for one
    /// endpoint and one body.
    pub(super) fn authenticate(&mut self, seen: &Seen, user_id: &str) -> Result<(), Answer> {
        let mut body = seen.json();
        let Some(fields) = body.as_object_mut() else {
            return Err(Answer::error(400, "M_NOT_JSON"));
        };
        let auth = fields.remove("auth").unwrap_or_default();
        let operation = json!({ "path": seen.path, "body": body });
        let session = match auth["session"].as_str() {
            Some(session) if self.sessions.get(session) == Some(&operation) => session.to_owned(),
            // One name for all of them: what it was last asked for holds.
            Some(session) if self.constant_session.is_none() => {
                let known = self.sessions.contains_key(session);
                return Err(Answer::error(if known { 403 } else { 400 }, "M_UNKNOWN"));
            }
            _ => self.fresh_session(operation),
        };
        let named = auth["identifier"]["user"]
            .as_str()
            .or(auth["user"].as_str());
        let is_theirs = named.is_some_and(|named| localpart(named) == localpart(user_id));
        let password = self.users.get(user_id).map(|user| user.password.as_str());
        if is_theirs && auth["password"].as_str() == password {
            return Ok(());
        }
        let mut challenge = Map::new();
        challenge.insert("session".to_owned(), json!(session));
        challenge.insert(
            "flows".to_owned(),
            json!([{ "stages": ["m.login.password"] }]),
        );
        challenge.insert("params".to_owned(), json!({}));
        if auth["type"] == "m.login.password" {
            challenge.insert("errcode".to_owned(), json!("M_FORBIDDEN"));
            challenge.insert("error".to_owned(), json!("Invalid username or password"));
            challenge.insert("completed".to_owned(), json!([]));
        }
        let body = Value::Object(challenge);
        Err(Answer { status: 401, body })
    }

    fn fresh_session(&mut self, operation: Value) -> String {
        let fresh = self.fresh("uia_session");
        let session = self.constant_session.clone().unwrap_or(fresh);
        self.sessions.insert(session.clone(), operation);
        session
    }

    pub(super) fn fresh(&mut self, what: &str) -> String {
        self.count += 1;
        format!("{what}_{}", self.count)
    }
}

fn localpart(user: &str) -> &str {
    let user = user.strip_prefix('@').unwrap_or(user);
    user.split_once(':')
        .map_or(user, |(localpart, _)| localpart)
}
