//! The figures as Markdown.

use crate::{
    Plan,
    figure::{Figure, machine, median, met},
    hanging::{CONNECTIONS, HANGING, Hanging, When},
    requests::Kind,
    turns::Figures,
};

/// The aims; see `docs/performance.md`.
const PHONE: f64 = 1.1;
const PROXIED_CPU_US: f64 = 1000.0;
const BESIDE: f64 = 1.1;

/// Prints everything.
pub(crate) fn print(plan: &Plan, figures: &Figures, hanging: Option<&Hanging>) {
    println!("`{}`\n", plan.command);
    println!(
        "{}, loader, identity server and threepid on the same machine; median of {} runs in turns.\n",
        machine(),
        plan.runs
    );
    loads(figures);
    phones(plan, figures);
    proxied(plan, figures);
    if let Some(hanging) = hanging {
        beside(hanging);
    }
}

fn loads(figures: &Figures) {
    println!("| requestToken | Connections | Requests/s | p50 ms | p99 ms | CPU µs each |");
    println!("|---|---:|---:|---:|---:|---:|");
    for ((kind, concurrency), runs) in &figures.loads {
        let name = match kind {
            Kind::Email => "email, here",
            Kind::Phone => "phone number, here",
            Kind::Proxied => "email, proxied",
        };
        let Figure {
            rate,
            p50_ms,
            p99_ms,
            cpu_us,
        } = Figure::median(runs);
        println!(
            "| {name} | {concurrency} | {rate:.0} | {p50_ms:.2} | {p99_ms:.2} | {cpu_us:.0} |"
        );
    }
}

fn phones(plan: &Plan, figures: &Figures) {
    let of = |kind, concurrency| figures.loads.get(&(kind, concurrency));
    println!(
        "\n| Phone number, against email | Connections | Rate, email ÷ phone (≤ {PHONE}) | CPU, phone ÷ email (≤ {PHONE}) \
         | p50 (≤ {PHONE}) | p99 (≤ {PHONE}) |"
    );
    println!("|---|---:|---:|---:|---:|---:|");
    for (concurrency, _) in plan.loads {
        let (Some(email), Some(phone)) =
            (of(Kind::Email, concurrency), of(Kind::Phone, concurrency))
        else {
            continue;
        };
        let (email, phone) = (Figure::median(email), Figure::median(phone));
        println!(
            "| requestToken | {concurrency} | {} | {} | {} | {} |",
            met(email.rate / phone.rate, PHONE),
            met(phone.cpu_us / email.cpu_us, PHONE),
            met(phone.p50_ms / email.p50_ms, PHONE),
            met(phone.p99_ms / email.p99_ms, PHONE),
        );
    }
}

fn proxied(plan: &Plan, figures: &Figures) {
    println!(
        "\n| Proxied | Connections | CPU µs each (≤ {PROXIED_CPU_US}) | Requests through one connection to the identity server |"
    );
    println!("|---|---:|---:|---:|");
    // One client alone pays for each commit by itself.
    for (concurrency, _) in plan.loads.into_iter().filter(|(many, _)| *many > 1) {
        let (Some(runs), Some((connections, asked))) = (
            figures.loads.get(&(Kind::Proxied, concurrency)),
            figures.upstream.get(&concurrency),
        ) else {
            continue;
        };
        println!(
            "| requestToken | {concurrency} | {} | {} |",
            met(Figure::median(runs).cpu_us, PROXIED_CPU_US),
            asked / (*connections).max(1),
        );
    }
}

fn beside(hanging: &Hanging) {
    println!(
        "\n| requestToken, email, here, {CONNECTIONS} connections | Requests/s | p50 ms | p99 ms | CPU µs each |"
    );
    println!("|---|---:|---:|---:|---:|");
    let of = |when| hanging.loads.get(&when).map(|runs| Figure::median(runs));
    for (when, words) in [
        (When::Before, "before".to_owned()),
        (When::During, format!("while {HANGING} proxied ones hang")),
        (When::After, "after".to_owned()),
    ] {
        if let Some(figure) = of(when) {
            let Figure {
                rate,
                p50_ms,
                p99_ms,
                cpu_us,
            } = figure;
            println!("| {words} | {rate:.0} | {p50_ms:.2} | {p99_ms:.2} | {cpu_us:.0} |");
        }
    }
    println!("\n| Aim | Reached |");
    println!("|---|---:|");
    if let (Some(before), Some(during), Some(after)) =
        (of(When::Before), of(When::During), of(When::After))
    {
        // What differs between before and after is chance.
        for (words, figure) in [("while they hang", during), ("after", after)] {
            for (what, ratio) in [
                ("Rate, before ÷", before.rate / figure.rate),
                ("p50, ÷ before,", figure.p50_ms / before.p50_ms),
                ("p99, ÷ before,", figure.p99_ms / before.p99_ms),
            ] {
                println!("| {what} {words} (≤ {BESIDE}) | {} |", met(ratio, BESIDE));
            }
        }
    }
    let [before, during] = &hanging.resident_mib;
    // Before the first time: what connections took is kept for the next ones.
    if let Some(before) = before.first() {
        println!("| Resident before, MiB | {before:.1} |");
    }
    let during = median(during.iter().copied());
    println!("| Resident while they hang, MiB | {during:.1} |");
    for (status, count) in &hanging.statuses {
        println!("| Of those that hung, ended with status {status} | {count} |");
    }
}
