//! The figures as Markdown.

use std::time::Duration;

use crate::{
    Plan,
    figure::{Figure, met},
    load::{Outcome, count},
    lookups::{Kind, Measured},
    rotation::Rotated,
};

/// The aims.
const P99_MS: f64 = 10.0;
const SLOWEST_MS: f64 = 50.0;
const BIND_CPU_MS: f64 = 2.0;

/// Prints everything.
pub(crate) fn print(plan: &Plan, machine: &str, lookups: &[Measured], rotated: &Rotated) {
    println!("`{}`\n", plan.command);
    println!(
        "{machine}, the server on one of them, the loader on the others; {} associations, {} addresses in a lookup.\n",
        plan.stored, plan.addresses
    );
    println!("| Lookup | Connections | Lookups/s | p50 ms | p99 ms | CPU ms each |");
    println!("|---|---:|---:|---:|---:|---:|");
    for (kind, concurrency, figure) in lookups {
        let Figure {
            rate,
            p50_ms,
            p99_ms,
            cpu_us,
        } = figure;
        // Several at once wait for each other: there is one core.
        let p99 = if *concurrency == 1 {
            format!("{} (≤ {P99_MS})", met(*p99_ms, P99_MS))
        } else {
            format!("{p99_ms:.2}")
        };
        let (name, cpu_ms) = (name(*kind), cpu_us / 1000.0);
        println!("| {name} | {concurrency} | {rate:.0} | {p50_ms:.2} | {p99} | {cpu_ms:.2} |");
    }
    print_rotation(rotated);
}

fn print_rotation(rotated: &Rotated) {
    let Rotated {
        rehashed,
        whole,
        cpu,
        lookups,
    } = rotated;
    println!(
        "\n| Rotation: until the pepper is new | until the old hashes are gone | CPU s | Lookups meanwhile | p50 ms | p99 ms | slowest ms |"
    );
    println!("|---:|---:|---:|---:|---:|---:|---:|");
    println!(
        "| {:.1} s | {:.1} s | {:.1} | {} | {:.2} | {:.2} | {} (≤ {SLOWEST_MS}) |",
        rehashed.as_secs_f64(),
        whole.as_secs_f64(),
        cpu.as_secs_f64(),
        lookups.count(),
        lookups.latency_ms(0.5),
        lookups.latency_ms(0.99),
        met(lookups.latency_ms(1.0), SLOWEST_MS)
    );
}

fn name(kind: Kind) -> &'static str {
    match kind {
        Kind::Hits => "all found",
        Kind::Misses => "none found",
        Kind::Mixed => "one in ten found",
    }
}

/// Prints what is written.
pub(crate) fn print_writes(writes: &[(u32, Outcome)], (bound, cpu): &(Outcome, Duration)) {
    println!("\n| Associations made at once | each second | p50 ms | p99 ms |");
    println!("|---:|---:|---:|---:|");
    for (concurrency, outcome) in writes {
        let (p50, p99) = (outcome.latency_ms(0.5), outcome.latency_ms(0.99));
        let rate = outcome.rate();
        println!("| {concurrency} | {rate:.0} | {p50:.2} | {p99:.2} |");
    }
    println!("\n| `3pid/bind`, one after the other | p50 ms | p99 ms | CPU ms each |");
    println!("|---:|---:|---:|---:|");
    println!(
        "| {} | {:.2} | {:.2} | {} (≤ {BIND_CPU_MS}) |",
        bound.count(),
        bound.latency_ms(0.5),
        bound.latency_ms(0.99),
        met(
            cpu.as_secs_f64() * 1000.0 / count(bound.count()),
            BIND_CPU_MS
        )
    );
}
