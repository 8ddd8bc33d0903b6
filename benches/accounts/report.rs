//! The figures as Markdown.

use crate::{
    Plan,
    figure::{Figure, median, met},
    load::count,
    measure::{Figures, Kind},
    registering::{Cost, Costs, Part},
};

/// The aims; see `docs/performance.md`.
const POLL_CPU_US: f64 = 200.0;
const CHANGE_CPU_US: f64 = 2000.0;
const REGISTRATION_CPU_MS: f64 = 3.0;

/// Prints everything.
pub(crate) fn print(plan: &Plan, machine: &str, figures: &Figures) {
    println!("`{}`\n", plan.command);
    println!(
        "{machine}, threepid on one of them, loader and homeserver on the others; {} stored sessions; median of {} runs.\n",
        plan.stored, plan.runs
    );
    println!(
        "| Request | Connections | Requests/s | p50 ms | p99 ms | CPU µs each | Calls to the homeserver each |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for ((kind, concurrency), runs) in &figures.loads {
        let Figure {
            rate,
            p50_ms,
            p99_ms,
            cpu_us,
        } = Figure::median(runs);
        let limit = if *kind == Kind::Poll {
            POLL_CPU_US
        } else {
            CHANGE_CPU_US
        };
        let cpu = met(cpu_us, limit);
        let calls = figures.calls.get(&(*kind, *concurrency));
        let calls = calls.copied().unwrap_or_default();
        println!(
            "| {} | {concurrency} | {rate:.0} | {p50_ms:.2} | {p99_ms:.2} | {cpu} (≤ {limit}) | {calls:.1} |",
            name(*kind)
        );
    }
    parts(&figures.registrations);
    whole(plan, &figures.registrations);
}

/// The requests of a registration, each kind by itself.
fn parts(costs: &Costs) {
    println!(
        "\n| Register, by code | Connections | Requests/s | p50 ms | p99 ms | CPU µs each | Calls to the homeserver each |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for ((part, concurrency), runs) in costs {
        let Some(name) = part_name(*part) else {
            continue;
        };
        let (figure, calls) = middle(runs);
        let Figure {
            rate,
            p50_ms,
            p99_ms,
            cpu_us,
        } = figure;
        let met = if rate.is_nan() {
            "– | – | –".to_owned()
        } else {
            format!("{rate:.0} | {p50_ms:.2} | {p99_ms:.2}")
        };
        println!("| {name} | {concurrency} | {met} | {cpu_us:.0} | {calls:.1} |");
    }
}

/// What a registration costs in all.
fn whole(plan: &Plan, costs: &Costs) {
    println!(
        "\n| Register, by code | CPU ms of all its requests | Calls to the homeserver | Registrations/s | p50 ms | p99 ms | CPU ms, its mail included |"
    );
    println!("|---|---:|---:|---:|---:|---:|---:|");
    for (concurrency, _) in plan.registrations {
        let runs = |part| {
            costs
                .get(&(part, concurrency))
                .map_or(&[][..], Vec::as_slice)
        };
        let of_all = |value: fn(&Cost) -> f64| {
            let sum = |run: usize| {
                let parts = Part::ALL.map(|part| {
                    let cost = runs(part).get(run);
                    count(part.count()) * cost.map_or(f64::NAN, value)
                });
                parts.iter().sum::<f64>()
            };
            median((0..plan.runs).map(sum))
        };
        let cpu = met(
            of_all(|cost| cost.figure.cpu_us) / 1000.0,
            REGISTRATION_CPU_MS,
        );
        let calls = of_all(|cost| cost.calls);
        let (figure, _) = middle(runs(Part::Whole));
        println!(
            "| {concurrency} at once | {cpu} (≤ {REGISTRATION_CPU_MS}) | {calls:.1} | {:.0} | {:.2} | {:.2} | {:.2} |",
            figure.rate,
            figure.p50_ms,
            figure.p99_ms,
            figure.cpu_us / 1000.0
        );
    }
}

fn middle(runs: &[Cost]) -> (Figure, f64) {
    let figures: Vec<_> = runs.iter().map(|cost| cost.figure).collect();
    (
        Figure::median(&figures),
        median(runs.iter().map(|cost| cost.calls)),
    )
}

/// `None` for what has a table of its own.
fn part_name(part: Part) -> Option<&'static str> {
    match part {
        Part::Start => Some("`register`, begin"),
        Part::RequestToken => Some("`requestToken`"),
        Part::Poll => Some("`register`, poll"),
        Part::SubmitToken => Some("`submitToken`"),
        Part::Finish => Some("`register`, finish"),
        Part::Mail => Some("the mail"),
        Part::Whole => None,
    }
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Poll => "poll of a reset",
        Kind::Add => "add an address",
        Kind::Reset => "reset a password",
    }
}
