//! Accounts and their devices, in memory. Of access tokens it keeps digests alone.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, MutexGuard, PoisonError},
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use sha2::{Digest, Sha256};
use threepid::{Error, homeserver::Requester, secret::AccessToken};

use crate::password::PasswordHash;

/// All accounts of a homeserver.
pub(crate) struct Users {
    server_name: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// By user id. An account that has ended has no password, and its name is never given to anybody else.
    accounts: HashMap<String, Option<PasswordHash>>,
    /// By the digest of the access token.
    devices: HashMap<[u8; 32], Device>,
}

struct Device {
    user_id: String,
    device_id: String,
}

/// A device that was just logged in.
pub(crate) struct LoggedIn {
    pub(crate) access_token: String,
    pub(crate) device_id: String,
}

impl fmt::Debug for Users {
    /// Nothing of anybody.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Users({})", self.server_name)
    }
}

impl Users {
    /// No accounts yet.
    pub(crate) fn new(server_name: &str) -> Self {
        Self {
            server_name: server_name.to_owned(),
            state: Mutex::default(),
        }
    }

    /// The user id of a `user`, who may have written all of it or the part before the colon (Client-Server API,
    /// "Matrix User ID").
    pub(crate) fn user_id(&self, user: &str) -> String {
        if user.starts_with('@') {
            user.to_owned()
        } else {
            format!("@{user}:{}", self.server_name)
        }
    }

    /// Whether an account has, or had, the name.
    pub(crate) fn is_taken(&self, user_id: &str) -> bool {
        self.state().accounts.contains_key(user_id)
    }

    /// Makes an account; of parallel callers for one name one does.
    pub(crate) fn create(&self, user_id: &str, password: PasswordHash) -> bool {
        let mut state = self.state();
        let is_free = !state.accounts.contains_key(user_id);
        if is_free {
            state.accounts.insert(user_id.to_owned(), Some(password));
        }
        is_free
    }

    /// Undoes the making of an account that nobody was told of.
    pub(crate) fn forget(&self, user_id: &str) {
        self.state().accounts.remove(user_id);
    }

    /// What the password of an account is checked by; `None` if there is no such account, or not any more.
    pub(crate) fn password(&self, user_id: &str) -> Option<PasswordHash> {
        self.state().accounts.get(user_id).cloned().flatten()
    }

    /// Sets the password of a live account, if it still is `old`; `None` stands for any.
    pub(crate) fn set_password(
        &self,
        user_id: &str,
        old: Option<&PasswordHash>,
        new: PasswordHash,
    ) -> bool {
        let mut state = self.state();
        let Some(Some(password)) = state.accounts.get_mut(user_id) else {
            return false;
        };
        let is_meant = old.is_none_or(|old| old == password);
        if is_meant {
            *password = new;
        }
        is_meant
    }

    /// Ends an account: nobody logs in to it any more, nor is logged in.
    pub(crate) fn end(&self, user_id: &str) {
        let mut state = self.state();
        if let Some(password) = state.accounts.get_mut(user_id) {
            *password = None;
        }
        state.devices.retain(|_, device| device.user_id != user_id);
    }

    /// Logs a device in; one that has the same `device_id` gives way. `None` if the password that was checked is no longer
    /// the account's: a reset in the meantime has the last word.
    pub(crate) fn log_in(
        &self,
        user_id: &str,
        checked: &PasswordHash,
        device_id: Option<&str>,
    ) -> Option<LoggedIn> {
        let access_token = chance::<32>();
        let device_id = device_id.map_or_else(chance::<8>, str::to_owned);
        let mut state = self.state();
        let password = state.accounts.get(user_id)?.as_ref();
        password.filter(|password| *password == checked)?;
        let is_same = |device: &Device| device.user_id == user_id && device.device_id == device_id;
        state.devices.retain(|_, device| !is_same(device));
        let device = Device {
            user_id: user_id.to_owned(),
            device_id: device_id.clone(),
        };
        state.devices.insert(digest(&access_token), device);
        Some(LoggedIn {
            access_token,
            device_id,
        })
    }

    /// Who has an access token.
    pub(crate) fn requester(&self, access_token: &AccessToken) -> Result<Requester, Error> {
        let state = self.state();
        let device = state.devices.get(&digest(access_token.reveal()));
        let device = device.ok_or(Error::UnknownToken { soft_logout: false })?;
        Ok(Requester {
            user_id: device.user_id.clone(),
            device_id: Some(device.device_id.clone()),
            access_token: access_token.clone(),
        })
    }

    /// Logs the device out that has an access token.
    pub(crate) fn log_out(&self, access_token: &AccessToken) {
        self.state().devices.remove(&digest(access_token.reveal()));
    }

    /// Logs all devices of an account out, but for `kept`.
    pub(crate) fn log_out_all(&self, user_id: &str, kept: Option<&str>) {
        let is_kept = |device: &Device| kept == Some(device.device_id.as_str());
        let mut state = self.state();
        state
            .devices
            .retain(|_, device| device.user_id != user_id || is_kept(device));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A token has more chance in it than anybody can try, so that a plain digest keeps it: no salt, and quick to find.
fn digest(token: &str) -> [u8; 32] {
    Sha256::digest(token).into()
}

/// A random name of `N` bytes.
pub(crate) fn chance<const N: usize>() -> String {
    URL_SAFE_NO_PAD.encode(rand::random::<[u8; N]>())
}
