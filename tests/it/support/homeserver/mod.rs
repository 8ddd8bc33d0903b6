//! A stand-in for Synapse: HTTP/1.1 on loopback, with accounts, sessions of user-interactive authentication, the admin
//! API with its traps, and faults that a test turns on.
//!
//! Its traps are those of Synapse: `PUT users/{id}` replaces the whole list of addresses, takes an address from whoever
//! had it, makes a user who is absent, and a bad entry leaves an empty list.

mod answers;
mod faults;
mod register;
mod state;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use axum::body::Bytes;
use http::{HeaderMap, Method, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::{JoinHandle, JoinSet},
};
use url::Url;

pub(crate) use self::{
    faults::Fault,
    register::{REGISTRATION_TOKEN, Registration, SERVICE_TOKEN, SHARED_SECRET},
    state::User,
};
use self::{
    faults::{Faults, When},
    state::State,
};

/// The access token of a server admin.
pub(crate) const ADMIN_TOKEN: &str = "syt_the_admin_s_token";

/// A request as it came.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub(crate) method: Method,
    /// Path and query, still percent-encoded.
    pub(crate) path: String,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Vec<u8>,
}

impl Seen {
    /// A header as text; empty if absent.
    pub(crate) fn header(&self, name: &str) -> &str {
        let value = self.headers.get(name);
        value.map_or("", |value| value.to_str().unwrap_or("?"))
    }

    /// The body as JSON; `null` if it is none.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    faults: Mutex<Faults>,
    seen: Mutex<Vec<Seen>>,
}

/// A homeserver on loopback. Dropped, it is gone.
pub(crate) struct Homeserver {
    shared: Arc<Shared>,
    address: SocketAddr,
    serving: Mutex<Option<JoinHandle<()>>>,
    /// What keeps the port from others while nobody listens at it.
    held: Mutex<Option<TcpSocket>>,
}

impl Homeserver {
    /// One without accounts.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.expect("a free port");
        let address = listener.local_addr().expect("its address");
        let shared = Arc::<Shared>::default();
        let serving = Mutex::new(Some(serve(listener, Arc::clone(&shared))));
        Self {
            shared,
            address,
            serving,
            held: Mutex::default(),
        }
    }

    /// The base of its URLs.
    pub(crate) fn url(&self) -> Url {
        format!("http://{}/", self.address).parse().expect("a URL")
    }

    /// Makes an account, with one device, `DEVICE`, and its access token.
    pub(crate) fn user(&self, user_id: &str, password: &str, token: &str) {
        let user = User::new(password, token);
        self.state().users.insert(user_id.to_owned(), user);
    }

    /// Changes what is known of an account: whether it is locked, suspended, a guest and so on.
    pub(crate) fn change(&self, user_id: &str, change: impl FnOnce(&mut User)) {
        let mut state = self.state();
        change(state.users.get_mut(user_id).expect("a user"));
    }

    /// Takes an account away.
    pub(crate) fn remove(&self, user_id: &str) {
        self.state().users.remove(user_id);
    }

    /// Whether there is such an account.
    pub(crate) fn has(&self, user_id: &str) -> bool {
        self.state().users.contains_key(user_id)
    }

    /// Gives an address to an account; whoever had it loses it.
    pub(crate) fn give(&self, user_id: &str, medium: &str, address: &str) {
        self.state().give(user_id, medium, address);
    }

    /// Media and addresses of an account, in order.
    pub(crate) fn threepids(&self, user_id: &str) -> Vec<(String, String)> {
        let state = self.state();
        let user = state.users.get(user_id);
        let threepids = user.map(|user| user.threepids.keys().cloned().collect());
        threepids.unwrap_or_default()
    }

    /// The password of an account; empty if there is none.
    pub(crate) fn password(&self, user_id: &str) -> String {
        let state = self.state();
        let user = state.users.get(user_id);
        user.map(|user| user.password.clone()).unwrap_or_default()
    }

    /// The devices of an account.
    pub(crate) fn devices(&self, user_id: &str) -> Vec<String> {
        let state = self.state();
        let user = state.users.get(user_id);
        user.map(|user| user.tokens.values().cloned().collect())
            .unwrap_or_default()
    }

    /// Sets the password policy that it tells, and does not enforce.
    pub(crate) fn policy(&self, policy: Value) {
        self.state().policy = policy;
    }

    /// Lets a list of addresses with this one in it be refused, after the account's old ones were deleted.
    pub(crate) fn refuse(&self, address: &str) {
        self.state().refused = Some(address.to_owned());
    }

    /// Whether it asks for no password before it deletes devices, as Synapse does for a while after a login.
    pub(crate) fn skip_reauth(&self, skips: bool) {
        self.state().skips_reauth = skips;
    }

    /// Gives all sessions of user-interactive authentication this name.
    pub(crate) fn constant_session(&self, session: &str) {
        self.state().constant_session = Some(session.to_owned());
    }

    /// Changes how accounts are made.
    pub(crate) fn registration(&self, change: impl FnOnce(&mut Registration)) {
        change(&mut self.state().registration);
    }

    /// Forgets all sessions of registrations, as one does that keeps them in memory and begins anew.
    pub(crate) fn forget_registrations(&self) {
        self.state().registration.forget();
    }

    /// All accounts, in order.
    pub(crate) fn users(&self) -> Vec<String> {
        self.state().users.keys().cloned().collect()
    }

    /// Whether accounts live in an OAuth account server, from now on.
    pub(crate) fn hand_accounts_over(&self) {
        self.state().accounts_live_elsewhere = true;
    }

    /// Lets all requests go wrong; a fault set before is forgotten.
    pub(crate) fn set(&self, fault: Fault) {
        self.faults().only(When::always(fault));
    }

    /// Lets all requests of a method to paths with `part` in them go wrong; an empty method is any.
    pub(crate) fn fail(&self, method: &str, part: &str, fault: Fault) {
        self.faults().add(When::at(method, part, fault));
    }

    /// Lets the next such request go wrong, and none after it.
    pub(crate) fn fail_once(&self, method: &str, part: &str, fault: Fault) {
        self.fail_nth(1, method, part, fault);
    }

    /// Lets the first, second, … such request from now go wrong, and no other.
    pub(crate) fn fail_nth(&self, nth: usize, method: &str, part: &str, fault: Fault) {
        self.faults().add(When::at(method, part, fault).nth(nth));
    }

    /// All is well again.
    pub(crate) fn heal(&self) {
        self.faults().clear();
    }

    /// Stops listening: connections are refused, and those that there were are broken off.
    pub(crate) async fn down(&self) {
        let serving = lock(&self.serving).take();
        if let Some(serving) = serving {
            serving.abort();
            // Cancelled, as it was asked for: now the port is closed.
            let _ = serving.await;
        }
        let socket = TcpSocket::new_v4().expect("a socket");
        // For the sake of the connections that were; nobody is to share the port afterwards.
        socket.set_reuseaddr(true).expect("an option");
        socket.bind(self.address).expect("the same port");
        socket.set_reuseaddr(false).expect("an option");
        *lock(&self.held) = Some(socket);
    }

    /// Listens again where it did.
    pub(crate) fn up(&self) {
        let socket = lock(&self.held).take().expect("it was down");
        socket.set_reuseaddr(true).expect("an option");
        let listener = socket.listen(64).expect("the same port");
        let serving = serve(listener, Arc::clone(&self.shared));
        *lock(&self.serving) = Some(serving);
    }

    /// Method, path and body of all requests that have come, oldest first.
    pub(crate) fn log(&self) -> Vec<(String, String, Value)> {
        let of = |seen: &Seen| (seen.method.to_string(), seen.path.clone(), seen.json());
        lock(&self.shared.seen).iter().map(of).collect()
    }

    /// All requests that have come, oldest first.
    pub(crate) fn seen(&self) -> Vec<Seen> {
        lock(&self.shared.seen).clone()
    }

    /// How many requests of a method have come to paths with `part` in them.
    pub(crate) fn count(&self, method: &str, part: &str) -> usize {
        let seen = lock(&self.shared.seen);
        let is_meant = |seen: &&Seen| seen.method == method && seen.path.contains(part);
        seen.iter().filter(is_meant).count()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        lock(&self.shared.state)
    }

    fn faults(&self) -> MutexGuard<'_, Faults> {
        lock(&self.shared.faults)
    }
}

impl Drop for Homeserver {
    fn drop(&mut self) {
        if let Some(serving) = lock(&self.serving).take() {
            serving.abort();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    tokio::spawn(async move {
        // Dropped with the task, and the connections with it.
        let mut connections = JoinSet::new();
        while let Ok((stream, _)) = listener.accept().await {
            let shared = Arc::clone(&shared);
            let service = service_fn(move |request| answer(Arc::clone(&shared), request));
            connections.spawn(async move {
                let connection =
                    http1::Builder::new().serve_connection(TokioIo::new(stream), service);
                // Whatever the client made of it shows in the test.
                let _ = connection.await;
            });
        }
    })
}

/// An error breaks the connection off without an answer.
async fn answer(
    shared: Arc<Shared>,
    request: Request<Incoming>,
) -> io::Result<Response<Full<Bytes>>> {
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?;
    let path = parts.uri.path_and_query().map_or("", |path| path.as_str());
    let seen = Seen {
        method: parts.method,
        path: path.to_owned(),
        headers: parts.headers,
        body: body.to_bytes().to_vec(),
    };
    lock(&shared.seen).push(seen.clone());
    let fault = lock(&shared.faults).find(&seen);
    match fault {
        None => Ok(lock(&shared.state).answer(&seen).response()),
        Some(fault) => fault.strike(&seen, &shared.state).await,
    }
}

/// What is answered.
pub(crate) struct Answer {
    status: u16,
    body: Value,
}

impl Answer {
    fn response(&self) -> Response<Full<Bytes>> {
        text(self.status, "application/json", self.body.to_string())
    }
}

fn text(status: u16, content_type: &str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    Response::builder()
        .status(status)
        .header("Content-Type", content_type)
        .body(Full::new(body.into()))
        .expect("an answer")
}
