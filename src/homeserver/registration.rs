//! Registration as the homeserver does it, with a stage left to us (Client-Server API, "Account registration").

use std::fmt;

use async_trait::async_trait;
use serde_json::{Map, Value};

use super::{Origin, PassedBack};
use crate::{error::Result, threepid::Threepid};

/// The stage that asks nothing of anybody (Client-Server API, "Dummy Auth"): what is withheld until we are content.
pub const DUMMY: &str = "m.login.dummy";

/// How far a registration is (Client-Server API, "User-Interactive Authentication API").
#[derive(Clone, Default, PartialEq)]
pub struct Stages {
    /// The name of the session.
    pub session: String,
    /// What may be done, each way in its order. A way that holds [`DUMMY`] waits for [`Registrar::finish`]; one that does
    /// not is finished by the client's own last stage.
    pub flows: Vec<Vec<String>>,
    /// What is done.
    pub completed: Vec<String>,
    /// What clients need for the stages.
    pub params: Map<String, Value>,
    /// Why the stage that was shown is not done: `errcode` and `error`.
    pub refusal: Option<(String, String)>,
}

impl fmt::Debug for Stages {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Stages")
            .field("flows", &self.flows)
            .field("completed", &self.completed)
            .finish_non_exhaustive()
    }
}

/// A finished registration.
#[derive(Clone)]
pub struct Registered {
    /// The new account.
    pub user_id: String,
    /// What the client is answered: the homeserver's own JSON, with an access token in it. It is stored nowhere.
    pub body: Vec<u8>,
}

impl fmt::Debug for Registered {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Registered({})", self.user_id)
    }
}

/// What a homeserver answers to a request for an account.
#[derive(Clone, Debug)]
pub enum Registering {
    /// There is more to do.
    Stages(Stages),
    /// The account is made.
    Registered(Registered),
    /// The homeserver refuses, in its own words (4xx, or 429); nothing was made.
    Refused(PassedBack),
    /// The homeserver knows the session no more; nothing was made.
    Lost,
}

/// An account that is to be made.
#[derive(Clone, Copy)]
pub struct NewAccount<'a> {
    /// The session.
    pub session: &'a str,
    /// Names the operation: repeated with the same, it makes no second account.
    pub op_id: &'a str,
    /// What the client asks for: the body without `auth`.
    pub params: &'a Map<String, Value>,
    /// The addresses that were proved.
    pub threepids: &'a [Threepid],
    /// The client's own last stage, where its way holds no [`DUMMY`].
    pub last: Option<&'a Map<String, Value>>,
}

impl fmt::Debug for NewAccount<'_> {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NewAccount({:?})", self.threepids)
    }
}

/// What a new account must have proved: `[accounts] registration_requires`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Requires {
    /// One address, of any medium that can be proved here.
    #[default]
    Any,
    /// An email address.
    Email,
    /// A phone number.
    Msisdn,
    /// An email address and a phone number.
    Both,
    /// Nothing; who likes proves an address.
    Nothing,
}

/// Who makes accounts.
///
/// All methods may fail with [`Error::HomeserverFailed`](crate::error::Error::HomeserverFailed): nothing was made; and
/// with [`Error::HomeserverTimeout`](crate::error::Error::HomeserverTimeout): that is not known, and the same call may be
/// made again.
#[async_trait]
pub trait Registrar: fmt::Debug + Send + Sync {
    /// Begins a registration, in a session of its own. The homeserver may refuse the name or the password at once, and does
    /// not make the account.
    async fn start(&self, params: &Map<String, Value>, origin: &Origin) -> Result<Registering>;

    /// Shows a stage of the homeserver's own, `auth`, that does not end the registration; with the session alone it only
    /// asks what is done.
    async fn stage(
        &self,
        session: &str,
        params: &Map<String, Value>,
        auth: &Map<String, Value>,
        origin: &Origin,
    ) -> Result<Registering>;

    /// Ends the registration: the account is made.
    async fn finish(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering>;

    /// Answers a registration once more that is finished, and makes no second account. `params` are those of this
    /// request, which may have none, and `threepids` is empty.
    async fn repeat(&self, account: NewAccount<'_>, origin: &Origin) -> Result<Registering>;

    /// Which account a registration has made, for which [`Registrar::finish`] was called and never seen to end; `None` if
    /// it made none, and will make none. `params` are without the password.
    async fn made(&self, account: NewAccount<'_>) -> Result<Option<String>>;

    /// Whether a user name is free (Client-Server API, `GET register/available`), in the homeserver's own words.
    /// `query` is that of the request.
    async fn available(&self, query: &str, origin: &Origin) -> Result<PassedBack>;
}
