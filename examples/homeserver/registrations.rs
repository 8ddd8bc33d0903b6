//! Sessions of user-interactive authentication in which accounts are made (Client-Server API, "User-Interactive
//! Authentication API").

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Map, Value};
use threepid::{Error, clock::Timestamp};

use crate::{password::PasswordHash, users::chance};

/// How long a person may take: to read their mail, and a little more.
const LIFE: Duration = Duration::from_hours(1);
/// How many sessions there are at most: anybody may begin one.
const MOST: usize = 10_000;

/// All that are under way, and those that have just ended.
#[derive(Default)]
pub(crate) struct Registrations(Mutex<HashMap<String, Arc<Registration>>>);

/// One session.
pub(crate) struct Registration {
    pub(crate) name: String,
    expires_at: Timestamp,
    /// Requests of one session wait for each other here: a client repeats what takes it too long.
    pub(crate) progress: tokio::sync::Mutex<Progress>,
}

/// How far it is.
#[derive(Default)]
pub(crate) struct Progress {
    /// What the client asks for, without `auth`: not every request of a session tells it. It holds the password, so a
    /// homeserver that stores it seals it.
    pub(crate) wanted: Map<String, Value>,
    /// The account that was made.
    pub(crate) made: Option<Made>,
}

/// A new account.
#[derive(Clone)]
pub(crate) struct Made {
    pub(crate) user_id: String,
    pub(crate) password: PasswordHash,
}

impl Registrations {
    /// Begins one.
    ///
    /// # Errors
    /// [`Error::Limited`] if there are too many.
    pub(crate) fn begin(
        &self,
        wanted: Map<String, Value>,
        now: Timestamp,
    ) -> Result<Arc<Registration>, Error> {
        let mut sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        sessions.retain(|_, session| now < session.expires_at);
        if sessions.len() >= MOST {
            let retry_after = Duration::from_mins(1);
            return Err(Error::Limited { retry_after });
        }
        let progress = Progress { wanted, made: None };
        let session = Arc::new(Registration {
            name: chance::<16>(),
            expires_at: now + LIFE,
            progress: tokio::sync::Mutex::new(progress),
        });
        sessions.insert(session.name.clone(), Arc::clone(&session));
        Ok(session)
    }

    /// The session of this name; `None` if there is none, or not any more.
    pub(crate) fn find(&self, name: &str, now: Timestamp) -> Option<Arc<Registration>> {
        let sessions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let session = sessions.get(name).cloned();
        session.filter(|session| now < session.expires_at)
    }
}
