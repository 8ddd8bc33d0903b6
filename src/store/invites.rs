//! Invitations of people who have no user id yet: the trait, and the values that go through it.

use std::{fmt, time::Duration};

use async_trait::async_trait;

use super::{Bucket, StoreResult};
use crate::{clock::Timestamp, keys::KeyId, signing::PublicKey, threepid::Threepid};

/// An invitation that is kept until its address is somebody's.
#[derive(Clone, PartialEq, Eq)]
pub struct Invite {
    /// Its name here, found again by the token: a MAC of it.
    pub(crate) id: [u8; 16],
    /// The server key that `id` and `token` were made with.
    pub(crate) key_id: KeyId,
    /// The token, sealed for `id`.
    pub(crate) token: Vec<u8>,
    /// Whom it invites.
    pub threepid: Threepid,
    /// Where to.
    pub room_id: String,
    /// Who invites.
    pub sender: String,
    /// The public half of its ephemeral key.
    pub(crate) public_key: PublicKey,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when it can be used.
    pub expires_at: Timestamp,
}

impl fmt::Debug for Invite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Invite({:?} to {})", self.threepid, self.room_id)
    }
}

/// An invitation that is made, and the mail that tells of it.
#[derive(Clone)]
pub struct NewInvite {
    pub(crate) invite: Invite,
    /// What the mail says, and the ephemeral private key, sealed for the invitation's `id`.
    pub(crate) mail: Vec<u8>,
    /// After which the mail would be useless.
    pub(crate) mail_useless_at: Timestamp,
    /// The buckets that it is counted on.
    pub(crate) buckets: Vec<Bucket>,
    /// How many open invitations an address may have.
    pub(crate) most: u32,
    /// The host of the sender's homeserver, whose users share a part of those; `None` if they share none.
    pub(crate) homeserver: Option<String>,
}

impl fmt::Debug for NewInvite {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "NewInvite({:?})", self.invite)
    }
}

/// What became of a new invitation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum InviteStored {
    /// It is kept, and its mail is queued.
    Yes,
    /// The address is a user's, who can be invited by their name.
    Associated(String),
    /// A limit holds: nothing was changed. How long to wait.
    Limited(Duration),
    /// The address has as many open invitations as it may have: of this sender, of their homeserver, or at all.
    TooMany,
}

/// An invitation as an operator sees it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct InviteEntry {
    /// Its name, by which it is withdrawn: hexadecimal.
    pub id: String,
    /// Whom it invites, masked.
    pub to: String,
    /// Where to.
    pub room_id: String,
    /// Who invites.
    pub sender: String,
    /// `open`, `used`, `withdrawn` or `expired`.
    pub state: &'static str,
    /// When it was made, in milliseconds.
    pub created_at: Timestamp,
    /// Until when it can be used, in milliseconds.
    pub expires_at: Timestamp,
}

/// Invitations (Identity Service API, "Invitation storage").
#[async_trait]
pub trait Invites: fmt::Debug + Send + Sync {
    /// Keeps an invitation, counts its buckets and queues its mail, unless the address is somebody's; in one durable
    /// transaction. Of an address's open invitations a few may be one sender's, a few more those of one homeserver's users:
    /// also of parallel callers none gets more.
    async fn add_invite(&self, invite: NewInvite) -> StoreResult<InviteStored>;

    /// An invitation that can be used at `now`.
    async fn invite(&self, id: [u8; 16], now: Timestamp) -> StoreResult<Option<Invite>>;

    /// Whether it is the public half of the ephemeral key of an invitation that can be used at `now`.
    async fn is_ephemeral_key(&self, public_key: PublicKey, now: Timestamp) -> StoreResult<bool>;

    /// The newest `most` invitations, newest first.
    async fn list_invites(&self, most: u32, now: Timestamp) -> StoreResult<Vec<InviteEntry>>;

    /// Withdraws an open invitation, and its mail if that has not gone; `false` if there is none.
    async fn withdraw_invite(&self, id: [u8; 16], now: Timestamp) -> StoreResult<bool>;
}
