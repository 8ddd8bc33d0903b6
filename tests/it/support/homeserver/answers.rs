//! What the stand-in answers to each request.

use percent_encoding::percent_decode_str;
use serde_json::{Value, json};

use super::{
    Answer, Seen,
    state::{Bearer, State, User},
};

impl Answer {
    fn ok(body: Value) -> Self {
        Self { status: 200, body }
    }

    pub(super) fn error(status: u16, errcode: &str) -> Self {
        let body =
            json!({ "errcode": errcode, "error": format!("The homeserver's words for {errcode}") });
        Self { status, body }
    }
}

impl State {
    /// Does what a request asks.
    pub(super) fn answer(&mut self, seen: &Seen) -> Answer {
        self.route(seen).unwrap_or_else(|refused| refused)
    }

    fn route(&mut self, seen: &Seen) -> Result<Answer, Answer> {
        let path = seen.path.split('?').next().unwrap_or_default();
        let parts: Vec<String> = path.split('/').skip(1).map(decode).collect();
        let parts: Vec<&str> = parts.iter().map(String::as_str).collect();
        match (seen.method.as_str(), parts.as_slice()) {
            ("GET", ["_matrix", "client", "versions"]) => {
                Ok(Answer::ok(json!({ "versions": ["v1.11"] })))
            }
            ("GET", ["_matrix", "client", "v1", "auth_metadata"])
                if self.accounts_live_elsewhere =>
            {
                Ok(Answer::ok(
                    json!({ "issuer": "https://account.example.org/" }),
                ))
            }
            (_, ["_matrix", "client", "v3", rest @ ..]) => self.client(seen, rest),
            ("GET", ["_synapse", "admin", "v1", "register"]) => Ok(self.nonce()),
            ("POST", ["_synapse", "admin", "v1", "register"]) => {
                self.register_by_secret(&seen.json())
            }
            (_, ["_synapse", "admin", rest @ ..]) => {
                self.admin(seen)?;
                self.administer(seen, rest)
            }
            _ => Err(unrecognized()),
        }
    }

    fn client(&mut self, seen: &Seen, path: &[&str]) -> Result<Answer, Answer> {
        match (seen.method.as_str(), path) {
            ("GET", ["account", "whoami"]) => {
                let Bearer {
                    user_id,
                    device_id,
                    is_guest,
                } = self.bearer(seen)?;
                Ok(Answer::ok(
                    json!({ "user_id": user_id, "device_id": device_id, "is_guest": is_guest }),
                ))
            }
            ("GET", ["password_policy"]) => Ok(Answer::ok(match &self.policy {
                Value::Null => json!({}),
                policy => policy.clone(),
            })),
            ("POST", ["account", "3pid", "unbind"]) => {
                self.bearer(seen)?;
                Ok(Answer::ok(json!({ "id_server_unbind_result": "success" })))
            }
            ("POST", ["register"]) => self.register(seen),
            ("GET", ["register", "available"]) => self.available(seen, false),
            ("POST", ["delete_devices"]) => self.delete_devices(seen),
            (_, ["account", "password" | "3pid", ..] | ["login"])
                if self.accounts_live_elsewhere =>
            {
                Err(unrecognized())
            }
            ("POST", ["account", "3pid", _, "requestToken"]) => {
                Err(Answer::error(400, "M_MISSING_PARAM"))
            }
            ("POST", ["account", "password"]) => self.change_password(seen),
            ("POST", ["login"]) => self.login(&seen.json()),
            _ => Err(unrecognized()),
        }
    }

    fn delete_devices(&mut self, seen: &Seen) -> Result<Answer, Answer> {
        let user_id = self.bearer(seen)?.user_id;
        let Some(devices) = seen.json()["devices"].as_array().cloned() else {
            return Err(Answer::error(400, "M_MISSING_PARAM"));
        };
        if !self.skips_reauth {
            self.authenticate(seen, &user_id)?;
        }
        let user = self.user(&user_id)?;
        // As other homeservers do with an empty list: all devices go.
        let is_meant = |device: &String| devices.is_empty() || devices.contains(&json!(device));
        user.tokens.retain(|_, device| !is_meant(device));
        Ok(Answer::ok(json!({})))
    }

    /// The form for those who are logged in: the new password, and other devices are logged out if that is asked for.
    fn change_password(&mut self, seen: &Seen) -> Result<Answer, Answer> {
        let Bearer {
            user_id, device_id, ..
        } = self.bearer(seen)?;
        self.authenticate(seen, &user_id)?;
        let body = seen.json();
        let user = self.user(&user_id)?;
        user.password = text(&body, "new_password")?;
        if body["logout_devices"] != json!(false) {
            user.tokens.retain(|_, device| *device == device_id);
        }
        Ok(Answer::ok(json!({})))
    }

    /// By user id, local part, or address.
    fn login(&mut self, body: &Value) -> Result<Answer, Answer> {
        let identifier = &body["identifier"];
        let user_id = match identifier["type"].as_str() {
            Some("m.id.thirdparty") => {
                let (medium, address) = (text(identifier, "medium")?, text(identifier, "address")?);
                self.owner(&medium, &address).map(str::to_owned)
            }
            _ => Some(full_id(&text(identifier, "user")?)),
        };
        let password = text(body, "password")?;
        let fresh = (self.fresh("token"), self.fresh("DEVICE"));
        let refused = || Answer::error(403, "M_FORBIDDEN");
        let user_id = user_id.ok_or_else(refused)?;
        let user = self.users.get_mut(&user_id).ok_or_else(refused)?;
        if user.password != password || user.is_deactivated {
            return Err(refused());
        }
        let (token, fresh) = fresh;
        let device_id = body["device_id"].as_str().map_or(fresh, str::to_owned);
        user.tokens.insert(token.clone(), device_id.clone());
        Ok(Answer::ok(
            json!({ "user_id": user_id, "access_token": token, "device_id": device_id }),
        ))
    }

    fn administer(&mut self, seen: &Seen, path: &[&str]) -> Result<Answer, Answer> {
        match (seen.method.as_str(), path) {
            ("GET", ["v1", "threepid", medium, "users", address]) => {
                match self.owner(medium, address) {
                    Some(user_id) => Ok(Answer::ok(json!({ "user_id": user_id }))),
                    None => Err(Answer::error(404, "M_NOT_FOUND")),
                }
            }
            ("GET", ["v1", "username_available"]) => self.available(seen, true),
            ("GET", ["v2", "users", user_id, "devices"]) => self.devices_of(user_id),
            ("GET", ["v2", "users", user_id]) => {
                let user = self.users.get(*user_id);
                let user = user.ok_or_else(|| Answer::error(404, "M_NOT_FOUND"))?;
                Ok(Answer::ok(details(user_id, user)))
            }
            ("PUT", ["v2", "users", user_id]) => self.put_user(user_id, &seen.json()),
            ("POST", ["v1", "reset_password", _]) if self.accounts_live_elsewhere => {
                Err(unrecognized())
            }
            ("POST", ["v1", "reset_password", user_id]) => {
                let body = seen.json();
                let new = text(&body, "new_password")?;
                let user = self.user(user_id)?;
                user.password = new;
                if body["logout_devices"] != json!(false) {
                    user.tokens.clear();
                }
                Ok(Answer::ok(json!({})))
            }
            _ => Err(unrecognized()),
        }
    }

    /// Replaces the whole list, steals, and makes who is absent.
    fn put_user(&mut self, user_id: &str, body: &Value) -> Result<Answer, Answer> {
        let is_new = !self.users.contains_key(user_id);
        self.users.entry(user_id.to_owned()).or_default();
        let mut wanted = Vec::new();
        for entry in body["threepids"].as_array().into_iter().flatten() {
            wanted.push((text(entry, "medium")?, text(entry, "address")?));
        }
        let is_refused = |address: &str| {
            !address.contains('@') && !address.bytes().all(|byte| byte.is_ascii_digit())
                || self.refused.as_deref() == Some(address)
        };
        let is_bad = wanted.iter().any(|(_, address)| is_refused(address));
        let user = self.user(user_id)?;
        if is_bad {
            user.threepids.clear();
            return Err(Answer::error(400, "M_UNKNOWN"));
        }
        user.threepids
            .retain(|threepid, _| wanted.contains(threepid));
        for (medium, address) in wanted {
            self.give(user_id, &medium, &address);
        }
        let mut answer = Answer::ok(details(user_id, self.user(user_id)?));
        answer.status = if is_new { 201 } else { 200 };
        Ok(answer)
    }

    /// Deletes the addresses of the account that a path ends with.
    pub(super) fn lose_threepids(&mut self, seen: &Seen) {
        if let Some(user) = self.users.get_mut(&last(&seen.path)) {
            user.threepids.clear();
        }
    }

    /// Deletes the account that a path ends with.
    pub(super) fn lose_user(&mut self, seen: &Seen) {
        self.users.remove(&last(&seen.path));
    }

    fn user(&mut self, user_id: &str) -> Result<&mut User, Answer> {
        let user = self.users.get_mut(user_id);
        user.ok_or_else(|| Answer::error(404, "M_NOT_FOUND"))
    }
}

fn details(user_id: &str, user: &User) -> Value {
    let threepids = user.threepids.iter().map(|((medium, address), added_at)| {
        json!({ "medium": medium, "address": address, "validated_at": added_at, "added_at": added_at })
    });
    json!({
        "name": user_id,
        "deactivated": user.is_deactivated,
        "is_guest": user.is_guest,
        "locked": user.is_locked,
        "suspended": user.is_suspended,
        "appservice_id": user.appservice,
        "threepids": threepids.collect::<Vec<_>>(),
    })
}

fn full_id(user: &str) -> String {
    if user.starts_with('@') {
        user.to_owned()
    } else {
        format!("@{}:example.org", user.to_lowercase())
    }
}

fn decode(part: &str) -> String {
    percent_decode_str(part).decode_utf8_lossy().into_owned()
}

fn last(path: &str) -> String {
    path.rsplit('/').next().map(decode).unwrap_or_default()
}

fn text(body: &Value, key: &str) -> Result<String, Answer> {
    let text = body[key].as_str().map(str::to_owned);
    text.ok_or_else(|| Answer::error(400, "M_MISSING_PARAM"))
}

fn unrecognized() -> Answer {
    Answer::error(404, "M_UNRECOGNIZED")
}
