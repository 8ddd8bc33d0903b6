//! The server that is measured: a host that mounts the library's router.

use std::{
    fs,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{self, Command, Stdio},
    sync::Arc,
};

use threepid::{
    Keyring, SigningKeys, Threepid,
    courier::capture::Capture,
    identity, limits,
    store::sqlite::{Role, SqliteStore},
};

use crate::{Failure, server::Server};

/// What tells this program to be the server.
pub(crate) const ARGUMENT: &str = "--serve";

/// A server over the database in `folder`, on the first core, and a token for it.
pub(crate) fn start(folder: &Path) -> Result<(Server, String), Failure> {
    let token = token_file(folder);
    if token.exists() {
        fs::remove_file(&token)?;
    }
    let server = Server::start(|address| {
        let mut command = Command::new("taskset");
        command.args(["--cpu-list", "0"]);
        command.arg(std::env::current_exe()?);
        command.arg(ARGUMENT).arg(folder).arg(address.to_string());
        pin_self()?;
        Ok(command)
    })?;
    Ok((server, fs::read_to_string(token)?))
}

/// Is the server, until it is killed.
pub(crate) fn run(folder: &Path, address: SocketAddr) -> Result<(), Failure> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(serve(folder, address))
}

async fn serve(folder: &Path, address: SocketAddr) -> Result<(), Failure> {
    let store = SqliteStore::open(&folder.join("threepid.db"), Role::Server)?;
    let keys = Keyring::parse(&Keyring::generate_file())?;
    let url = "https://matrix.example.org".parse()?;
    let settings = identity::Settings::new("matrix.example.org".parse()?);
    let threepid = Threepid::builder(url, store, keys)
        .email(Arc::new(Capture::in_memory()))
        .limits(limits::Settings::OFF)
        .identity(settings, SigningKeys::generate()?)
        .build()?;
    let token = threepid.identity_token("@asks:example.org").await?;
    fs::write(token_file(folder), token.reveal())?;
    let _background = threepid.start();
    let listener = tokio::net::TcpListener::bind(address).await?;
    let router = threepid.router();
    axum::serve(
        listener,
        router.into_make_service_with_connect_info::<SocketAddr>(),
    )
    .await?;
    Ok(())
}

fn token_file(folder: &Path) -> PathBuf {
    folder.join("token")
}

/// Leaves the server's core to it.
fn pin_self() -> Result<(), Failure> {
    let pinned = Command::new("taskset")
        .args(["--all-tasks", "--pid", "--cpu-list", "1-1023"])
        .arg(process::id().to_string())
        .stdout(Stdio::null())
        .status()?;
    if pinned.success() {
        Ok(())
    } else {
        Err("taskset can not pin this process: two cores are needed".into())
    }
}
