//! A host as the library sees one: accounts and their addresses in memory, re-authentication by password, and what goes
//! wrong when a test says so.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard,
        atomic::{AtomicUsize, Ordering},
    },
};

use async_trait::async_trait;
use axum::{
    body::Body,
    http::{Request, header},
};
use serde_json::{Map, Value, json};
use threepid::{
    Builder, Error,
    clock::Timestamp,
    error::Result,
    homeserver::{Accounts, Directory, Origin, PassedBack, PassedOn, Reauth, Requester},
    id_server::{IdServer, Unbound},
    limits,
    password::{NewPassword, PasswordPolicy},
    secret::AccessToken,
    store::{Bound, Contact},
    threepid::Threepid,
};
use tokio::sync::Semaphore;

use super::app::{Answer, TestApp};

/// Alice's account.
pub(crate) const ALICE: &str = "@alice:example.org";
/// Her access token.
pub(crate) const HERS: &str = "token_of_alice";
/// Bob's account.
pub(crate) const BOB: &str = "@bob:example.org";
/// His access token.
pub(crate) const HIS: &str = "token_of_bob";
/// The access token of a guest.
pub(crate) const GUEST: &str = "token_of_a_guest";
/// Everybody's password.
pub(crate) const PASSPHRASE: &str = "correct horse";

/// What happens to the next binding of an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// It is refused, and nothing was done.
    Failed,
    /// It is done, and nobody hears of it.
    DoneUnheard,
    /// The process dies in the middle.
    Died,
}

#[derive(Debug, Default)]
struct State {
    addresses: Vec<Contact>,
    /// The sessions of user-interactive authentication, and whose they are.
    sessions: HashMap<String, String>,
    /// The `auth` of all requests that had one.
    shown: Vec<Value>,
    suspended: Vec<String>,
    fault: Option<Fault>,
    in_grace: bool,
    signs: Option<Unbound>,
    refuses_reauth: bool,
}

/// The host.
#[derive(Debug)]
pub(crate) struct Host {
    state: Mutex<State>,
    /// Bindings wait here while there is no permit.
    gate: Semaphore,
    binds: AtomicUsize,
}

impl Host {
    /// One with the accounts of Alice and Bob, without addresses.
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::default(),
            gate: Semaphore::new(1),
            binds: AtomicUsize::new(0),
        })
    }

    /// A server without limits in front of it.
    pub(crate) fn app(self: &Arc<Self>) -> TestApp {
        TestApp::with(self.set())
    }

    /// The settings of such a server.
    pub(crate) fn set(self: &Arc<Self>) -> impl FnOnce(Builder) -> Builder + use<> {
        let host = Arc::clone(self);
        move |builder| {
            builder
                .limits(limits::Settings::OFF)
                .directory(host.clone())
                .accounts(host)
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("no test panicked in it")
    }

    /// Gives an address to an account, as an administrator would.
    pub(crate) fn give(&self, user_id: &str, medium: &str, address: &str) {
        self.state().addresses.push(Contact {
            user_id: user_id.to_owned(),
            medium: medium.to_owned(),
            address: address.to_owned(),
            validated_at: None,
            added_at: Timestamp(1_795_000_000_000),
        });
    }

    /// The addresses of an account.
    pub(crate) fn addresses(&self, user_id: &str) -> Vec<String> {
        let state = self.state();
        let own = state.addresses.iter().filter(|own| own.user_id == user_id);
        own.map(|own| own.address.clone()).collect()
    }

    pub(crate) fn fail(&self, fault: Fault) {
        self.state().fault = Some(fault);
    }

    pub(crate) fn refuse_reauth(&self, refuses: bool) {
        self.state().refuses_reauth = refuses;
    }

    pub(crate) fn suspend(&self, user_id: &str) {
        self.state().suspended.push(user_id.to_owned());
    }

    /// Nobody is asked again for a while.
    pub(crate) fn grace(&self) {
        self.state().in_grace = true;
    }

    /// Unbinds by its own signature from now on.
    pub(crate) fn sign(&self, outcome: Unbound) {
        self.state().signs = Some(outcome);
    }

    /// The `auth` of all requests that had one.
    pub(crate) fn shown(&self) -> Vec<Value> {
        self.state().shown.clone()
    }

    /// How often an address was bound, or was tried to be.
    pub(crate) fn binds(&self) -> usize {
        self.binds.load(Ordering::SeqCst)
    }

    /// Lets bindings wait.
    pub(crate) fn close(&self) {
        self.gate.forget_permits(1);
    }

    /// Lets them go on.
    pub(crate) fn open(&self) {
        self.gate.add_permits(1);
    }
}

#[async_trait]
impl Directory for Host {
    async fn owner(&self, threepid: &Threepid) -> Result<Option<String>> {
        let state = self.state();
        let found = state.addresses.iter().find(|own| is(own, threepid));
        Ok(found.map(|own| own.user_id.clone()))
    }

    async fn bind(
        &self,
        user_id: &str,
        threepid: &Threepid,
        validated_at: Option<Timestamp>,
        now: Timestamp,
    ) -> Result<Bound> {
        self.binds.fetch_add(1, Ordering::SeqCst);
        let _permit = self.gate.acquire().await.expect("it is never closed");
        let fault = self.state().fault.take();
        match fault {
            Some(Fault::Failed) => return Err(Error::HomeserverFailed("a test".to_owned())),
            Some(Fault::Died) => panic!("as if the process died"),
            Some(Fault::DoneUnheard) | None => {}
        }
        if let Some(owner) = self.owner(threepid).await? {
            return Ok(if owner == user_id {
                Bound::AlreadyYours
            } else {
                Bound::OwnedByOther
            });
        }
        self.state().addresses.push(Contact {
            user_id: user_id.to_owned(),
            medium: threepid.medium().to_string(),
            address: threepid.address().to_owned(),
            validated_at,
            added_at: now,
        });
        match fault {
            Some(_) => Err(Error::HomeserverTimeout("a test".to_owned())),
            None => Ok(Bound::Bound),
        }
    }

    async fn unbind(&self, user_id: &str, threepid: &Threepid) -> Result<bool> {
        let mut state = self.state();
        let before = state.addresses.len();
        state
            .addresses
            .retain(|own| own.user_id != user_id || !is(own, threepid));
        Ok(state.addresses.len() < before)
    }

    async fn list(&self, user_id: &str) -> Result<Vec<Contact>> {
        let state = self.state();
        let own = state.addresses.iter().filter(|own| own.user_id == user_id);
        Ok(own.cloned().collect())
    }
}

fn is(own: &Contact, threepid: &Threepid) -> bool {
    own.medium == threepid.medium().as_str() && own.address == threepid.address()
}

#[async_trait]
impl Accounts for Host {
    async fn whoami(&self, access_token: &AccessToken, _: &Origin) -> Result<Requester> {
        let is = |token: &str| AccessToken::parse(token).as_ref() == Ok(access_token);
        let user_id = match () {
            () if is(HERS) => ALICE,
            () if is(HIS) => BOB,
            () if is(GUEST) => return Err(Error::GuestForbidden),
            () => return Err(Error::UnknownToken { soft_logout: false }),
        };
        Ok(Requester {
            user_id: user_id.to_owned(),
            device_id: None,
            access_token: access_token.clone(),
        })
    }

    async fn reauth(
        &self,
        requester: &Requester,
        auth: Option<&Value>,
        _: &Origin,
    ) -> Result<Reauth> {
        let mut state = self.state();
        state.shown.extend(auth.cloned());
        if state.refuses_reauth {
            return Err(Error::HomeserverFailed("a test".to_owned()));
        }
        if state.in_grace {
            return Ok(Reauth::Done);
        }
        let auth = auth.cloned().unwrap_or_default();
        let begun = auth["session"].as_str().map(str::to_owned);
        let known = begun.filter(|session| state.sessions.get(session) == Some(&requester.user_id));
        let tries = auth["type"] == "m.login.password";
        if tries && auth["password"] == PASSPHRASE {
            return Ok(Reauth::Done);
        }
        let session = known.unwrap_or_else(|| format!("session{}", state.sessions.len()));
        state
            .sessions
            .insert(session.clone(), requester.user_id.clone());
        let mut body = challenge(&session);
        if tries {
            body.insert("errcode".to_owned(), json!("M_FORBIDDEN"));
            body.insert("error".to_owned(), json!("Invalid password"));
        }
        Ok(Reauth::Challenge(body))
    }

    async fn is_suspended(&self, user_id: &str) -> Result<bool> {
        Ok(self.state().suspended.iter().any(|known| known == user_id))
    }

    fn sets_passwords(&self) -> bool {
        false
    }

    async fn password_policy(&self) -> Result<PasswordPolicy> {
        Ok(PasswordPolicy::default())
    }

    async fn reset_password(&self, _: &str, _: &NewPassword, _: bool) -> Result<()> {
        Err(Error::HomeserverFailed("a test".to_owned()))
    }

    async fn unbind(
        &self,
        _: &Requester,
        _: &Threepid,
        _: &IdServer,
        _: &Origin,
    ) -> Result<Option<Unbound>> {
        Ok(self.state().signs)
    }

    async fn pass_on(&self, _: PassedOn, _: &Origin) -> Result<PassedBack> {
        Err(Error::HomeserverFailed("a test".to_owned()))
    }
}

/// What the host asks for, in a session.
pub(crate) fn challenge(session: &str) -> Map<String, Value> {
    let body = json!({
        "session": session,
        "flows": [{ "stages": ["m.login.password"] }],
        "params": { "org.example": { "kept": "as it is" } },
    });
    body.as_object().expect("an object").clone()
}

/// A request with somebody's access token.
pub(crate) fn as_user(method: &str, token: &str, path: &str, body: &Value) -> Request<Body> {
    Request::builder()
        .method(method)
        .uri(path)
        .header(header::AUTHORIZATION, format!("Bearer {token}"))
        .body(Body::from(body.to_string()))
        .expect("a request")
}

/// Posts JSON with somebody's access token.
pub(crate) async fn post_as(app: &TestApp, token: &str, path: &str, body: &Value) -> Answer {
    app.send(as_user("POST", token, path, body)).await
}
