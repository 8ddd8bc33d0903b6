//! Proxied requests whose identity server never answers, and what is handled here meanwhile.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    time::{Duration, Instant},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

use crate::{
    Failure, Plan,
    figure::Figure,
    identity_server::{IdentityServer, Manner},
    load::{self, now},
    requests::{Kind, Requests},
    server::{self, Server},
    turns::threepid,
};

/// How many requests hang.
pub(crate) const HANGING: usize = 500;
/// Through how many connections the others come.
pub(crate) const CONNECTIONS: usize = 16;
/// The longest until all hang: they end at the time-out of `[outbound]`, which leaves this much less to measure in.
const GATHERING: Duration = Duration::from_secs(6);

/// When a load was measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum When {
    Before,
    During,
    After,
}

/// Everything that was measured, each run by itself.
#[derive(Default)]
pub(crate) struct Hanging {
    pub(crate) loads: BTreeMap<When, Vec<Figure>>,
    /// How the requests that hung ended: how many with each status.
    pub(crate) statuses: BTreeMap<u16, usize>,
    /// The resident memory before and while they hang, in MiB.
    pub(crate) resident_mib: [Vec<f64>; 2],
}

type Clients = JoinSet<Result<u16, Failure>>;

struct Bench<'a> {
    plan: &'a Plan,
    server: Server,
    upstream: IdentityServer,
    requests: Requests,
    measured: Hanging,
}

/// Measures requests that are handled here: before, while, and after others hang.
pub(crate) async fn all(plan: &Plan, folder: &Path) -> Result<Hanging, Failure> {
    let data = folder.join("hanging");
    fs::create_dir(&data)?;
    let upstream = IdentityServer::start(Manner::Silent, &data)?;
    let server = Server::start(|address| {
        let mut command = threepid(&data, &upstream, address)?;
        // It would tell of each one that ended.
        command.env("THREEPID__LOG__LEVEL", "warn,threepid::http::respond=off");
        Ok(command)
    })?;
    let mut bench = Bench {
        plan,
        server,
        upstream,
        requests: Requests::default(),
        measured: Hanging::default(),
    };
    let first = bench.requests.next(Kind::Email, 1000, "");
    load::run(bench.server.address, first, CONNECTIONS).await?;
    for run in 1..=plan.runs {
        eprintln!("run {run} of {}: Hanging", plan.runs);
        bench.measure().await?;
    }
    Ok(bench.measured)
}

impl Bench<'_> {
    async fn measure(&mut self) -> Result<(), Failure> {
        self.load(When::Before).await?;
        self.measured.resident_mib[0].push(self.server.resident()?);
        // Written before: it would take its time while they hang.
        server::sync();
        let mut clients = self.hang().await?;
        self.load(When::During).await?;
        self.measured.resident_mib[1].push(self.server.resident()?);
        if clients.try_join_next().is_some() {
            return Err(
                "the first of those that hang ended before the others were measured".into(),
            );
        }
        while let Some(status) = clients.join_next().await {
            *self.measured.statuses.entry(status??).or_default() += 1;
        }
        self.load(When::After).await
    }

    async fn load(&mut self, when: When) -> Result<(), Failure> {
        let before = self.server.settle().await?;
        let load = self.requests.next(Kind::Email, self.plan.beside, "");
        let outcome = load::run(self.server.address, load, CONNECTIONS).await?;
        let cpu = self.server.settle().await?.saturating_sub(before);
        let figure = Figure::new(&outcome, cpu);
        self.measured.loads.entry(when).or_default().push(figure);
        Ok(())
    }

    /// Sends the requests that hang, each through a connection of its own, until the identity server has read them all.
    async fn hang(&mut self) -> Result<Clients, Failure> {
        let (began, seen) = (now(), self.upstream.requests());
        let load = self
            .requests
            .next(Kind::Proxied, HANGING, &self.upstream.name);
        let mut clients = Clients::new();
        for request in load {
            clients.spawn(ask(self.server.address, request));
        }
        while self.upstream.requests() < seen + HANGING {
            tokio::time::sleep(Duration::from_millis(10)).await;
            check(&mut clients, began)?;
        }
        Ok(clients)
    }
}

fn check(clients: &mut Clients, began: Instant) -> Result<(), Failure> {
    if let Some(ended) = clients.try_join_next() {
        return Err(format!("one of those that should hang ended: {:?}", ended?).into());
    }
    if began.elapsed() > GATHERING {
        return Err("the identity server did not get all requests in time".into());
    }
    Ok(())
}

/// Sends one request; the status of its answer.
async fn ask(address: SocketAddr, request: Vec<u8>) -> Result<u16, Failure> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(&request).await?;
    let mut head = [0; "HTTP/1.1 504".len()];
    stream.read_exact(&mut head).await?;
    Ok(String::from_utf8_lossy(&head[9..]).parse()?)
}
