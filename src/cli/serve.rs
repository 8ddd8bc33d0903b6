//! `threepid serve`: everything together, from the first line to the last.

use std::{
    io::{self, Write},
    sync::Arc,
};

use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{Failure, account_server, assemble, greeting::greet, homeserver::Asked, log, runtime};
use crate::{
    Background,
    config::{Config, Loaded},
    homeserver::synapse::Synapse,
    http::{
        listen::ListenAddress,
        serve::{BindError, ConnectionLimits, Listening},
    },
    key_file,
    store::sqlite::{Role, SqliteStore},
};

pub(super) fn run(loaded: Loaded, out: &mut dyn Write) -> Result<(), Failure> {
    let Loaded { config, warnings } = loaded;
    log::start(&config.log)?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let runtime = runtime()?;
    let served = runtime.block_on(serve(config, out));
    // A second signal does not wait for threads that are still busy.
    runtime.shutdown_background();
    served
}

async fn serve(mut config: Config, out: &mut dyn Write) -> Result<(), Failure> {
    let store = SqliteStore::open(&config.storage.path()?, Role::Server)?;
    let public = bind("server.listen", &config.server.listen.0).await?;
    // Without a public URL, links lead to where we listen in fact, also on a port that the system chose.
    config.server.listen.0 = public.addresses();
    let internal = config.server.internal_address()?;
    let internal = bind("server.internal_listen", internal.as_slice()).await?;
    let keys = key_file::load_or_create(&config.secrets.key_file, &store).await?;
    let homeserver = Asked::new(&config)?;
    let mut service = assemble::builder(&config, &store, keys, homeserver.clone())?;
    if let Some(settings) = config.identity()? {
        let path = &config.identity.signing_key_file;
        let signing = key_file::load_or_create_signing(path, &store).await?;
        if let Some(lost) = key_file::lost_signing(&signing, &store)? {
            tracing::warn!("{lost}");
        }
        service = service.identity(settings, signing);
    }
    let service = service.build()?;
    let mut signals = Signals::new()?;
    let unanswered = match homeserver.as_ref().and_then(Asked::with_account_server) {
        Some(homeserver) => {
            let is_answered = account_server::ask(homeserver).await?;
            (!is_answered).then(|| Arc::clone(homeserver))
        }
        None => None,
    };

    // Nobody needs to read it.
    let _ = greet(&config, &public, &internal, out);

    let limits = ConnectionLimits {
        connections: config.server.max_connections,
        grace: config.server.shutdown_grace.0,
    };
    let running = Running {
        stop: CancellationToken::new(),
        listening: TaskTracker::new(),
        background: service.start(),
        store,
    };
    let (tasks, stop) = (&running.listening, &running.stop);
    tasks.spawn(public.serve(service.router(), limits, stop.clone()));
    tasks.spawn(internal.serve(service.internal_router(), limits, stop.clone()));

    let ended = until_told(&mut signals, unanswered.as_deref()).await;
    tracing::info!("stopping: what is under way may finish; a second signal stops at once");
    tokio::select! {
        () = running.finish(&config) => ended,
        () = signals.next() => Err(Failure::Told("stopped at once, with work under way".to_owned())),
    }
}

/// Waits for the signal to stop, or for word of a homeserver that leaves us nothing to do.
async fn until_told(signals: &mut Signals, unanswered: Option<&Synapse>) -> Result<(), Failure> {
    let Some(homeserver) = unanswered else {
        signals.next().await;
        return Ok(());
    };
    tokio::select! {
        () = signals.next() => Ok(()),
        failure = account_server::watch(homeserver) => Err(failure),
    }
}

/// What must end in order.
struct Running {
    stop: CancellationToken,
    listening: TaskTracker,
    background: Background,
    store: Arc<SqliteStore>,
}

impl Running {
    /// First the requests, then the messages that they queued, then the store that both need.
    async fn finish(self, config: &Config) {
        self.stop.cancel();
        self.listening.close();
        self.listening.wait().await;
        if !self.background.stop(config.server.shutdown_grace.0).await {
            tracing::warn!(
                "some messages were still being handed over; they are tried again after the next start"
            );
        }
        self.store.close().await;
        tracing::info!("stopped");
    }
}

struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> Result<Self, Failure> {
        let listen =
            |kind| signal(kind).map_err(|error| format!("cannot listen for signals: {error}"));
        Ok(Self {
            terminate: listen(SignalKind::terminate())?,
            interrupt: listen(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

async fn bind(key: &str, addresses: &[ListenAddress]) -> Result<Listening, Failure> {
    Listening::bind(addresses)
        .await
        .map_err(|error| Failure::Told(bind_failure(key, &error)))
}

fn bind_failure(key: &str, failed: &BindError) -> String {
    let BindError { address, error } = failed;
    let variable = key.replace('.', "__").to_uppercase();
    let hint = match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "another program, perhaps another threepid, has it. Stop that one, or choose another address: {key} in the \
             configuration, or THREEPID__{variable} in the environment"
        ),
        io::ErrorKind::AddrNotAvailable => format!("this machine has no such address; see {key}"),
        io::ErrorKind::PermissionDenied => format!(
            "this user may not; ports below 1024 and the folder of a Unix socket need permission; see {key}"
        ),
        _ => format!("{error}; see {key}"),
    };
    format!("cannot listen on {address}: {hint}")
}
