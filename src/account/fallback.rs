//! A stage of a reset or of a registration, done on a page of ours for a client that does not know it (Client-Server API,
//! "Fallback").
//!
//! What the page has come to is kept sealed, under a name that only the client's session gives. The `client_secret` is
//! derived from that session and the address: it is kept nowhere.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::{Deserialize, Serialize};

use super::{
    AccountRules,
    password::{ENDPOINT, Stage},
    uia::{LIFE, UiaSession},
};
use crate::{
    error::{Error, Result},
    secret::{ClientSecret, Sid},
    session::{Api, Purpose},
    source::Source,
    store::NewUia,
    threepid::{Medium, Threepid},
    validation::TokenRequest,
};

/// Whose page it is: a session of user-interactive authentication, and what that is for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct PageOf {
    pub(crate) session: String,
    pub(crate) purpose: Purpose,
}

impl PageOf {
    /// The page of a reset.
    pub(crate) fn reset(session: &UiaSession) -> Self {
        Self {
            session: session.as_str().to_owned(),
            purpose: Purpose::Password,
        }
    }
}

/// How far the page has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Nothing was asked for yet, or it has run out.
    Address,
    /// A message is on its way to this address.
    Message(Threepid),
    /// The address is proved.
    Done,
}

/// What is kept of a page.
#[derive(Serialize, Deserialize)]
struct Kept {
    sid: String,
    address: String,
    send_attempt: i64,
    /// The client's own, if it did the stage itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    client_secret: Option<String>,
}

impl AccountRules {
    /// A fresh session of user-interactive authentication for `account/password`.
    pub(crate) fn begin_session(&self, source: Source) -> UiaSession {
        let now = self.validation.clock.now();
        UiaSession::begin(&self.validation.keys, ENDPOINT, source, now)
    }

    /// Whether a page may take codes for a session: only where the app that began it is. Elsewhere the page may have been
    /// sent to somebody by whoever wants their account; the page of a mailed link tells them so.
    pub(crate) fn takes_codes(&self, session: &UiaSession, source: Source) -> bool {
        session.was_begun_at(&self.validation.keys, source)
    }

    /// The session that a client names; `None` if it is none of ours for `account/password`, or is over.
    pub(crate) fn read_session(&self, text: &str) -> Option<UiaSession> {
        let now = self.validation.clock.now();
        UiaSession::read(&self.validation.keys, ENDPOINT, text, now)
    }

    /// The stage as the page left it; `None` if nothing was asked for there.
    pub(crate) async fn kept_stage(&self, page: &PageOf, medium: Medium) -> Result<Option<Stage>> {
        let kept = self.kept(page, medium).await?;
        kept.map(|kept| self.stage(page, medium, &kept)).transpose()
    }

    /// How far the page has come.
    ///
    /// # Errors
    /// As [`Validation::proof`](crate::validation::Validation::proof), but for a stage that is not done.
    pub(crate) async fn step(&self, page: &PageOf, medium: Medium) -> Result<Step> {
        let Some(kept) = self.kept(page, medium).await? else {
            return Ok(Step::Address);
        };
        let stage = self.stage(page, medium, &kept)?;
        let (sid, secret) = (&stage.sid, &stage.client_secret);
        let shown = self.validation.proof(sid, secret, page.purpose, None);
        match shown.await {
            Ok(_) | Err(Error::ProofSpent) => Ok(Step::Done),
            Err(Error::SessionNotValidated) => {
                Ok(Step::Message(Threepid::stored(medium, kept.address)))
            }
            Err(Error::SessionExpired | Error::NoValidSession) => Ok(Step::Address),
            Err(error) => Err(error),
        }
    }

    /// Asks for a message to an address; once more, if it is the same one.
    ///
    /// # Errors
    /// As [`Validation::request_token`](crate::validation::Validation::request_token).
    pub(crate) async fn ask(
        &self,
        page: &PageOf,
        threepid: Threepid,
        source: Source,
    ) -> Result<()> {
        let medium = threepid.medium();
        let address = threepid.address().to_owned();
        let before = self.kept(page, medium).await?;
        let before = before.filter(|kept| kept.address == address);
        let send_attempt = before.map_or(1, |kept| kept.send_attempt + 1);
        let request = TokenRequest {
            purpose: page.purpose,
            client_secret: self.page_secret(page, medium, &address)?,
            threepid,
            send_attempt,
            next_link: None,
            id_server: None,
            id_access_token: None,
            source,
            user_id: None,
        };
        let opened = self.validation.request_token(request).await?;
        let kept = Kept {
            sid: opened.sid.to_string(),
            address,
            send_attempt,
            client_secret: None,
        };
        self.keep(page, medium, &kept).await
    }

    /// Shows the code that was typed into the page.
    ///
    /// # Errors
    /// As [`Validation::submit_token`](crate::validation::Validation::submit_token).
    pub(crate) async fn show_code(
        &self,
        page: &PageOf,
        medium: Medium,
        code: &str,
        source: Source,
    ) -> Result<()> {
        let stage = self.kept_stage(page, medium).await?;
        let Stage {
            sid, client_secret, ..
        } = stage.ok_or(Error::SessionExpired)?;
        let validation = &self.validation;
        let pair = (&sid, &client_secret);
        let shown = validation.submit_token(Api::Client, medium, pair, code, source);
        shown.await.map(drop)
    }

    /// Keeps a stage that a client has done, so that its session alone is enough from then on.
    pub(super) async fn keep_stage(
        &self,
        page: &PageOf,
        stage: &Stage,
        address: &str,
    ) -> Result<()> {
        let kept = Kept {
            sid: stage.sid.to_string(),
            address: address.to_owned(),
            send_attempt: 0,
            client_secret: Some(stage.client_secret.as_str().to_owned()),
        };
        self.keep(page, stage.medium, &kept).await
    }

    fn stage(&self, page: &PageOf, medium: Medium, kept: &Kept) -> Result<Stage> {
        Ok(Stage {
            medium,
            sid: Sid::parse(&kept.sid)?,
            client_secret: match &kept.client_secret {
                Some(own) => ClientSecret::parse(own)?,
                None => self.page_secret(page, medium, &kept.address)?,
            },
        })
    }

    fn page_secret(&self, page: &PageOf, medium: Medium, address: &str) -> Result<ClientSecret> {
        let parts = [
            "fallback secret",
            page.purpose.as_str(),
            &page.session,
            medium.as_str(),
            address,
        ];
        ClientSecret::parse(&URL_SAFE_NO_PAD.encode(self.digest(&parts)))
    }

    fn page_id(&self, page: &PageOf, medium: Medium) -> [u8; 32] {
        self.digest(&[
            "fallback",
            page.purpose.as_str(),
            &page.session,
            medium.as_str(),
        ])
    }

    async fn kept(&self, page: &PageOf, medium: Medium) -> Result<Option<Kept>> {
        let now = self.validation.clock.now();
        let id = self.page_id(page, medium);
        let row = self.validation.store.find_uia(id, now).await?;
        let Some(sealed) = row.and_then(|row| row.sealed) else {
            return Ok(None);
        };
        let plain = self.validation.keys.newest().open(&id, &sealed)?;
        let kept = serde_json::from_slice(&plain);
        kept.map(Some)
            .map_err(|error| Error::Internal(error.to_string()))
    }

    async fn keep(&self, page: &PageOf, medium: Medium, kept: &Kept) -> Result<()> {
        let id = self.page_id(page, medium);
        let plain = serde_json::to_vec(kept).map_err(|error| Error::Internal(error.to_string()))?;
        let sealed = self.validation.keys.newest().seal(&id, &plain)?;
        let page = NewUia {
            id,
            sealed: Some(sealed),
            expires_at: self.validation.clock.now() + LIFE,
        };
        Ok(self.validation.store.remember_uia(page).await?)
    }
}
