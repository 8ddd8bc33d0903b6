//! Validation sessions: the trait, and the values that go through it.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{Bucket, StoreResult};
use crate::{
    clock::Timestamp,
    keys::KeyId,
    rate::Rate,
    secret::SessionId,
    session::{Lifetimes, MessageKind, Purpose, Session},
    threepid::Threepid,
};

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

/// A request that is about to be proxied.
#[derive(Clone, Debug)]
pub struct Reservation {
    pub(crate) scope: [u8; 16],
    pub(crate) send_attempt: i64,
    /// The buckets of the address.
    pub(crate) buckets: Vec<Bucket>,
    /// How many tries one session has.
    pub(crate) code_tries: u32,
    pub(crate) now: Timestamp,
    /// After which whoever reserved it must have died.
    pub(crate) until: Timestamp,
}

/// What the reservation of a scope met.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reserved {
    /// It is the caller's.
    Yes,
    /// Another request of the same scope is under way.
    Taken,
    /// The identity server has answered this attempt, or a later one: the session.
    Answered(SessionId),
    /// A limit holds: nothing was changed. How long to wait.
    Limited(Duration),
}

/// What became of a session that an identity server has opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Remembered {
    /// It is remembered.
    Yes,
    /// It is a session that has proved an address already, for another purpose or before. Nothing was changed.
    Spent,
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

/// A password reset that the homeserver has done.
#[derive(Clone, Debug)]
pub struct FinishedReset {
    /// The operation that claimed the proof.
    pub(crate) op_id: String,
    /// The account.
    pub(crate) user_id: String,
    /// Whom to tell.
    pub(crate) notices: Vec<Notice>,
    pub(crate) now: Timestamp,
}

/// A message about what was done, to an address of the account.
#[derive(Clone, Debug)]
pub struct Notice {
    pub(crate) to: Threepid,
    pub(crate) details: Details,
    /// After which it would be of no use.
    pub(crate) useless_at: Timestamp,
}

/// Whether the code that was shown is the session's, asked once the try is counted.
type IsRight = Box<dyn FnOnce(&Session) -> bool + Send>;

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

    /// Reserves a scope for one request that is about to be proxied, and counts its buckets; durably.
    ///
    /// Of parallel callers with one scope exactly one is told `Yes`.
    async fn reserve(&self, reservation: Reservation) -> StoreResult<Reserved>;

    /// Remembers a session that an identity server has opened, and gives its scope free; an older session of the scope
    /// goes on if it is the same one there, else it gives way. Durable when it returns.
    async fn remember(&self, proxied: NewProxied) -> StoreResult<Remembered>;

    /// Gives a scope free that was reserved until `until`, and whose request an identity server has not accepted. What
    /// was counted stays counted.
    async fn remove(&self, scope: [u8; 16], until: Timestamp) -> StoreResult<()>;

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

    /// Takes the count of a try back that nobody has judged.
    async fn give_try_back(&self, sid: SessionId) -> StoreResult<()>;

    /// Marks a pending session validated and starts its life once more. `false` if it was not pending.
    async fn mark_validated(
        &self,
        sid: SessionId,
        now: Timestamp,
        expires_at: Timestamp,
    ) -> StoreResult<bool>;

    /// Claims a validated session's proof for one operation. Of parallel callers exactly one gets it.
    async fn claim(&self, claim: NewClaim) -> StoreResult<Claimed>;

    /// Claims a password session for the page that its link leads to, from pending at once: it is never validated, so
    /// that whoever polls for it waits in vain. Of parallel callers exactly one gets it.
    async fn claim_by_page(&self, claim: NewClaim) -> StoreResult<Claimed>;

    /// Ends the lease of the claim that `op_id` holds: the same operation may continue it at once, and no other.
    /// `false` if `op_id` holds no claim.
    async fn pause(&self, op_id: &str, now: Timestamp) -> StoreResult<bool>;

    /// Ends the leases of all claims: those of a process that died. Only for the holder of the store's lock.
    async fn pause_all(&self, now: Timestamp) -> StoreResult<usize>;

    /// Ends the session that `op_id` has claimed, without effect: it becomes a decoy, which tells nobody that it was none
    /// before. `false` if `op_id` holds no claim.
    async fn end(&self, op_id: &str) -> StoreResult<bool>;

    /// Ends all resets of an account that are not finished, in the same way; how many there were.
    async fn end_resets(&self, user_id: &str) -> StoreResult<usize>;

    /// Uses up the proof that the operation claimed, ends the account's other resets and queues the notices, in one
    /// durable transaction. `false` if the operation holds no claim: then nothing was changed.
    async fn finish_reset(&self, finished: FinishedReset) -> StoreResult<bool>;

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
