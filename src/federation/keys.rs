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
/// How often a homeserver is asked for a key that it did not have.
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
    /// They are these; and when they were last asked for.
    Keys(Arc<Keys>, Timestamp),
    /// They could not be fetched.
    Failed(Error),
}

impl Federation {
    /// A homeserver's signing key of this name, from `GET /_matrix/key/v2/server`, kept as long as it is valid; `None` if the
    /// homeserver has no such key that is valid now (Server-Server API, "Retrieving server keys").
    ///
    /// # Errors
    /// [`Error::FederationFailed`], [`Error::FederationTimeout`], [`Error::Unavailable`].
    pub async fn public_key(&self, server: &ServerName, key_id: &str) -> Result<Option<PublicKey>> {
        if !is_usable(key_id) {
            return Ok(None);
        }
        if let Some(known) = self.known_key(server, key_id) {
            return known;
        }
        let _turn = self.memory.fetches.wait(server.as_str()).await;
        // Whoever had the turn before may have brought it.
        if let Some(known) = self.known_key(server, key_id) {
            return known;
        }
        let keys = self.fetch_keys(server).await?;
        Ok(keys.get(key_id).copied())
    }

    /// Whether the homeserver need not be asked for this key.
    pub(crate) fn knows_key(&self, server: &ServerName, key_id: &str) -> bool {
        is_usable(key_id) && matches!(self.known_key(server, key_id), Some(Ok(Some(_))))
    }

    /// The key as far as it is known; `None` if the homeserver has to be asked.
    fn known_key(&self, server: &ServerName, key_id: &str) -> Option<Result<Option<PublicKey>>> {
        let now = self.clock.now();
        match self.memory.keys.get(server, now)? {
            (Known::Failed(why), _) => Some(Err(why)),
            (Known::Keys(keys, asked_at), _) => match keys.get(key_id) {
                Some(key) => Some(Ok(Some(*key))),
                None => (now.since(asked_at) < REFETCH).then_some(Ok(None)),
            },
        }
    }

    async fn fetch_keys(&self, server: &ServerName) -> Result<Arc<Keys>> {
        let fetched = self.ask(server, Method::GET, PATH.to_owned(), None).await;
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
                let keys = Arc::new(keys);
                let kept = Known::Keys(Arc::clone(&keys), now);
                known.put(server.clone(), kept, until, now);
                Ok(keys)
            }
            Err(why) => {
                let (kept, until) = match known.get(server, now) {
                    // What was good before stays so: a stranger who names a key that is none must not do away with it.
                    Some((Known::Keys(keys, _), until)) => (Known::Keys(keys, now), until),
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
