//! Invitations in SQLite.

use async_trait::async_trait;
use rusqlite::{Connection, OptionalExtension, Row, named_params, params};

use super::{
    SqliteStore,
    buckets::count_all,
    outbox::{MESSAGE, message},
    row,
    writer::{Size, Verdict},
};
use crate::{
    clock::Timestamp,
    keys::hex,
    session::MessageKind,
    signing::PublicKey,
    store::{
        About, Details, Invite, InviteEntry, InviteStored, Invites, NewInvite, Queued, SealedMail,
        StoreResult,
    },
    threepid::Threepid,
    user_id::host_of,
};

/// How many open invitations of one address are one sender's: enough for the rooms that a friend would tell of.
const MOST_PER_SENDER: usize = 10;
/// How many are of the users of one homeserver, who may all be one person.
const MOST_PER_HOMESERVER: usize = 20;
/// Why the mail of a withdrawn invitation is dropped.
const WITHDRAWN: &str = "the invitation was withdrawn";
/// What an invitation must be like to be open, unless it has run out.
pub(super) const OPEN: &str = "used_at IS NULL AND withdrawn_at IS NULL";

#[async_trait]
impl Invites for SqliteStore {
    async fn add_invite(&self, invite: NewInvite) -> StoreResult<InviteStored> {
        self.writer
            .run(Size::Many, move |connection| add(connection, &invite))
            .await
    }

    async fn invite(&self, id: [u8; 16], now: Timestamp) -> StoreResult<Option<Invite>> {
        self.readers.ask(move |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT {INVITE} FROM invite WHERE id = ?1 AND {OPEN} AND expires_at > ?2"
                ))?
                .query_row(params![id, now.0], invite)
                .optional()
        })
    }

    async fn is_ephemeral_key(&self, public_key: PublicKey, now: Timestamp) -> StoreResult<bool> {
        self.readers.ask(move |connection| {
            connection
                .prepare_cached(&format!(
                    "SELECT EXISTS (SELECT 1 FROM invite WHERE public_key = ?1 AND {OPEN} AND expires_at > ?2)"
                ))?
                .query_row(params![public_key, now.0], |row| row.get(0))
        })
    }

    async fn list_invites(&self, most: u32, now: Timestamp) -> StoreResult<Vec<InviteEntry>> {
        self.readers
            .ask_aside(move |connection| {
                connection
                    .prepare_cached(
                        "SELECT id, medium, address, room_id, sender, created_at, expires_at, used_at, withdrawn_at
                         FROM invite ORDER BY created_at DESC, id LIMIT ?1",
                    )?
                    .query_map([most], |row| entry(row, now))?
                    .collect()
            })
            .await
    }

    async fn withdraw_invite(&self, id: [u8; 16], now: Timestamp) -> StoreResult<bool> {
        self.write_one(move |connection| withdraw(connection, id, now))
            .await
    }
}

fn withdraw(connection: &Connection, id: [u8; 16], now: Timestamp) -> rusqlite::Result<bool> {
    let withdrawn = connection
        .prepare_cached(&format!(
            "UPDATE invite SET withdrawn_at = ?2 WHERE id = ?1 AND {OPEN} AND expires_at > ?2"
        ))?
        .execute(params![id, now.0])?;
    if withdrawn == 0 {
        return Ok(false);
    }
    // A worker that holds it has sent it, or gives it back: then it is dropped when it is leased again.
    connection
        .prepare_cached(
            "UPDATE outbox SET finished_at = ?2, state = 'dropped', outcome = ?3, sealed = NULL
             WHERE sid = ?1 AND sealed IS NOT NULL AND state = 'queued'",
        )?
        .execute(params![id, now.0, WITHDRAWN])?;
    Ok(true)
}

/// The whole transaction of an invitation.
fn add(connection: &Connection, new: &NewInvite) -> rusqlite::Result<Verdict<InviteStored>> {
    let threepid = &new.invite.threepid;
    let owner: Option<String> = connection
        .prepare_cached("SELECT user_id FROM association WHERE medium = ?1 AND address = ?2")?
        .query_row(
            params![threepid.medium().as_str(), threepid.address()],
            |row| row.get(0),
        )
        .optional()?;
    if let Some(user_id) = owner {
        return Ok(Verdict::Undo(InviteStored::Associated(user_id)));
    }
    if let Err(wait) = count_all(connection, &new.buckets, new.invite.created_at)? {
        return Ok(Verdict::Undo(InviteStored::Limited(wait)));
    }
    if !has_room(connection, new)? {
        return Ok(Verdict::Undo(InviteStored::TooMany));
    }
    insert(connection, &new.invite)?;
    queue_mail(connection, new)?;
    Ok(Verdict::Keep(InviteStored::Yes))
}

/// Whether its address may have one more open invitation: of its sender, of their homeserver, and at all. No other comes
/// between this and the insertion: one transaction writes at a time.
fn has_room(connection: &Connection, new: &NewInvite) -> rusqlite::Result<bool> {
    let (invite, threepid) = (&new.invite, &new.invite.threepid);
    let senders: Vec<String> = connection
        .prepare_cached(&format!(
            "SELECT sender FROM invite
             WHERE medium = ?1 AND address = ?2 AND {OPEN} AND expires_at > ?3"
        ))?
        .query_map(
            params![
                threepid.medium().as_str(),
                threepid.address(),
                invite.created_at.0
            ],
            |row| row.get(0),
        )?
        .collect::<Result<_, _>>()?;
    let of_sender = senders.iter().filter(|sender| **sender == invite.sender);
    let of_homeserver = senders
        .iter()
        .filter(|sender| new.homeserver.is_some() && host_of(sender) == new.homeserver);
    Ok(of_sender.count() < MOST_PER_SENDER
        && of_homeserver.count() < MOST_PER_HOMESERVER
        && senders.len() < usize::try_from(new.most).unwrap_or(usize::MAX))
}

fn insert(connection: &Connection, invite: &Invite) -> rusqlite::Result<()> {
    connection
        .prepare_cached(&format!(
            "INSERT INTO invite ({INVITE})
             VALUES (:id, :key_id, :token, :medium, :address, :room_id, :sender, :public_key, :now, :expires_at)"
        ))?
        .execute(named_params! {
            ":id": invite.id, ":key_id": invite.key_id, ":token": invite.token,
            ":medium": invite.threepid.medium().as_str(), ":address": invite.threepid.address(),
            ":room_id": invite.room_id, ":sender": invite.sender, ":public_key": invite.public_key,
            ":now": invite.created_at.0, ":expires_at": invite.expires_at.0,
        })
        .map(drop)
}

fn queue_mail(connection: &Connection, new: &NewInvite) -> rusqlite::Result<()> {
    let invite = &new.invite;
    let details = serde_json::to_string(&Details::default())
        .map_err(|error| rusqlite::Error::ToSqlConversionFailure(Box::new(error)))?;
    connection
        .prepare_cached(
            "INSERT INTO outbox (sid, send_attempt, kind, details, queued_at, useless_at, due_at, medium, address,
                                 key_id, sealed)
             VALUES (:id, 0, :kind, :details, :now, :useless_at, :now, :medium, :address, :key_id, :sealed)",
        )?
        .execute(named_params! {
            ":id": invite.id, ":kind": MessageKind::Invite.as_str(), ":details": details,
            ":now": invite.created_at.0, ":useless_at": new.mail_useless_at.0,
            ":medium": invite.threepid.medium().as_str(), ":address": invite.threepid.address(),
            ":key_id": invite.key_id, ":sealed": new.mail,
        })?;
    Ok(())
}

/// A message about an invitation, or why nobody needs it any more; `None` if there is none.
pub(super) fn queued(
    connection: &Connection,
    id: i64,
    now: Timestamp,
) -> rusqlite::Result<Option<Result<Queued, &'static str>>> {
    connection
        .prepare_cached(&format!(
            "SELECT invite.id, outbox.key_id, outbox.sealed, invite.address, invite.used_at, invite.withdrawn_at,
                    invite.expires_at, {MESSAGE}
             FROM outbox JOIN invite ON invite.id = outbox.sid WHERE outbox.id = ?1"
        ))?
        .query_row([id], |row| {
            const WIDTH: usize = 7;
            let Some(sealed) = row.get(2)? else {
                return Ok(Err("nothing of it is kept"));
            };
            let about = About::Invite(SealedMail {
                invite: row.get(0)?,
                key_id: row.get(1)?,
                sealed,
            });
            let to = Threepid::stored(row::medium(row, WIDTH + 7)?, row.get(3)?);
            let queued = message(row, WIDTH, about, to)?;
            let ends = (row.get(4)?, row.get(5)?);
            Ok(match state(ends, Timestamp(row.get(6)?), now) {
                State::Open => Ok(queued),
                State::Used => Err("the invitation was used"),
                State::Withdrawn => Err(WITHDRAWN),
                State::Expired => Err("the invitation has run out"),
            })
        })
        .optional()
}

/// The columns that [`invite`] reads, in their order.
pub(super) const INVITE: &str =
    "id, key_id, token, medium, address, room_id, sender, public_key, created_at, expires_at";

/// Reads the columns of [`INVITE`].
pub(super) fn invite(row: &Row<'_>) -> rusqlite::Result<Invite> {
    Ok(Invite {
        id: row.get(0)?,
        key_id: row.get(1)?,
        token: row.get(2)?,
        threepid: Threepid::stored(row::medium(row, 3)?, row.get(4)?),
        room_id: row.get(5)?,
        sender: row.get(6)?,
        public_key: row.get(7)?,
        created_at: Timestamp(row.get(8)?),
        expires_at: Timestamp(row.get(9)?),
    })
}

fn entry(row: &Row<'_>, now: Timestamp) -> rusqlite::Result<InviteEntry> {
    let id: [u8; 16] = row.get(0)?;
    let expires_at = Timestamp(row.get(6)?);
    let ends = (row.get::<_, Option<i64>>(7)?, row.get::<_, Option<i64>>(8)?);
    Ok(InviteEntry {
        id: hex(&id),
        to: Threepid::stored(row::medium(row, 1)?, row.get(2)?).masked(),
        room_id: row.get(3)?,
        sender: row.get(4)?,
        state: state(ends, expires_at, now).as_str(),
        created_at: Timestamp(row.get(5)?),
        expires_at,
    })
}

/// What has become of an invitation.
#[derive(Clone, Copy)]
enum State {
    Open,
    Used,
    Withdrawn,
    Expired,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Used => "used",
            Self::Withdrawn => "withdrawn",
            Self::Expired => "expired",
        }
    }
}

/// What has become of one, by when it was used and when it was withdrawn.
fn state(
    (used_at, withdrawn_at): (Option<i64>, Option<i64>),
    expires_at: Timestamp,
    now: Timestamp,
) -> State {
    if used_at.is_some() {
        State::Used
    } else if withdrawn_at.is_some() {
        State::Withdrawn
    } else if expires_at <= now {
        State::Expired
    } else {
        State::Open
    }
}
