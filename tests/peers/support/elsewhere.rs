//! A web server of somebody else.

use std::sync::{Arc, Mutex};

use axum::{
    Router,
    extract::State,
    http::{HeaderMap, Uri},
    response::Html,
};
use tokio::{net::TcpListener, task::JoinHandle};

/// The running server, which shows one page at every path; it ends when it is dropped.
pub(crate) struct Elsewhere {
    port: u16,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    page: Mutex<String>,
    /// The path of each request, and its `Referer`; empty if it had none.
    requests: Mutex<Vec<(String, String)>>,
}

impl Elsewhere {
    /// Starts it on a free port.
    pub(crate) async fn start() -> Self {
        let shared = Arc::new(Shared {
            page: Mutex::new("<h1>Elsewhere</h1>".to_owned()),
            requests: Mutex::default(),
        });
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let router = Router::new()
            .fallback(answer)
            .with_state(Arc::clone(&shared));
        let task = tokio::spawn(async move {
            axum::serve(listener, router).await.expect("it serves");
        });
        Self { port, shared, task }
    }

    /// Its origin, by one of its names: `127.0.0.1` or `localhost`.
    pub(crate) fn at(&self, name: &str) -> String {
        format!("http://{name}:{}", self.port)
    }

    /// Shows another page.
    pub(crate) fn show(&self, page: impl Into<String>) {
        *self.shared.page.lock().expect("no test panicked here") = page.into();
    }

    /// The `Referer` of each request for a path so far; empty for a request without one.
    pub(crate) fn referers(&self, path: &str) -> Vec<String> {
        let requests = self.shared.requests.lock().expect("no test panicked here");
        let wanted = requests.iter().filter(|(at, _)| at == path);
        wanted.map(|(_, referer)| referer.clone()).collect()
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(shared): State<Arc<Shared>>, uri: Uri, headers: HeaderMap) -> Html<String> {
    let referer = headers
        .get("referer")
        .map(|value| value.to_str().unwrap_or("?"));
    let request = (
        uri.path().to_owned(),
        referer.unwrap_or_default().to_owned(),
    );
    shared
        .requests
        .lock()
        .expect("no test panicked here")
        .push(request);
    Html(shared.page.lock().expect("no test panicked here").clone())
}
