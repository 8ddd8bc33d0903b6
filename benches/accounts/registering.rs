//! Registrations with a mailed code: one kind of request after the other while the mails are held, and whole ones.

use std::{
    collections::BTreeMap,
    path::Path,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::task::JoinSet;

use crate::{
    Failure, Plan,
    figure::Figure,
    homeserver::{Homeserver, REGISTRATION_TOKEN},
    load::{self, Outcome},
    measure::{threepid, user},
    person::{Connection, POLLS, Person},
    relay::Relay,
    server::{self, Server},
};

/// The first one's number: each address is used once.
const FIRST: usize = 9_000_000;

/// What is measured of registrations.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Part {
    /// The first `POST register`.
    Start,
    /// `requestToken`, whose mail is held.
    RequestToken,
    /// `POST register` while the address is not proved.
    Poll,
    /// `submitToken` with the mailed code.
    SubmitToken,
    /// The last `POST register`, and what follows from it.
    Finish,
    /// The mail's delivery.
    Mail,
    /// All of it, the mail included; others are at any step meanwhile.
    Whole,
}

impl Part {
    pub(crate) const ALL: [Self; 7] = [
        Self::Start,
        Self::RequestToken,
        Self::Poll,
        Self::SubmitToken,
        Self::Finish,
        Self::Mail,
        Self::Whole,
    ];

    /// How many of these requests a registration has.
    pub(crate) fn count(self) -> usize {
        match self {
            Self::Start | Self::RequestToken | Self::SubmitToken | Self::Finish => 1,
            Self::Poll => POLLS,
            Self::Mail | Self::Whole => 0,
        }
    }
}

/// What was measured of one part.
#[derive(Clone, Copy)]
pub(crate) struct Cost {
    /// A mail has no rate and no latency.
    pub(crate) figure: Figure,
    /// How many requests the homeserver got for one.
    pub(crate) calls: f64,
}

/// Everything that was measured, each run by itself.
pub(crate) type Costs = BTreeMap<(Part, usize), Vec<Cost>>;

/// Lets people register at a server of its own, on the database in `data`.
pub(crate) async fn all(plan: &Plan, data: &Path, costs: &mut Costs) -> Result<(), Failure> {
    let bench = Bench::start(data)?;
    let mut first = FIRST;
    for (concurrency, count) in plan.registrations {
        let mut people = || {
            first += count;
            (first - count..first).map(Person::new).collect()
        };
        bench.parts(people(), concurrency, costs).await?;
        bench.whole(people(), concurrency, costs).await?;
    }
    Ok(())
}

struct Bench {
    homeserver: Homeserver,
    relay: Arc<Relay>,
    server: Server,
}

impl Bench {
    fn start(data: &Path) -> Result<Self, Failure> {
        let homeserver = Homeserver::start()?;
        let relay = Arc::new(Relay::start()?);
        let server = Server::start(|address| {
            let mut command = threepid(data, &relay.transport, &homeserver, address)?;
            command
                .env(
                    "THREEPID__HOMESERVER__REGISTRATION_TOKEN",
                    REGISTRATION_TOKEN,
                )
                .env("THREEPID__LIMITS__PER_SOURCE_REGISTER", "off");
            Ok(command)
        })?;
        Ok(Self {
            homeserver,
            relay,
            server,
        })
    }

    /// Everybody does one step, before anybody does the next.
    async fn parts(
        &self,
        mut people: Vec<Person>,
        concurrency: usize,
        costs: &mut Costs,
    ) -> Result<(), Failure> {
        let mut meter = Meter::start(self, concurrency, costs).await?;
        self.relay.hold(true);
        let requests = people.iter().map(Person::start).collect();
        for (number, answer) in meter.load(Part::Start, requests, 401).await?.answers {
            people[number].started(&answer)?;
        }
        let requests = people.iter().map(Person::request_token).collect();
        for (number, answer) in meter.load(Part::RequestToken, requests, 200).await?.answers {
            people[number].requested(&answer)?;
        }
        self.relay.hold(false);
        for person in &mut people {
            person.session.code = self.relay.code(&person.session.email).await?;
        }
        meter.mails(people.len()).await?;
        let polls = (0..POLLS).flat_map(|_| people.iter().map(Person::show));
        meter.load(Part::Poll, polls.collect(), 401).await?;
        let requests = people.iter().map(Person::submit_token).collect();
        meter.load(Part::SubmitToken, requests, 200).await?;
        let requests = people.iter().map(Person::show).collect();
        meter.load(Part::Finish, requests, 200).await?;
        self.check(people.iter().map(|person| person.session.email.as_str()))
    }

    /// Everybody goes from the first step to the last, `concurrency` at once.
    async fn whole(
        &self,
        people: Vec<Person>,
        concurrency: usize,
        costs: &mut Costs,
    ) -> Result<(), Failure> {
        let emails: Vec<_> = people
            .iter()
            .map(|person| person.session.email.clone())
            .collect();
        let mut meter = Meter::start(self, concurrency, costs).await?;
        let people = Arc::new(Mutex::new(people));
        let began = load::now();
        let mut clients = JoinSet::new();
        for _ in 0..concurrency {
            let mut connection = Connection::open(self.server.address).await?;
            let (people, relay) = (Arc::clone(&people), Arc::clone(&self.relay));
            clients.spawn(async move {
                let mut latencies = Vec::new();
                while let Some(person) = next(&people) {
                    latencies.push(person.register(&mut connection, &relay).await?);
                }
                Ok::<_, Failure>(latencies)
            });
        }
        let mut latencies = Vec::new();
        while let Some(client) = clients.join_next().await {
            latencies.extend(client??);
        }
        let outcome = Outcome::new(latencies, began.elapsed(), Vec::new())?;
        meter.note(Part::Whole, &outcome).await?;
        self.check(emails.iter().map(String::as_str))
    }

    /// Whether everybody has their address.
    fn check<'a>(&self, emails: impl Iterator<Item = &'a str>) -> Result<(), Failure> {
        let lost = emails.filter(|email| !self.homeserver.has(user(email), email));
        match lost.count() {
            0 => Ok(()),
            lost => Err(format!("{lost} accounts have not got their address").into()),
        }
    }
}

fn next(people: &Mutex<Vec<Person>>) -> Option<Person> {
    people.lock().unwrap_or_else(PoisonError::into_inner).pop()
}

/// Tells what each part costs, beginning with where the part before it ended.
struct Meter<'a> {
    bench: &'a Bench,
    concurrency: usize,
    costs: &'a mut Costs,
    cpu: Duration,
    calls: usize,
}

impl<'a> Meter<'a> {
    async fn start(
        bench: &'a Bench,
        concurrency: usize,
        costs: &'a mut Costs,
    ) -> Result<Self, Failure> {
        server::sync();
        Ok(Self {
            bench,
            concurrency,
            costs,
            cpu: bench.server.settle().await?,
            calls: bench.homeserver.requests(),
        })
    }

    /// One kind of request, all of which must be answered, and with `status`.
    async fn load(
        &mut self,
        part: Part,
        requests: Vec<Vec<u8>>,
        status: u16,
    ) -> Result<Outcome, Failure> {
        let wanted = requests.len();
        let address = self.bench.server.address;
        let outcome = load::run_until(address, requests, self.concurrency, status).await?;
        if outcome.count() < wanted {
            return Err(format!("{part:?}: not all requests were answered in time").into());
        }
        self.note(part, &outcome).await?;
        Ok(outcome)
    }

    async fn note(&mut self, part: Part, outcome: &Outcome) -> Result<(), Failure> {
        let (cpu, calls) = self.spent().await?;
        self.keep(
            part,
            Figure::new(outcome, cpu),
            calls / load::count(outcome.count()),
        );
        Ok(())
    }

    /// Mails, which nobody waits for.
    async fn mails(&mut self, count: usize) -> Result<(), Failure> {
        let (cpu, calls) = self.spent().await?;
        let figure = Figure {
            rate: f64::NAN,
            p50_ms: f64::NAN,
            p99_ms: f64::NAN,
            cpu_us: cpu.as_secs_f64() * 1e6 / load::count(count),
        };
        self.keep(Part::Mail, figure, calls / load::count(count));
        Ok(())
    }

    /// The CPU time, and the requests to the homeserver, since it was asked last.
    async fn spent(&mut self) -> Result<(Duration, f64), Failure> {
        let (cpu, calls) = (
            self.bench.server.settle().await?,
            self.bench.homeserver.requests(),
        );
        let spent = (
            cpu.saturating_sub(self.cpu),
            load::count(calls - self.calls),
        );
        (self.cpu, self.calls) = (cpu, calls);
        Ok(spent)
    }

    fn keep(&mut self, part: Part, figure: Figure, calls: f64) {
        let runs = self.costs.entry((part, self.concurrency)).or_default();
        runs.push(Cost { figure, calls });
    }
}
