//! A new password for the account that has a proved address (Client-Server API, "Password management").

use std::{sync::Arc, time::Duration};

use super::{AccountRules, LEASE, fallback::PageOf, uia::UiaSession};
use http::StatusCode;

use crate::{
    error::{Error, Result},
    homeserver::{Origin, PassedBack, PassedOn, Requester},
    password::NewPassword,
    secret::{ClientSecret, SessionId, Sid},
    session::{Purpose, Session},
    source::Source,
    store::{Claimed, Contact, Details, FinishedReset, NewClaim, Notice},
    threepid::{Medium, Threepid},
    validation::{Claim, ClaimRequest, Validate, View},
};

/// What sessions of user-interactive authentication, and digests, are made for.
pub(crate) const ENDPOINT: &str = "account/password";
/// How long the news of a changed password is worth something.
const NOTICE_LIFE: Duration = Duration::from_hours(24);
/// The most addresses that are told of one reset.
const MOST_TOLD: usize = 20;

/// A stage of user-interactive authentication, with the session that is to prove its address.
#[derive(Clone, Debug)]
pub(crate) struct Stage {
    pub(crate) medium: Medium,
    pub(crate) sid: Sid,
    pub(crate) client_secret: ClientSecret,
}

/// What a reset is to do.
#[derive(Clone, Debug)]
pub(crate) struct Wanted {
    pub(crate) new: NewPassword,
    pub(crate) logout_devices: bool,
}

/// What became of a request to reset a password.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reset {
    /// The password is set; by this request, or by the same one before.
    Done,
    /// The stage is not done. Why, is not told.
    NotYet,
}

/// What became of a new password that was typed into a link's page.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Finished {
    /// It is set.
    Now,
    /// This link had set one before, which counts.
    Before,
    /// The reset was handed to the app that asked for it; here nothing was done.
    HandedOver,
}

/// A reset between claim and take.
struct Claimant {
    op_id: String,
    /// The account that had the address when the reset was asked for.
    user_id: Option<String>,
    /// The address that was proved.
    threepid: Threepid,
    source: Source,
}

impl AccountRules {
    /// # Errors
    /// [`Error::Forbidden`] if the operator lets nobody change a password (`m.change_password`).
    pub(crate) fn check_password_change(&self) -> Result<()> {
        if self.settings.password_change {
            Ok(())
        } else {
            let why = "Passwords can not be changed here. Ask the people who run this server.";
            Err(Error::Forbidden(why.into()))
        }
    }

    /// Whether an address of a medium may open a reset.
    pub(crate) fn opens_resets(&self, medium: Medium) -> bool {
        let validates = &self.validation.settings.of(medium).validates;
        // Email is what a reset is asked for by: where it is off too, the stage is told and can not be done.
        medium == Medium::Email || validates.of(Purpose::Password) != Validate::Off
    }

    /// Resets the password if the stage is done; in a `session`, it is kept then and need not be shown again. The many requests that ask in vain cost one look at the session.
    ///
    /// # Errors
    /// Those of `wanted` once the stage is done; [`Error::Forbidden`] if nobody can set passwords and
    /// [`Error::WeakPassword`], which spend nothing; [`Error::AccountGone`], which ends the session;
    /// [`Error::ProofHeld`]; what the homeserver, or an identity server, says.
    pub(crate) async fn reset(
        self: &Arc<Self>,
        stage: &Stage,
        session: Option<&UiaSession>,
        wanted: Result<Wanted>,
        source: Source,
    ) -> Result<Reset> {
        // What a request without a password would be known by, nobody looks for.
        let digest = wanted.as_ref().map_or([0; 32], |wanted| {
            self.digest_of_reset(stage.medium.as_str(), stage.sid.as_str(), wanted)
        });
        let (sid, secret) = (&stage.sid, &stage.client_secret);
        let shown = self
            .validation
            .proof_for(sid, secret, Purpose::Password, None, &digest);
        let wanted = match shown.await {
            Ok(proof) if proof.threepid.medium() == stage.medium => {
                if let Some(session) = session {
                    let address = proof.threepid.address();
                    self.keep_stage(&PageOf::reset(session), stage, address)
                        .await?;
                }
                wanted?
            }
            Err(error) if !is_not_yet(&error) => return Err(error),
            _ => return Ok(Reset::NotYet),
        };
        self.check_wanted(&wanted).await?;
        let (this, stage) = (Arc::clone(self), stage.clone());
        self.to_the_end(async move { this.reset_once(&stage, digest, &wanted, source).await })
            .await
    }

    /// Claims the proof, sets the password, and takes the proof. A repetition of the request waits for it.
    async fn reset_once(
        &self,
        stage: &Stage,
        digest: [u8; 32],
        wanted: &Wanted,
        source: Source,
    ) -> Result<Reset> {
        let (sid, secret) = (&stage.sid, &stage.client_secret);
        let op_id = format!("password {sid}");
        let _turn = self.turns.wait(&op_id).await;
        let claim = ClaimRequest {
            purpose: Purpose::Password,
            user_id: None,
            op_id: op_id.clone(),
            digest,
            lease: LEASE,
        };
        let proof = match self.validation.claim(sid, secret, claim).await {
            Ok(Claim::Yours(proof)) => proof,
            Ok(Claim::DoneBefore) => return Ok(Reset::Done),
            Err(error) if is_not_yet(&error) => return Ok(Reset::NotYet),
            Err(error) => return Err(error),
        };
        let claimant = Claimant {
            op_id,
            user_id: proof.user_id,
            threepid: proof.threepid,
            source,
        };
        let act = self.set_password(&claimant, wanted);
        self.settle(&claimant.op_id, act).await?;
        Ok(Reset::Done)
    }

    /// Passes a change of a password on, which the homeserver does itself. Resets that were asked for before end with it.
    ///
    /// # Errors
    /// What [`Accounts::pass_on`](crate::homeserver::Accounts::pass_on) says.
    pub(crate) async fn change(&self, request: PassedOn, origin: &Origin) -> Result<PassedBack> {
        let access_token = request.access_token.clone();
        let answer = self.accounts.pass_on(request, origin).await?;
        if let (StatusCode::OK, Some(access_token)) = (answer.status, access_token) {
            // The token that a password was changed with goes on being good.
            match self.accounts.whoami(&access_token, origin).await {
                Ok(Requester { user_id, .. }) => {
                    self.validation.store.end_resets(&user_id).await?;
                }
                Err(error) => {
                    let cause = error.cause();
                    tracing::warn!(cause, "a password was changed; resets of its account go on");
                }
            }
        }
        Ok(answer)
    }

    /// Whether a link's page can set the new password itself.
    pub(crate) fn finishes(&self, session: &Session) -> bool {
        let settings = &self.settings;
        let is_on = settings.password_change && settings.finish_password_reset;
        let is_reset = session.purpose == Purpose::Password && session.user_id.is_some();
        is_on && is_reset && session.proxied.is_none() && self.accounts.sets_passwords()
    }

    /// Sets the password that was typed into a link's page. The session is never validated on the way: whoever waits for
    /// it in an app waits in vain.
    ///
    /// # Errors
    /// Those of `wanted` and [`Error::WeakPassword`], after which all is as before; else as [`AccountRules::reset`].
    pub(crate) async fn finish(
        self: &Arc<Self>,
        view: &View,
        wanted: Wanted,
        source: Source,
    ) -> Result<Finished> {
        self.check_wanted(&wanted).await?;
        let (this, sid) = (Arc::clone(self), view.session.sid);
        self.to_the_end(async move { this.finish_once(sid, &wanted, source).await })
            .await
    }

    /// Claims the session for its page, sets the password, and takes it.
    async fn finish_once(
        &self,
        sid: SessionId,
        wanted: &Wanted,
        source: Source,
    ) -> Result<Finished> {
        let op_id = format!("page {sid}");
        let _turn = self.turns.wait(&op_id).await;
        let session = match self.claim_by_page(sid, &op_id, wanted).await? {
            Claimed::Yes(session) => session,
            Claimed::Taken { .. } => return Ok(Finished::Before),
            Claimed::Held => return Err(Error::ProofHeld),
            Claimed::No(Some(session)) if session.validated_at.is_some() => {
                return Ok(Finished::HandedOver);
            }
            Claimed::No(_) => return Err(Error::SessionExpired),
        };
        let claimant = Claimant {
            op_id,
            user_id: session.user_id,
            threepid: session.threepid,
            source,
        };
        let act = self.set_password(&claimant, wanted);
        self.settle(&claimant.op_id, act).await?;
        Ok(Finished::Now)
    }

    async fn claim_by_page(&self, sid: SessionId, op_id: &str, wanted: &Wanted) -> Result<Claimed> {
        let claim = NewClaim {
            sid,
            op_id: op_id.to_owned(),
            digest: self.digest_of_reset("link", &sid.to_string(), wanted),
            lease: LEASE,
            now: self.validation.clock.now(),
        };
        Ok(self.validation.store.claim_by_page(claim).await?)
    }

    async fn check_wanted(&self, wanted: &Wanted) -> Result<()> {
        if !self.accounts.sets_passwords() {
            let why = "This server can not set passwords. Use the homeserver's own settings.";
            return Err(Error::Forbidden(why.into()));
        }
        let policy = self.accounts.password_policy().await?;
        policy.check(&wanted.new)
    }

    /// Two sessions with one password have two digests: a stolen database does not tell who has the same.
    fn digest_of_reset(&self, kind: &str, sid: &str, wanted: &Wanted) -> [u8; 32] {
        let logout_devices = if wanted.logout_devices { "1" } else { "0" };
        self.digest(&[ENDPOINT, kind, sid, wanted.new.reveal(), logout_devices])
    }

    /// What stands between claim and take.
    async fn set_password(&self, claimant: &Claimant, wanted: &Wanted) -> Result<()> {
        let set = self.set_for_owner(claimant, wanted).await;
        if let Err(Error::AccountGone) = set {
            self.validation.store.end(&claimant.op_id).await?;
        }
        let user_id = set?;
        let now = self.validation.clock.now();
        let told = self.whom_to_tell(&user_id, &claimant.threepid).await;
        let media: Vec<Medium> = told.iter().map(Threepid::medium).collect();
        let notice = |to| Notice {
            to,
            details: Details {
                network: claimant.source.network(),
                user_id: Some(user_id.clone()),
            },
            useless_at: now + NOTICE_LIFE,
        };
        let finished = FinishedReset {
            op_id: claimant.op_id.clone(),
            user_id: user_id.clone(),
            notices: told.into_iter().map(notice).collect(),
            now,
        };
        if !self.validation.store.finish_reset(finished).await? {
            tracing::warn!("a password was set, and its proof is no longer there");
        }
        for medium in media {
            self.validation.wakes.of(medium).notify_one();
        }
        Ok(())
    }

    /// Sets the password of whoever has the address, if that is still who it was asked for.
    async fn set_for_owner(&self, claimant: &Claimant, wanted: &Wanted) -> Result<String> {
        let owner = self.validation.directory.owner(&claimant.threepid).await?;
        let user_id = owner.filter(|owner| claimant.user_id.as_ref() == Some(owner));
        let user_id = user_id.ok_or(Error::AccountGone)?;
        let set = self
            .accounts
            .reset_password(&user_id, &wanted.new, wanted.logout_devices);
        set.await?;
        Ok(user_id)
    }

    /// The addresses of an account; if they can not be asked for, the one that was proved.
    async fn whom_to_tell(&self, user_id: &str, proved: &Threepid) -> Vec<Threepid> {
        let listed = self.validation.directory.list(user_id).await;
        let contacts = listed.unwrap_or_else(|error| {
            let cause = error.cause();
            tracing::warn!(cause, "an account's addresses could not be asked for");
            Vec::new()
        });
        addresses_to_tell(proved, &contacts)
    }
}

/// Whether a stage that met this is one that is not done.
pub(super) fn is_not_yet(error: &Error) -> bool {
    matches!(
        error,
        Error::NoValidSession
            | Error::SessionNotValidated
            | Error::SessionExpired
            | Error::ProofSpent
    )
}

/// The email addresses of an account; if it has none, the one number that was proved, since each text message costs
/// money. The one that was proved comes first.
fn addresses_to_tell(proved: &Threepid, contacts: &[Contact]) -> Vec<Threepid> {
    let mut all = vec![proved.clone()];
    for contact in contacts {
        let medium = Medium::parse(&contact.medium);
        let threepid = medium.map(|medium| Threepid::stored(medium, contact.address.clone()));
        all.extend(threepid.filter(|threepid| !all.contains(threepid)));
    }
    let is_email = |threepid: &Threepid| threepid.medium() == Medium::Email;
    if all.iter().any(is_email) {
        all.retain(is_email);
        all.truncate(MOST_TOLD);
    } else {
        all.truncate(1);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Timestamp;

    fn contact(medium: &str, address: &str) -> Contact {
        Contact {
            user_id: "@a:example.org".to_owned(),
            medium: medium.to_owned(),
            address: address.to_owned(),
            validated_at: None,
            added_at: Timestamp(0),
        }
    }

    fn told(proved: &Threepid, contacts: &[Contact]) -> Vec<String> {
        let told = addresses_to_tell(proved, contacts);
        told.iter().map(|told| told.address().to_owned()).collect()
    }

    #[test]
    fn mails_are_told_and_numbers_only_where_there_is_no_mail() {
        let email = Threepid::email("a@example.org").unwrap();
        let number = Threepid::msisdn("GB", "07700900001").unwrap();
        let other = contact("email", "b@example.org");
        let phone = contact("msisdn", "447700900002");
        let strange = contact("pigeon", "coop");

        let all = [contact("email", "a@example.org"), other, phone.clone()];
        assert_eq!(told(&email, &all), ["a@example.org", "b@example.org"]);
        assert_eq!(told(&number, &all), ["a@example.org", "b@example.org"]);
        assert_eq!(told(&number, &[phone, strange]), ["447700900001"]);
        assert_eq!(told(&email, &[]), ["a@example.org"]);
    }

    #[test]
    fn no_account_gets_more_messages_than_a_few() {
        let email = Threepid::email("a@example.org").unwrap();
        let many: Vec<Contact> = (0..100)
            .map(|number| contact("email", &format!("{number}@example.org")))
            .collect();
        assert_eq!(told(&email, &many).len(), MOST_TOLD);
    }
}
