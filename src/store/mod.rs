//! What the rules ask of a store: the traits, and the values that go through them.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use crate::{
    clock::Timestamp,
    error::Error,
    keys::KeyId,
    rate::Rate,
    secret::SessionId,
    session::{Lifetimes, MessageKind, Purpose, Session},
    threepid::{Medium, Threepid},
};

pub mod sqlite;

/// Why a store could not do what it was asked. Nothing was changed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum StoreError {
    /// Too many requests wait already, the disk is full, or the database does not answer: try again later.
    #[error("the store is unavailable: {0}")]
    Unavailable(String),
    /// A fault of ours, or a damaged database.
    #[error("the store failed: {0}")]
    Failed(String),
}

impl From<StoreError> for Error {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(cause) => Self::Unavailable(cause),
            StoreError::Failed(cause) => Self::Internal(cause),
        }
    }
}

/// The result of a question to the store.
pub type StoreResult<T> = Result<T, StoreError>;

/// A bucket that is counted in the store, and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    pub(crate) key: [u8; 16],
    pub(crate) rate: Rate,
}

/// The session of one accepted `requestToken`.
#[derive(Clone, Debug)]
pub struct NewSession {
    /// The name of the session, should a new one be needed.
    pub(crate) sid: SessionId,
    pub(crate) key_id: KeyId,
    pub(crate) scope: [u8; 16],
    pub(crate) secret_hash: [u8; 32],
    pub(crate) purpose: Purpose,
    pub(crate) threepid: Threepid,
    pub(crate) user_id: Option<String>,
    pub(crate) genuine: bool,
    pub(crate) send_attempt: i64,
    /// The `next_link`, sealed for this scope.
    pub(crate) next_link: Option<Vec<u8>>,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) now: Timestamp,
}

/// One accepted `requestToken` that we validate, to be made durable in one transaction.
#[derive(Clone, Debug)]
pub struct NewRequest {
    pub(crate) session: NewSession,
    pub(crate) message: MessageKind,
    pub(crate) details: Details,
    /// The buckets of the address, and of whatever else the message is counted on.
    pub(crate) buckets: Vec<Bucket>,
    /// How often one session may send.
    pub(crate) session_rate: Rate,
    /// How long what the message holds works.
    pub(crate) useful_for: Duration,
}

/// One accepted `requestToken` that an identity server has answered.
#[derive(Clone)]
pub struct NewProxied {
    pub(crate) session: NewSession,
    /// The server.
    pub(crate) server: String,
    /// The session's name there.
    pub(crate) server_sid: String,
    /// By what the session is found again.
    pub(crate) server_pair: [u8; 16],
    /// The token of the account there that asked, sealed for the scope; `None` for our own account.
    pub(crate) access_token: Option<Vec<u8>>,
}

impl fmt::Debug for NewProxied {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NewProxied({} at {})", self.server_sid, self.server)
    }
}

/// What a message tells its reader about the request, as it is kept until the message is written.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
pub struct Details {
    /// The network that the request came from, already shortened: `192.0.2.0/24`.
    pub network: Option<String>,
    /// The account that the message is about, if it is known.
    pub user_id: Option<String>,
}

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Requested {
    /// A message is queued.
    Accepted(SessionId),
    /// The attempt was accepted before: nothing is queued or charged.
    Repeated(SessionId),
    /// A limit holds: nothing was changed. How long to wait.
    Limited(Duration),
}

/// What the reservation of a scope met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is the caller's.
    Yes,
    /// Another request of the same scope is under way.
    Taken,
    /// A limit holds: nothing was changed. How long to wait.
    Limited(Duration),
}

/// What a claim met.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claimed {
    /// The proof is the caller's until the lease runs out.
    Yes(Session),
    /// Another operation, or this one in another request, holds it.
    Held,
    /// It was used before; whether by a request of the same digest.
    Taken {
        /// The digests are equal: the same request, repeated.
        same_request: bool,
    },
    /// It is not validated, or over. The session as it is.
    No(Option<Session>),
}

/// A claim on a proof: between it and `take` stands the call to the homeserver.
#[derive(Clone, Debug)]
pub struct NewClaim {
    pub(crate) sid: SessionId,
    /// Names the operation: a repetition of it continues the claim after its lease.
    pub(crate) op_id: String,
    /// The digest of endpoint, user and body.
    pub(crate) digest: [u8; 32],
    pub(crate) lease: Duration,
    pub(crate) now: Timestamp,
}

/// Whether the code that was shown is the session's, asked once the try is counted.
pub(crate) type IsRight = Box<dyn FnOnce(&Session) -> bool + Send>;

/// A code that was shown for a pending session.
pub struct NewTry {
    pub(crate) sid: SessionId,
    pub(crate) is_right: IsRight,
    /// The bucket of tries at the address.
    pub(crate) address_bucket: Bucket,
    /// How many tries one session has.
    pub(crate) code_tries: u32,
    pub(crate) now: Timestamp,
    /// How long the session lives once it is validated.
    pub(crate) validated_until: Timestamp,
}

impl fmt::Debug for NewTry {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NewTry({})", self.sid)
    }
}

/// Validation sessions.
#[async_trait]
pub trait Sessions: fmt::Debug + Send + Sync {
    /// What [`Sessions::request`] would meet: the session of a repeated attempt, or a limit. Changes nothing.
    async fn peek(
        &self,
        scope: [u8; 16],
        send_attempt: i64,
        buckets: Vec<Bucket>,
        code_tries: u32,
        now: Timestamp,
    ) -> StoreResult<Option<Requested>>;

    /// Counts the buckets, ends a dead session of the same scope, opens or finds the session, claims the attempt and
    /// queues the message, in one durable transaction.
    ///
    /// Of parallel callers with one scope and attempt exactly one is `Accepted`, and all get the same session.
    async fn request(&self, request: NewRequest) -> StoreResult<Requested>;

    /// Reserves a scope for one request that is about to be proxied, until `until`, and counts its buckets; durably.
    ///
    /// Of parallel callers with one scope exactly one is told `Yes`.
    async fn reserve(
        &self,
        scope: [u8; 16],
        buckets: Vec<Bucket>,
        now: Timestamp,
        until: Timestamp,
    ) -> StoreResult<Reserved>;

    /// Remembers a session that an identity server has opened, and gives its scope free; an older session of the scope
    /// goes on if it is the same one there, else it gives way. Durable when it returns.
    async fn remember(&self, proxied: NewProxied) -> StoreResult<()>;

    /// Gives a scope free whose request an identity server has not accepted. What was counted stays counted.
    async fn remove(&self, scope: [u8; 16]) -> StoreResult<()>;

    /// The sessions of identity servers that are found by one of these pairs, the newest first.
    async fn find_proxied(&self, server_pairs: Vec<[u8; 16]>) -> StoreResult<Vec<Session>>;

    /// The session of this name, over or not.
    async fn find(&self, sid: SessionId) -> StoreResult<Option<Session>>;

    /// Counts one try at the session's code, and one at its address; then asks whether it is right, and validates the
    /// session if so: all in one durable transaction. The session as it is afterwards.
    ///
    /// Of parallel callers no two see the same count. `Err` in the result is the address's limit; `None` if the code
    /// can not be tried any more.
    async fn try_code(&self, shown: NewTry) -> StoreResult<Result<Option<Session>, Duration>>;

    /// Marks a pending session validated and starts its life once more. `false` if it was not pending.
    async fn mark_validated(
        &self,
        sid: SessionId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> StoreResult<bool>;

    /// Claims a validated session's proof for one operation. Of parallel callers exactly one gets it.
    async fn claim(&self, claim: NewClaim) -> StoreResult<Claimed>;

    /// Uses up the proof that `op_id` claimed; the row stays as a tombstone. `false` if `op_id` holds no claim.
    async fn take(&self, op_id: &str, now: Timestamp) -> StoreResult<bool>;

    /// Gives the proof that `op_id` claimed back, after a certain refusal. `false` if `op_id` holds no claim.
    async fn release(&self, op_id: &str) -> StoreResult<bool>;

    /// Deletes a small step of what is over since before `before`: sessions and finished messages, and buckets that
    /// are full at `now`. How many rows went. Messages that would wait because the clock was set back become due.
    async fn sweep(&self, before: Timestamp, now: Timestamp) -> StoreResult<usize>;

    /// Whether the store can read and write.
    async fn check(&self) -> StoreResult<()>;
}

/// A message of the outbox that a worker holds under a lease.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The row.
    pub id: i64,
    /// What it says.
    pub kind: MessageKind,
    /// Details of the request.
    pub details: Details,
    /// The attempt that queued it.
    pub send_attempt: i64,
    /// How often its delivery was tried, this time included.
    pub deliveries: u32,
    /// When it was asked for.
    pub queued_at: Timestamp,
    /// After which it would be useless.
    pub useless_at: Timestamp,
    /// The session it belongs to.
    pub session: Session,
}

/// What a worker leased.
#[derive(Debug, Default)]
pub struct Leased {
    /// Messages to deliver.
    pub ready: Vec<Queued>,
    /// How many were dropped instead, because nobody needs them any more.
    pub dropped: usize,
}

impl Leased {
    /// Whether nothing was due.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ready.is_empty() && self.dropped == 0
    }
}

/// A row of the outbox as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct OutboxEntry {
    /// The row, by which `outbox retry` and `outbox drop` name it.
    pub id: i64,
    /// What it says.
    pub kind: String,
    /// To whom, masked.
    pub to: String,
    /// `queued`, `sending`, `sent`, `failed` or `dropped`.
    pub state: &'static str,
    /// How often its delivery was tried.
    pub deliveries: u32,
    /// When it was asked for, in milliseconds.
    pub queued_at: Timestamp,
    /// When it is tried next, in milliseconds; `None` when it is finished.
    pub due_at: Option<Timestamp>,
    /// How the last try ended, redacted.
    pub outcome: Option<String>,
}

/// How many messages wait, and for how long.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct Backlog {
    /// Messages that are not finished.
    pub waiting: u32,
    /// When the oldest of them was asked for, in milliseconds.
    pub oldest: Option<Timestamp>,
}

/// Messages on their way.
#[async_trait]
pub trait Outbox: fmt::Debug + Send + Sync {
    /// Leases up to `most` due messages of a medium to `holder` until `until`; drops those whose session is validated, replaced or
    /// over, or has a newer attempt. Of parallel callers no two get the same message.
    async fn lease(
        &self,
        medium: Medium,
        holder: &str,
        most: u32,
        now: Timestamp,
        until: Timestamp,
    ) -> StoreResult<Leased>;

    /// Records that the next hop has taken the message: a fact, whoever holds the lease by now. `false` if the message
    /// was finished already.
    async fn delivered(&self, id: i64, outcome: &str, now: Timestamp) -> StoreResult<bool>;

    /// Gives the lease back, to be tried again at `due_at`.
    async fn retry_at(
        &self,
        id: i64,
        holder: &str,
        outcome: &str,
        due_at: Timestamp,
    ) -> StoreResult<bool>;

    /// Gives the lease back of a message that was not tried.
    async fn give_back(&self, id: i64, holder: &str, now: Timestamp) -> StoreResult<bool>;

    /// Records that the message will never be delivered.
    async fn give_up(
        &self,
        id: i64,
        holder: &str,
        outcome: &str,
        now: Timestamp,
    ) -> StoreResult<bool>;

    /// Gives back all leases: those of a process that died. Only for the holder of the store's lock.
    async fn free_leases(&self, now: Timestamp) -> StoreResult<usize>;

    /// When the next message of a medium is due; `None` if none waits.
    async fn next_due(&self, medium: Medium) -> StoreResult<Option<Timestamp>>;

    /// The newest `most` messages, newest first.
    async fn list(&self, most: u32) -> StoreResult<Vec<OutboxEntry>>;

    /// Makes a waiting or failed message due now. `false` if there is none of this `id`.
    async fn retry(&self, id: i64, now: Timestamp) -> StoreResult<bool>;

    /// Drops a waiting message. `false` if there is none of this `id`.
    async fn drop_message(&self, id: i64, now: Timestamp) -> StoreResult<bool>;

    /// How many messages wait.
    async fn backlog(&self) -> StoreResult<Backlog>;
}

/// An address of a local account.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Contact {
    /// The account.
    pub user_id: String,
    /// The medium's name.
    pub medium: String,
    /// The canonical address.
    pub address: String,
    /// When it was added, in milliseconds.
    pub added_at: Timestamp,
}

/// What binding an address to an account met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// It is the account's now.
    Bound,
    /// It was the account's already.
    AlreadyYours,
    /// Another account has it.
    OwnedByOther,
}

/// The addresses of local accounts, unique on medium and address.
#[async_trait]
pub trait Contacts: fmt::Debug + Send + Sync {
    /// The account that has the address.
    async fn owner(&self, threepid: &Threepid) -> StoreResult<Option<String>>;

    /// Gives the address to the account unless it is taken. Of parallel callers one binds.
    async fn bind(&self, user_id: &str, threepid: &Threepid, now: Timestamp) -> StoreResult<Bound>;

    /// Takes the address from the account. `false` if it was not the account's.
    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> StoreResult<bool>;

    /// The addresses of one account, or of all; ordered by account and address, after `after`, at most `most`.
    async fn contacts(
        &self,
        user_id: Option<&str>,
        after: Option<(&str, &str)>,
        most: u32,
    ) -> StoreResult<Vec<Contact>>;
}

/// All that a store is.
pub trait Store: Sessions + Outbox + Contacts {}

impl<T: Sessions + Outbox + Contacts> Store for T {}
