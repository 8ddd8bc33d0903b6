//! A stage that is shown: ours is looked at, the homeserver's is passed on, and the last one ends the registration.

use std::sync::Arc;

use serde_json::{Map, json};

use super::{
    Answered, Asker, Refusal, RegistrationRules, Shown, done,
    kept::{Kept, KeptProof},
    not_yet,
    stages::{Flow, ends_there, has_more},
    without_us,
};
use crate::{
    account::password::is_not_yet,
    error::{Error, Result},
    homeserver::registration::{DUMMY, Registering},
    secret::{ClientSecret, Sid},
    session::Purpose,
    threepid::Medium,
};

impl RegistrationRules {
    /// Looks at the stage that is shown, and ends the registration if it was the last.
    pub(super) async fn show(
        self: &Arc<Self>,
        mut kept: Kept,
        stage: Option<Shown>,
        asker: &Asker,
    ) -> Result<Answered> {
        match stage {
            None => {
                self.take_from_pages(&mut kept).await?;
                return self.look(kept, asker).await;
            }
            Some(Shown::Address(medium, shown)) => {
                if let Some(refusal) = self.take_note(&mut kept, medium, shown).await? {
                    self.keep(&kept).await?;
                    return Ok(self.challenge(&kept, Some(refusal)));
                }
            }
            Some(Shown::Other(name, auth)) => {
                return self.show_other(kept, &name, auth, asker).await;
            }
        }
        self.conclude(kept, asker).await
    }

    /// Ends the registration if nothing is left to be done.
    async fn conclude(self: &Arc<Self>, kept: Kept, asker: &Asker) -> Result<Answered> {
        let done = done(&kept, None);
        let flows = self.flows(&kept).into_iter();
        let ended = flows
            .filter(|flow| flow.ends_here)
            .find(|flow| flow.is_done(&done));
        if let Some(flow) = ended {
            return self.finish(kept, &flow.media, None, asker).await;
        }
        self.keep(&kept).await?;
        Ok(self.challenge(&kept, None))
    }

    /// Looks how far it is: what was done on the homeserver's own pages, it alone knows.
    async fn look(self: &Arc<Self>, mut kept: Kept, asker: &Asker) -> Result<Answered> {
        if !has_more(&kept.flows, &kept.completed) {
            return self.conclude(kept, asker).await;
        }
        let mut auth = Map::new();
        auth.insert("session".to_owned(), json!(kept.session));
        if kept.tried || ends_there(&kept.flows) {
            return match ending(&kept, self.flows(&kept), None) {
                Some(flow) => self.finish(kept, &flow.media, Some(&auth), asker).await,
                None => self.conclude(kept, asker).await,
            };
        }
        let (session, params) = (&kept.session, &kept.params);
        let told = self.registrar.stage(session, params, &auth, &asker.origin);
        match told.await? {
            Registering::Stages(stages) if stages.session == kept.session => {
                kept.learn(stages);
                self.conclude(kept, asker).await
            }
            Registering::Stages(_) | Registering::Lost => self.begin_anew(kept, asker).await,
            other => without_us(other),
        }
    }

    /// Keeps a session that proves an address; why it proves none, if it does not.
    async fn take_note(
        &self,
        kept: &mut Kept,
        medium: Medium,
        shown: Option<(Sid, ClientSecret)>,
    ) -> Result<Option<Refusal>> {
        let Some((sid, client_secret)) = shown else {
            self.take_from_pages(kept).await?;
            return match kept.proof_of(medium) {
                Some(_) => Ok(None),
                None => Err(Error::MissingParam("threepid_creds")),
            };
        };
        if let Some(refusal) = self.not_proved(medium, &sid, &client_secret).await? {
            return Ok(Some(refusal));
        }
        kept.proofs.retain(|proof| proof.medium != medium.as_str());
        kept.proofs.push(KeptProof {
            medium: medium.as_str().to_owned(),
            sid: sid.to_string(),
            client_secret: client_secret.as_str().to_owned(),
        });
        Ok(None)
    }

    /// Shows a stage of the homeserver's, or the dummy that ends a registration without an address.
    async fn show_other(
        self: &Arc<Self>,
        mut kept: Kept,
        name: &str,
        auth: Map<String, serde_json::Value>,
        asker: &Asker,
    ) -> Result<Answered> {
        let flows = self.flows(&kept);
        if !flows
            .iter()
            .any(|flow| flow.stages.iter().any(|stage| stage == name))
        {
            self.keep(&kept).await?;
            let why = "auth.type must be one of the stages in flows.".to_owned();
            return Ok(self.challenge(&kept, Some(("M_INVALID_PARAM".to_owned(), why))));
        }
        let mut auth = auth;
        auth.insert("session".to_owned(), json!(kept.session));
        if name == DUMMY || kept.tried || ends_there(&kept.flows) {
            let ended = ending(&kept, flows, Some(name));
            let last = (name != DUMMY).then_some(&auth);
            if let Some(flow) = ended {
                return self.finish(kept, &flow.media, last, asker).await;
            }
            self.keep(&kept).await?;
            return Ok(self.challenge(&kept, Some(ours_first())));
        }
        let (session, params) = (&kept.session, &kept.params);
        let shown = self.registrar.stage(session, params, &auth, &asker.origin);
        match shown.await? {
            Registering::Stages(stages) if stages.session == kept.session => {
                let refusal = kept.learn(stages);
                if refusal.is_some() {
                    self.keep(&kept).await?;
                    return Ok(self.challenge(&kept, refusal));
                }
                self.conclude(kept, asker).await
            }
            Registering::Stages(_) | Registering::Lost => self.begin_anew(kept, asker).await,
            other => without_us(other),
        }
    }

    /// Why a session proves no address of the medium; `None` if it does. What exactly is wrong is not told.
    pub(super) async fn not_proved(
        &self,
        medium: Medium,
        sid: &Sid,
        client_secret: &ClientSecret,
    ) -> Result<Option<Refusal>> {
        let validation = &self.account.validation;
        let proof = validation.proof(sid, client_secret, Purpose::Register, None);
        match proof.await {
            Ok(proof) if proof.threepid.medium() == medium => Ok(None),
            Err(error) if !is_not_yet(&error) => Err(error),
            _ => Ok(Some(not_yet())),
        }
    }
}

/// The flow that may end at the homeserver, by a stage that is shown, or was done there: of several the one with the most
/// addresses. What of its own stages is left, the homeserver knows.
fn ending(kept: &Kept, flows: Vec<Flow>, shown: Option<&str>) -> Option<Flow> {
    let done = done(kept, shown);
    let may_end = |flow: &Flow| {
        let is_proved = |medium: &Medium| kept.proof_of(*medium).is_some();
        let is_meant = |shown| flow.stages.iter().any(|stage| stage == shown);
        match shown {
            Some(DUMMY) => flow.ends_here && flow.is_done(&done),
            shown => shown.is_none_or(is_meant) && flow.media.iter().all(is_proved),
        }
    };
    flows
        .into_iter()
        .filter(may_end)
        .max_by_key(|flow| flow.media.len())
}

fn ours_first() -> Refusal {
    let why = "First prove an address, then do this stage.";
    ("M_UNAUTHORIZED".to_owned(), why.to_owned())
}
