//! The figures as Markdown.

use crate::{
    Plan,
    figure::{Figure, met},
    measure::{Figures, Kind},
};

/// The aims; see `docs/performance.md`.
const POLL_CPU_US: f64 = 200.0;
const CHANGE_CPU_US: f64 = 2000.0;

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
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Poll => "poll of a reset",
        Kind::Add => "add an address",
        Kind::Reset => "reset a password",
    }
}
