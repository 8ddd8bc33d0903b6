//! Requests of each kind, measured in turns.

use std::{collections::BTreeMap, fs, net::SocketAddr, path::Path, process::Command};

use crate::{
    Failure, Plan,
    figure::Figure,
    identity_server::{IdentityServer, Manner},
    load,
    requests::{KINDS, Kind, Requests},
    server::{self, Server},
};

/// Everything that was measured, each run by itself.
#[derive(Default)]
pub(crate) struct Figures {
    pub(crate) loads: BTreeMap<(Kind, usize), Vec<Figure>>,
    /// How many connections the identity server saw, and requests through them, by the connections of the load.
    pub(crate) upstream: BTreeMap<usize, (usize, usize)>,
}

/// Measures all kinds of requests, each at a server of its own.
pub(crate) async fn all(plan: &Plan, folder: &Path) -> Result<Figures, Failure> {
    let mut figures = Figures::default();
    for run in 1..=plan.runs {
        for kind in KINDS {
            if plan.measures(&format!("{kind:?}")) {
                eprintln!("run {run} of {}: {kind:?}", plan.runs);
                let data = folder.join(format!("{kind:?}-{run}"));
                measure(plan, kind, &data, &mut figures).await?;
            }
        }
    }
    Ok(figures)
}

async fn measure(
    plan: &Plan,
    kind: Kind,
    data: &Path,
    figures: &mut Figures,
) -> Result<(), Failure> {
    fs::create_dir(data)?;
    let upstream = IdentityServer::start(Manner::Prompt, data)?;
    let server = Server::start(|address| threepid(data, &upstream, address))?;
    let mut requests = Requests::default();
    // Threads, statements, expressions of the countries and connections come with the first requests.
    load::run(server.address, requests.next(kind, 200, &upstream.name), 16).await?;
    for (concurrency, count) in plan.loads {
        server::sync();
        let before = server.settle().await?;
        let met = (upstream.connections(), upstream.requests());
        let load = requests.next(kind, count, &upstream.name);
        let outcome = load::run(server.address, load, concurrency).await?;
        let cpu = server.settle().await?.saturating_sub(before);
        let figure = Figure::new(&outcome, cpu);
        let runs = figures.loads.entry((kind, concurrency)).or_default();
        runs.push(figure);
        if kind == Kind::Proxied {
            let (connections, asked) = figures.upstream.entry(concurrency).or_default();
            *connections += upstream.connections() - met.0;
            *asked += upstream.requests() - met.1;
        }
    }
    Ok(())
}

/// The program, which captures messages of both media, and lets clients choose this identity server.
pub(crate) fn threepid(
    data: &Path,
    upstream: &IdentityServer,
    address: SocketAddr,
) -> Result<Command, Failure> {
    let mut command = server::threepid(data, "capture", address)?;
    command
        .env("THREEPID__SMS__TRANSPORT", "capture")
        .env("THREEPID__SMS__CEILINGS__PER_SOURCE", "off")
        .env("THREEPID__SMS__CEILINGS__PER_CALLING_CODE", "off")
        .env("THREEPID__SMS__CEILINGS__TOTAL", "off")
        .env("THREEPID__EMAIL__VALIDATE", "client-choice")
        .env("THREEPID__IDENTITY_SERVERS__TRUSTED", &upstream.name)
        .env("THREEPID__OUTBOUND__ALLOW", "127.0.0.0/8,::1/128")
        .env("THREEPID__OUTBOUND__CA_FILES", &upstream.ca_file);
    Ok(command)
}
