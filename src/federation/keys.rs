//! The keys that homeservers sign with (Server-Server API, "Retrieving server keys").

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http::{Method, StatusCode};
use serde_json::{Map, Value};

use super::{Federation, nonsense};
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    outbound::Reply,
    server_name::ServerName,
    signing::{self, PublicKey},
};

const PATH: &str = "/_matrix/key/v2/server";
/// What the names of the keys begin with that we can check.
const ALGORITHM: &str = "ed25519:";
/// How long keys are kept, however long they are valid.
const LONGEST_LIFETIME: Duration = Duration::from_hours(7 * 24);
/// How long a homeserver is not asked again that did not have the key which was wanted.
const REFETCH: Duration = Duration::from_mins(1);
/// How long nobody is asked again who gave no keys: any stranger can make us ask.
const FAILURE_LIFETIME: Duration = Duration::from_secs(30);
/// How many keys a homeserver may have, each of which costs a check.
const MOST_KEYS: usize = 16;
/// The longest name of a key, in bytes: longer ones are no keys.
const LONGEST_ID: usize = 255;

type Keys = BTreeMap<String, PublicKey>;

/// What is known of a homeserver's keys.
#[derive(Clone, Debug)]
pub(super) enum Known {
    /// They are these.
    Keys {
        keys: Arc<Keys>,
        /// When the homeserver was last asked in vain: it had no such key as was wanted, or did not answer.
        missed_at: Option<Timestamp>,
    },
    /// They could not be fetched.
    Failed(Error),
}

/// Which key is wanted.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    id: &'a str,
    /// What is known under this name already, and is not the one.
    other_than: Option<&'a PublicKey>,
}

impl Wanted<'_> {
    fn find(self, keys: &Keys) -> Option<PublicKey> {
        let found = keys.get(self.id);
        found.filter(|key| Some(*key) != self.other_than).copied()
    }
}

impl Federation {
    /// A homeserver's signing key of this name, from `GET /_matrix/key/v2/server`, kept as long as it is valid; `None` if the
    /// homeserver has no such key that is valid now (Server-Server API, "Retrieving server keys").
    ///
    /// # Errors
    /// [`Error::FederationFailed`], [`Error::FederationTimeout`], [`Error::Unavailable`].
    pub async fn public_key(&self, server: &ServerName, key_id: &str) -> Result<Option<PublicKey>> {
        self.other_public_key(server, key_id, None, || Ok(())).await
    }

    /// The same for a key which is not `other_than`, that we know by this name: a homeserver that was set up anew may have
    /// given it to another. Asked for what it does not have, a homeserver is not asked for more for a while.
    ///
    /// `begin` gives leave to ask the homeserver, and is not called if nobody has to be asked.
    ///
    /// # Errors
    /// The same, and those of `begin`.
    pub(crate) async fn other_public_key<T>(
        &self,
        server: &ServerName,
        key_id: &str,
        other_than: Option<&PublicKey>,
        begin: impl FnOnce() -> Result<T>,
    ) -> Result<Option<PublicKey>> {
        if !is_usable(key_id) {
            return Ok(None);
        }
        let wanted = Wanted {
            id: key_id,
            other_than,
        };
        if let Some(known) = self.known(server, wanted) {
            return known;
        }
        let _turn = self.memory.fetches.wait(server.as_str()).await;
        // Whoever had the turn before may have brought it.
        if let Some(known) = self.known(server, wanted) {
            return known;
        }
        let _begun = begin()?;
        self.fetch_key(server, wanted).await
    }

    /// The key of this name for which the homeserver need not be asked.
    pub(crate) fn known_public_key(&self, server: &ServerName, key_id: &str) -> Option<PublicKey> {
        let wanted = Wanted {
            id: key_id,
            other_than: None,
        };
        self.known(server, wanted)?.ok()?
    }

    /// The key as far as it is known; `None` if the homeserver has to be asked.
    fn known(&self, server: &ServerName, wanted: Wanted<'_>) -> Option<Result<Option<PublicKey>>> {
        let now = self.clock.now();
        match self.memory.keys.get(server, now)? {
            (Known::Failed(why), _) => Some(Err(why)),
            (Known::Keys { keys, missed_at }, _) => {
                let found = wanted.find(&keys);
                let was_just_missed = missed_at.is_some_and(|at| now.since(at) < REFETCH);
                (found.is_some() || was_just_missed).then_some(Ok(found))
            }
        }
    }

    async fn fetch_key(
        &self,
        server: &ServerName,
        wanted: Wanted<'_>,
    ) -> Result<Option<PublicKey>> {
        let signer = self.for_signers();
        let fetched = signer.ask(server, Method::GET, PATH.to_owned(), None).await;
        let now = self.clock.now();
        let published = match fetched {
            Err(why @ Error::Unavailable(_)) => return Err(why),
            Err(why) => Err(why),
            Ok(reply) => read(server, &reply),
        };
        let known = &self.memory.keys;
        match published {
            Ok((keys, valid_until)) => {
                let (keys, until) = if valid_until > now {
                    (keys, valid_until.min(now + LONGEST_LIFETIME))
                } else {
                    (Keys::new(), now + REFETCH)
                };
                let found = wanted.find(&keys);
                let kept = Known::Keys {
                    keys: Arc::new(keys),
                    missed_at: found.is_none().then_some(now),
                };
                known.put(server.clone(), kept, until, now);
                Ok(found)
            }
            Err(why) => {
                let (kept, until) = match known.get(server, now) {
                    // What was good before stays so: a stranger who names a key that is none must not do away with it.
                    Some((Known::Keys { keys, .. }, until)) => {
                        let missed_at = Some(now);
                        (Known::Keys { keys, missed_at }, until)
                    }
                    _ => (Known::Failed(why.clone()), now + FAILURE_LIFETIME),
                };
                known.put(server.clone(), kept, until, now);
                Err(why)
            }
        }
    }
}

/// Whether it is the name of a key that we can check.
fn is_usable(key_id: &str) -> bool {
    key_id.starts_with(ALGORITHM) && key_id.len() <= LONGEST_ID
}

/// The keys in an answer that have signed it, and until when they are valid. Those in `old_verify_keys` are not valid now.
fn read(server: &ServerName, reply: &Reply) -> Result<(Keys, Timestamp)> {
    let nonsense = |what: &str| {
        nonsense(
            server,
            PATH,
            format_args!("{} {what}", reply.status.as_u16()),
        )
    };
    if reply.status != StatusCode::OK {
        return Err(nonsense("and no keys"));
    }
    let body: Map<String, Value> =
        serde_json::from_slice(&reply.body).map_err(|_| nonsense("and no JSON object"))?;
    if body.get("server_name").and_then(Value::as_str) != Some(server.as_str()) {
        return Err(nonsense("and the keys of another server"));
    }
    let valid_until = body.get("valid_until_ts").and_then(Value::as_i64);
    let valid_until = valid_until.ok_or_else(|| nonsense("and no valid_until_ts"))?;
    let published = body.get("verify_keys").and_then(Value::as_object);
    let published = published.ok_or_else(|| nonsense("and no verify_keys"))?;
    let usable = published.iter().filter(|(id, _)| is_usable(id));
    if usable.clone().count() > MOST_KEYS {
        return Err(nonsense("and too many keys"));
    }
    let signed =
        usable.filter_map(|(id, key)| Some((id.clone(), signed_key(server, &body, id, key)?)));
    Ok((signed.collect(), Timestamp(valid_until)))
}

/// The key, if it has signed the object that it stands in.
fn signed_key(
    server: &ServerName,
    object: &Map<String, Value>,
    id: &str,
    key: &Value,
) -> Option<PublicKey> {
    let key = signing::decode_key(key.get("key")?.as_str()?)?;
    let signatures = object.get("signatures")?.get(server.as_str())?;
    let signature = signing::decode(signatures.get(id)?.as_str()?)?;
    signing::verify(object, &*key, &signature).then_some(*key)
}
