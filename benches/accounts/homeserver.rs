//! A stand-in for a homeserver: the paths of Synapse's that are called, over HTTP/1.1 on loopback, in a thread of its own.
//! It answers at once.

use std::{
    collections::{HashMap, HashSet},
    convert::Infallible,
    net::Ipv4Addr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use http::{Method, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::{
    Request, Response,
    body::{Bytes, Incoming},
    server::conn::http1,
    service::service_fn,
};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::Failure;

/// The access token that its admin API wants.
pub(crate) const ADMIN_TOKEN: &str = "the.admin.token";
/// The registration token that it wants.
pub(crate) const REGISTRATION_TOKEN: &str = "the.registration.token";
/// What its users are called, after their name.
pub(crate) const SERVER_NAME: &str = "example.org";

/// A running homeserver; it runs as long as the benchmark. Every user exists, and has the access token that is their name.
pub(crate) struct Homeserver {
    /// The base of its URLs.
    pub(crate) url: String,
    met: Arc<Met>,
}

#[derive(Default)]
struct Met {
    requests: AtomicUsize,
    /// Who has which address.
    owners: Mutex<HashMap<String, String>>,
    /// The registrations that have shown the token.
    admitted: Mutex<HashSet<String>>,
    /// How many registrations were begun.
    begun: AtomicUsize,
}

impl Homeserver {
    pub(crate) fn start() -> Result<Self, Failure> {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let url = format!("http://{}", listener.local_addr()?);
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let met = Arc::<Met>::default();
        let seen = Arc::clone(&met);
        thread::spawn(move || {
            runtime.block_on(async move {
                let Ok(listener) = TcpListener::from_std(listener) else {
                    return;
                };
                while let Ok((stream, _)) = listener.accept().await {
                    let seen = Arc::clone(&seen);
                    tokio::spawn(async move {
                        let service = service_fn(|request| answer(request, &seen));
                        let connection = http1::Builder::new();
                        let _ = stream.set_nodelay(true);
                        let _ = connection
                            .serve_connection(TokioIo::new(stream), service)
                            .await;
                    });
                }
            });
        });
        Ok(Self { url, met })
    }

    /// How many requests it has read so far.
    pub(crate) fn requests(&self) -> usize {
        self.met.requests.load(Ordering::SeqCst)
    }

    /// Gives an address to a user.
    pub(crate) fn give(&self, user: &str, address: &str) {
        let user_id = format!("@{user}:{SERVER_NAME}");
        self.met.owners().insert(address.to_owned(), user_id);
    }

    /// Whether a user has an address.
    pub(crate) fn has(&self, user: &str, address: &str) -> bool {
        let user_id = format!("@{user}:{SERVER_NAME}");
        self.met.owners().get(address) == Some(&user_id)
    }
}

impl Met {
    fn owners(&self) -> std::sync::MutexGuard<'_, HashMap<String, String>> {
        self.owners
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// `/register`, which makes an account for who has shown the token.
    fn register(&self, body: &Value) -> (StatusCode, Value) {
        let auth = &body["auth"];
        let session = auth["session"].as_str().map_or_else(
            || format!("{:024}", self.begun.fetch_add(1, Ordering::SeqCst)),
            str::to_owned,
        );
        let mut admitted = self
            .admitted
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        if auth["token"] == REGISTRATION_TOKEN {
            admitted.insert(session.clone());
        }
        let is_admitted = admitted.contains(&session);
        if is_admitted && auth["type"] == "m.login.dummy" {
            let user_id = format!(
                "@{}:{SERVER_NAME}",
                body["username"].as_str().unwrap_or_default()
            );
            let account =
                json!({ "user_id": user_id, "access_token": "a.token.for.them", "device_id": "D" });
            return (StatusCode::OK, account);
        }
        let flow = ["m.login.registration_token", "m.login.dummy"];
        let completed = &flow[..usize::from(is_admitted)];
        let stages = json!({
            "session": session, "flows": [{ "stages": flow }], "completed": completed, "params": {}
        });
        (StatusCode::UNAUTHORIZED, stages)
    }

    /// The user as the admin API shows them.
    fn user(&self, user_id: &str) -> Value {
        let owners = self.owners();
        let own = owners.iter().filter(|(_, owner)| *owner == user_id);
        let threepids: Vec<_> = own
            .map(|(address, _)| json!({ "medium": "email", "address": address, "validated_at": 1, "added_at": 1 }))
            .collect();
        json!({ "name": user_id, "threepids": threepids, "deactivated": false, "is_guest": false })
    }
}

async fn answer(
    request: Request<Incoming>,
    met: &Met,
) -> Result<Response<Full<Bytes>>, Infallible> {
    met.requests.fetch_add(1, Ordering::SeqCst);
    let (head, body) = request.into_parts();
    let token = head.headers.get(header::AUTHORIZATION);
    let token = token.and_then(|token| token.to_str().ok()?.strip_prefix("Bearer "));
    let token = token.unwrap_or_default().to_owned();
    let body = body
        .collect()
        .await
        .map(http_body_util::Collected::to_bytes);
    let body: Value = serde_json::from_slice(&body.unwrap_or_default()).unwrap_or_default();
    let path = percent_encoding::percent_decode_str(head.uri.path()).decode_utf8_lossy();
    let (status, told) = told(met, &head.method, &path, &token, &body);
    let mut response = Response::new(Full::from(told.to_string()));
    *response.status_mut() = status;
    let json = http::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

fn told(met: &Met, method: &Method, path: &str, token: &str, body: &Value) -> (StatusCode, Value) {
    let fine = |told| (StatusCode::OK, told);
    let unknown = || {
        (
            StatusCode::NOT_FOUND,
            json!({ "errcode": "M_NOT_FOUND", "error": "" }),
        )
    };
    if let Some(address) = path.strip_prefix("/_synapse/admin/v1/threepid/email/users/") {
        let owner = met.owners().get(address).cloned();
        return owner.map_or_else(unknown, |owner| fine(json!({ "user_id": owner })));
    }
    if let Some(user_id) = path.strip_prefix("/_synapse/admin/v2/users/") {
        if method == Method::PUT {
            let mut owners = met.owners();
            owners.retain(|_, owner| owner != user_id);
            for threepid in body["threepids"].as_array().into_iter().flatten() {
                let address = threepid["address"].as_str().unwrap_or_default();
                owners.insert(address.to_owned(), user_id.to_owned());
            }
        }
        return fine(met.user(user_id));
    }
    if path == "/_matrix/client/v3/register" {
        return met.register(body);
    }
    if path.starts_with("/_synapse/admin/v1/reset_password/") || path.ends_with("/delete_devices") {
        return fine(json!({}));
    }
    if path.ends_with("/account/whoami") {
        return fine(json!({ "user_id": format!("@{token}:{SERVER_NAME}"), "device_id": "D" }));
    }
    if path.ends_with("/password_policy") {
        return fine(json!({ "m.minimum_length": 8 }));
    }
    unknown()
}
