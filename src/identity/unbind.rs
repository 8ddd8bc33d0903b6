//! The end of an association, and who may ask for it.

use std::fmt;

use serde_json::{Map, Value};

use super::IdentityRules;
use crate::{
    error::{Error, Result},
    secret::{ClientSecret, Sid},
    server_name::ServerName,
    signing::{self, PublicKey},
    source::Source,
    store::{Dissociated, Proving},
    threepid::Threepid,
    x_matrix::XMatrix,
};

/// How many signatures of a request are looked at: a homeserver may sign with each key that it has, and each key may have
/// to be asked for.
const MOST_SIGNATURES: usize = 4;

/// What a homeserver signed, and its signatures.
pub(crate) struct SignedRequest {
    pub(crate) signatures: Vec<XMatrix>,
    pub(crate) method: String,
    /// Path and query.
    pub(crate) uri: String,
    /// The body.
    pub(crate) content: Map<String, Value>,
}

/// The same as signatures are checked: method, path and query, and the body in its canonical form.
type Signed<'a> = (&'a str, &'a str, &'a str);

/// What shows that an association may be ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Shown {
    /// A signature by a key that we knew: nobody had to be asked.
    KnownKey,
    /// A signature by a key that was asked for.
    FetchedKey,
    /// A session that proves the address.
    Session(Proving),
}

/// A request to end an association.
pub(crate) struct Unbinding {
    pub(crate) threepid: Threepid,
    pub(crate) user_id: String,
    /// The user's homeserver.
    pub(crate) server: ServerName,
    /// The session that proves the address, if it comes with one.
    pub(crate) session: Option<(Sid, ClientSecret)>,
    pub(crate) request: SignedRequest,
}

impl fmt::Debug for Unbinding {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "Unbinding({:?} from {})", self.threepid, self.user_id)
    }
}

impl IdentityRules {
    /// Ends an association, when either the user's homeserver asks for it or whoever proved the address (Identity Service
    /// API, `POST 3pid/unbind`). If the address is not this user's, nothing changes, and that is no error.
    ///
    /// # Errors
    /// [`Error::Limited`]; [`Error::Forbidden`] for a proof that does not hold, [`Error::OtherDestination`] for a request to
    /// another server; [`Error::SessionNotValidated`], [`Error::SessionExpired`]; [`Error::FederationFailed`] and
    /// [`Error::FederationTimeout`] if the homeserver does not tell its keys.
    pub(crate) async fn unbind(&self, unbinding: &Unbinding, source: Source) -> Result<()> {
        let now = self.validation.clock.now();
        // Before any key is asked for: strangers choose whom we ask.
        let limiter = &self.validation.limiter;
        limiter.count_submission(source, now)?;
        let shown = self.authorize(unbinding, source).await?;
        let by = match shown {
            Shown::Session(proof) => Some(proof),
            // What a homeserver has ended, the proof of before does not make anew.
            Shown::KnownKey | Shown::FetchedKey => None,
        };
        let store = &self.validation.store;
        let ending = store.dissociate(&unbinding.threepid, &unbinding.user_id, by, now);
        match ending.await? {
            // A homeserver may unbind all addresses of many users at a time.
            Dissociated::Yes if shown == Shown::KnownKey => limiter.give_submission_back(source),
            Dissociated::Yes | Dissociated::NotTheirs => {}
            Dissociated::NotProved => return Err(not_proved()),
        }
        Ok(())
    }

    async fn authorize(&self, unbinding: &Unbinding, source: Source) -> Result<Shown> {
        let refused = match self.check_signatures(unbinding, source).await {
            Ok(shown) => return Ok(shown),
            Err(refused) => refused,
        };
        let Some((sid, client_secret)) = &unbinding.session else {
            return Err(refused);
        };
        let proving = self.check_session(sid, client_secret, &unbinding.threepid);
        let proof = if unbinding.request.signatures.is_empty() {
            proving.await?
        } else {
            // To a homeserver some refusals of a session would say that unbinding is not supported.
            proving.await.map_err(|_| refused)?
        };
        Ok(Shown::Session(proof))
    }

    /// That the user's homeserver signed the request.
    ///
    /// The signature holds for these alone: this user, this address, this endpoint, this server. There is no nonce in it,
    /// so whoever saw the request (the homeserver, or we) can repeat it: that again ends the same user's association with the
    /// same address, should there be one by then, and does nothing else.
    async fn check_signatures(&self, unbinding: &Unbinding, source: Source) -> Result<Shown> {
        let request = &unbinding.request;
        if request.signatures.is_empty() {
            return Err(forbidden(
                "This needs the signature of the user's homeserver, or a session that proves the address.",
            ));
        }
        let is_for_us = |signature: &&XMatrix| {
            let named = signature.destination.as_deref();
            named.is_none_or(|named| self.settings.is_ours(named))
        };
        let mut for_us = request.signatures.iter().filter(is_for_us).peekable();
        if for_us.peek().is_none() {
            return Err(Error::OtherDestination);
        }
        let of_server = for_us.filter(|signature| signature.origin == unbinding.server);
        let mut refused =
            forbidden("The request is not signed by the homeserver of the user that mxid names.");
        let Ok(content) = signing::canonical(request.content.clone()) else {
            return Err(refused);
        };
        let signed = (
            request.method.as_str(),
            request.uri.as_str(),
            content.as_str(),
        );
        for signature in of_server.take(MOST_SIGNATURES) {
            match self.has_signed(signature, signed, source).await {
                Ok(Some(shown)) => return Ok(shown),
                Ok(None) => {}
                Err(error) => refused = error,
            }
        }
        Err(refused)
    }

    /// Whether the signature holds, and with which key. The homeserver is asked if the key is not known, or if it may have
    /// another by now.
    async fn has_signed(
        &self,
        signature: &XMatrix,
        (method, uri, content): Signed<'_>,
        source: Source,
    ) -> Result<Option<Shown>> {
        let ours = std::iter::once(&self.settings.name).chain(&self.settings.aliases);
        // As the homeserver wrote it, which may be with the port that goes without saying.
        let as_written = signature.destination.clone();
        let names: Vec<_> = as_written
            .into_iter()
            .chain(ours.map(ToString::to_string))
            .collect();
        let holds = |key: &PublicKey| {
            let mut names = names.iter();
            names.any(|name| signature.verify(key, (method, uri), content, name))
        };
        let (federation, limiter) = (&self.federation, &self.validation.limiter);
        let (server, key_id) = (&signature.origin, signature.key.as_str());
        let known = federation.known_public_key(server, key_id);
        if known.as_ref().is_some_and(&holds) {
            return Ok(Some(Shown::KnownKey));
        }
        let begin = || limiter.begin_asking_for_keys(source);
        let asking = federation.other_public_key(server, key_id, known.as_ref(), begin);
        let fetched = asking.await?;
        Ok(fetched.filter(&holds).map(|_| Shown::FetchedKey))
    }

    /// That the pair proves the address. Whoever proves it may end any user's association with it, whoever asked for the
    /// proof; unless that was made by a newer one.
    async fn check_session(
        &self,
        sid: &Sid,
        client_secret: &ClientSecret,
        threepid: &Threepid,
    ) -> Result<Proving> {
        let proved = self.validation.identity_session(sid, client_secret, None);
        match proved.await {
            Ok((sid, proof)) if proof.threepid == *threepid => Ok(Proving {
                sid,
                validated_at: proof.validated_at,
            }),
            Ok(_) | Err(Error::NoValidSession) => Err(not_proved()),
            Err(error) => Err(error),
        }
    }
}

fn not_proved() -> Error {
    forbidden("There is no session that proves this address.")
}

fn forbidden(why: &'static str) -> Error {
    Error::Forbidden(why.into())
}
