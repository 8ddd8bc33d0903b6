//! Messages on their way: the trait, and the values that go through it.

use std::fmt;

use async_trait::async_trait;

use super::{Details, StoreResult};
use crate::{
    clock::Timestamp,
    keys::{KeyId, hex},
    session::{MessageKind, Session},
    threepid::{Medium, Threepid},
};

/// A message of the outbox that a worker holds under a lease.
#[derive(Clone, Debug)]
pub struct Queued {
    /// The row.
    pub id: i64,
    /// What it says.
    pub kind: MessageKind,
    /// To whom: the address of the session or the invitation, or another one of the account that it is about.
    pub to: Threepid,
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
    /// What it is about.
    pub about: About,
}

/// What a message is about.
#[derive(Clone, Debug)]
pub enum About {
    /// The session it belongs to.
    Session(Box<Session>),
    /// An invitation.
    Invite(SealedMail),
}

/// What the mail of an invitation says, as it is kept until the mail has gone.
#[derive(Clone)]
pub struct SealedMail {
    /// The invitation.
    pub(crate) invite: [u8; 16],
    /// The server key that sealed it.
    pub(crate) key_id: KeyId,
    /// What it says, sealed for the invitation.
    pub(crate) sealed: Vec<u8>,
}

impl fmt::Debug for SealedMail {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "SealedMail({})", hex(&self.invite))
    }
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

/// Messages on their way. What an invitation's mail says is erased with the message's end, whatever end that is.
#[async_trait]
pub trait Outbox: fmt::Debug + Send + Sync {
    /// Leases up to `most` due messages of a medium to `holder` until `until`; drops those whose session is validated, replaced or
    /// over, or has a newer attempt, and those whose invitation is used, withdrawn or over. Of parallel callers no two get
    /// the same message.
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

    /// Makes a waiting or failed message due now. `false` if there is none of this `id`, or if it is the failed mail of an
    /// invitation, of which nothing is kept.
    async fn retry(&self, id: i64, now: Timestamp) -> StoreResult<bool>;

    /// Drops a waiting message. `false` if there is none of this `id`.
    async fn drop_message(&self, id: i64, now: Timestamp) -> StoreResult<bool>;

    /// How many messages wait.
    async fn backlog(&self) -> StoreResult<Backlog>;
}
