//! Accounts made by the secret that Synapse shares (Synapse's admin API, "Register Users"): where clients may not
//! register at all. Its stages, its limits and its checks of names against spam are lost with that, and so is a
//! `device_id` of the client's own.

use std::fmt;

use aws_lc_rs::hmac;
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use http::{Method, StatusCode};
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

use super::Synapse;
use crate::{
    error::{Error, Result},
    homeserver::{
        Origin,
        api::{Answer, Asked, Call, is_user_id, name_query, registered, segment},
        registration::{DUMMY, NewAccount, Registering, Stages},
    },
    keys::hex,
    password::NewPassword,
    secret::random,
};

const REGISTER: &str = "/_synapse/admin/v1/register";
const LOGIN: &str = "/_matrix/client/v3/login";
const DEVICES: &str = "/_synapse/admin/v2/users";

/// What Synapse has as `registration_shared_secret`. `Debug` shows nothing of it.
#[derive(Clone)]
pub struct SharedSecret(Zeroizing<String>);

impl SharedSecret {
    /// Takes it as it stands in Synapse's configuration.
    ///
    /// # Errors
    /// Why it is none; never what it is.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("it is empty".to_owned());
        }
        Ok(Self(Zeroizing::new(text.to_owned())))
    }

    /// What proves to Synapse that we know it.
    fn mac(&self, nonce: &str, username: &str, password: &str) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA1_FOR_LEGACY_USE_ONLY, self.0.as_bytes());
        let text = Zeroizing::new([nonce, username, password, "notadmin"].join("\0"));
        hex(hmac::sign(&key, text.as_bytes()).as_ref())
    }
}

impl fmt::Debug for SharedSecret {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("SharedSecret(…)")
    }
}

impl Synapse {
    /// A session of ours: Synapse knows of none. The name and the password are looked at, as Synapse would itself.
    pub(super) async fn start_by_secret(&self, params: &Map<String, Value>) -> Result<Registering> {
        if let Some(query) = name_query(params) {
            let told = self.username_available(&query).await?;
            if told.status != StatusCode::OK {
                return Ok(Registering::Refused(told));
            }
        }
        if let Some(password) = text(params, "password") {
            let policy = self.client.password_policy().await?;
            policy.check(&NewPassword::parse(password)?)?;
        }
        Ok(Registering::Stages(Stages {
            session: URL_SAFE_NO_PAD.encode(random::<18>()),
            flows: vec![vec![DUMMY.to_owned()]],
            ..Stages::default()
        }))
    }

    /// `GET`, then `POST /_synapse/admin/v1/register`
    pub(super) async fn finish_by_secret(
        &self,
        account: NewAccount<'_>,
        origin: &Origin,
    ) -> Result<Registering> {
        let params = account.params;
        let username = text(params, "username").ok_or(Error::MissingParam("username"))?;
        let password = text(params, "password").ok_or(Error::MissingParam("password"))?;
        let nonce = self.nonce().await?;
        let mut body = json!({
            "nonce": nonce, "username": username, "password": password, "admin": false,
            "mac": self.secret()?.mac(&nonce, username, password), "device_id": device_of(account.op_id),
        });
        add_login(&mut body, params);
        let asked = Asked::changing(Method::POST, REGISTER);
        let call = Call::new(asked, REGISTER.to_owned())
            .json(&body)
            .origin(origin);
        let answer = self.client.send(call).await?;
        if answer.status == StatusCode::OK {
            return done(answer, params);
        }
        if !answer.says(StatusCode::BAD_REQUEST, "M_USER_IN_USE") {
            return refused(answer);
        }
        // Perhaps it is we who took it: the answer to an earlier try may have been lost.
        match self.log_in(account, origin).await? {
            Registering::Refused(other) if other.status != StatusCode::FORBIDDEN => {
                let cause = "the homeserver lets nobody log in: whose a user name is that was asked for is not known";
                Err(Error::HomeserverTimeout(cause.to_owned()))
            }
            Registering::Refused(_) => refused(answer),
            made => Ok(made),
        }
    }

    /// A login: Synapse has no session in which it could answer once more.
    pub(super) async fn repeat_by_secret(
        &self,
        account: NewAccount<'_>,
        origin: &Origin,
    ) -> Result<Registering> {
        if text(account.params, "password").is_none() {
            return Err(Error::Forbidden(
                "This registration is finished. Log in.".into(),
            ));
        }
        self.log_in(account, origin).await
    }

    /// `POST /_matrix/client/v3/login`
    async fn log_in(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering> {
        let params = account.params;
        let mut body = json!({
            "type": "m.login.password",
            "identifier": { "type": "m.id.user", "user": text(params, "username").unwrap_or_default() },
            "password": text(params, "password").unwrap_or_default(),
            "device_id": device_of(account.op_id),
        });
        add_login(&mut body, params);
        let asked = Asked::changing(Method::POST, LOGIN);
        let call = Call::new(asked, LOGIN.to_owned())
            .json(&body)
            .origin(origin);
        let answer = self.client.send(call).await?;
        match answer.status {
            StatusCode::OK => done(answer, params),
            _ => refused(answer),
        }
    }

    /// Ours is an account that has the device of this very operation. Whoever else has taken the name meanwhile has
    /// not: nobody can guess it.
    pub(super) async fn made_by_secret(&self, account: NewAccount<'_>) -> Result<Option<String>> {
        let Some(username) = text(account.params, "username") else {
            return Ok(None);
        };
        let admin = self
            .client
            .whoami(self.admin()?, &Origin::default())
            .await?;
        let server = admin
            .user_id
            .split_once(':')
            .map_or("", |(_, server)| server);
        let user_id = format!("@{}:{server}", username.to_lowercase());
        if !is_user_id(&user_id) {
            return Ok(None);
        }
        let path = format!("{DEVICES}/{}/devices", segment(&user_id));
        let call = Call::get(DEVICES, path).bearer(self.admin()?);
        let answer = self.client.send(call).await?;
        if answer.says(StatusCode::NOT_FOUND, "M_NOT_FOUND") {
            return Ok(None);
        }
        if answer.status != StatusCode::OK {
            return Err(answer.admin_fault());
        }
        let body = answer.success()?;
        let devices = body.get("devices").and_then(Value::as_array);
        let ours = device_of(account.op_id);
        let is_ours = |device: &Value| device["device_id"].as_str() == Some(ours.as_str());
        let has_ours = devices.is_some_and(|devices| devices.iter().any(is_ours));
        if has_ours {
            return Ok(Some(user_id));
        }
        // Perhaps ours after all, whose device is gone.
        let cause =
            "somebody has the user name that was asked for: whose the account is, is not known";
        Err(Error::HomeserverTimeout(cause.to_owned()))
    }

    async fn nonce(&self) -> Result<String> {
        let answer = self
            .client
            .send(Call::get(REGISTER, REGISTER.to_owned()))
            .await?;
        let asked = answer.asked.clone();
        let body = answer.success()?;
        let nonce = body.get("nonce").and_then(Value::as_str);
        Ok(nonce
            .ok_or_else(|| asked.broken("200 and no nonce"))?
            .to_owned())
    }
}

/// What a login is to be like. There always is one: by its device the account is known again.
fn add_login(body: &mut Value, params: &Map<String, Value>) {
    for key in ["initial_device_display_name", "refresh_token"] {
        if let Some(value) = params.get(key) {
            body[key] = value.clone();
        }
    }
}

/// The account, and the login unless none was asked for.
fn done(answer: Answer, params: &Map<String, Value>) -> Result<Registering> {
    let mut registered = registered(answer)?;
    if params.get("inhibit_login") == Some(&Value::Bool(true)) {
        registered.body = json!({ "user_id": registered.user_id }).to_string().into();
    }
    Ok(Registering::Registered(registered))
}

/// The device that an operation opens. Who does not know the operation can not know it.
fn device_of(op_id: &str) -> String {
    let digest = Sha256::digest(["device", op_id].concat());
    URL_SAFE_NO_PAD.encode(&digest[..12])
}

fn text<'a>(params: &'a Map<String, Value>, key: &str) -> Option<&'a str> {
    params.get(key).and_then(Value::as_str)
}

fn refused(answer: Answer) -> Result<Registering> {
    if answer.status.is_client_error() && answer.matrix_error().is_some() {
        Ok(Registering::Refused(answer.into_passed_back()))
    } else {
        Err(answer.fault())
    }
}
