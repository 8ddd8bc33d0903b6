//! The service that a homeserver asks whether a captcha was solved (`siteverify` of reCAPTCHA).

use std::sync::{Arc, Mutex};

use axum::{Form, Json, Router, extract::State, routing::post};
use serde_json::{Value, json};
use tokio::{net::TcpListener, task::JoinHandle};

/// What shows that a captcha was solved. All else shows nothing.
pub(crate) const SOLVED: &str = "not a robot";
/// What homeserver and service share.
pub(crate) const KEY: &str = "the homeserver's key";

/// The running service; it ends when it is dropped.
pub(crate) struct Captcha {
    url: String,
    asked: Arc<Mutex<Vec<Asked>>>,
    task: JoinHandle<()>,
}

/// The form that a homeserver sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// What the client showed.
    pub(crate) response: String,
    /// Where the client is.
    pub(crate) remote_address: String,
}

impl Captcha {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("it is bound");
        let asked = Arc::new(Mutex::default());
        let router = Router::new()
            .route("/siteverify", post(answer))
            .with_state(Arc::clone(&asked));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        let url = format!("http://{address}/siteverify");
        Self { url, asked, task }
    }

    /// Where homeservers ask.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// What it was asked so far.
    pub(crate) fn asked(&self) -> Vec<Asked> {
        self.asked.lock().expect("no test panicked here").clone()
    }
}

impl Drop for Captcha {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    State(asked): State<Arc<Mutex<Vec<Asked>>>>,
    Form(form): Form<Vec<(String, String)>>,
) -> Json<Value> {
    let word = |name: &str| {
        let found = form.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.clone()).unwrap_or_default()
    };
    let is_solved = word("secret") == KEY && word("response") == SOLVED;
    asked.lock().expect("no test panicked here").push(Asked {
        response: word("response"),
        remote_address: word("remoteip"),
    });
    Json(json!({ "success": is_solved, "hostname": "example.org" }))
}
