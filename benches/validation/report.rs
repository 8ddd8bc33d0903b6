//! The figures as Markdown.

use crate::{
    FEW, Plan,
    figure::{Figure, machine, median, met},
    measure::{Measured, Operation, RELAY_DELAY, Subject, Vitals},
};

/// The aims; see `docs/performance.md`.
const COST: f64 = 1.5;
const GROWTH: f64 = 1.2;
const RELAY: f64 = 1.1;
const RESIDENT_MIB: f64 = 40.0;
const FIRST_ANSWER_MS: f64 = 100.0;

const OPERATIONS: [(Operation, &str); 4] = [
    (Operation::Request, "requestToken"),
    (Operation::Link, "submitToken, link"),
    (Operation::Code, "submitToken, code"),
    (Operation::Check, "check of a proof"),
];

/// Prints everything.
pub(crate) fn print(plan: &Plan, measured: &Measured) {
    let report = Report { plan, measured };
    report.head();
    report.figures();
    report.costs();
    report.others();
}

struct Report<'a> {
    plan: &'a Plan,
    measured: &'a Measured,
}

impl Report<'_> {
    fn head(&self) {
        println!("`{}`\n", self.plan.command);
        println!(
            "{}, loader and servers on the same machine; median of {} runs in turns.\n",
            machine(),
            self.plan.runs
        );
    }

    /// Every load of every server.
    fn figures(&self) {
        println!(
            "| Operation | Connections | Server | Requests/s | p50 ms | p99 ms | CPU µs each |"
        );
        println!("|---|---:|---|---:|---:|---:|---:|");
        for (operation, concurrency, subject) in self.measured.figures.keys() {
            let Some(figure) = self.median(*operation, *concurrency, *subject) else {
                continue;
            };
            let name = OPERATIONS.iter().find(|(known, _)| known == operation);
            let Figure {
                rate,
                p50_ms,
                p99_ms,
                cpu_us,
            } = figure;
            let cpu = if matches!(subject, Subject::SlowRelay | Subject::RefusingRelay) {
                // Most mails are still to be sent.
                "–".to_owned()
            } else {
                format!("{cpu_us:.0}")
            };
            println!(
                "| {} | {concurrency} | {} | {rate:.0} | {p50_ms:.2} | {p99_ms:.2} | {cpu} |",
                name.map_or("", |(_, name)| *name),
                self.name(*subject),
            );
        }
    }

    /// The aims that hold for each operation.
    fn costs(&self) {
        println!(
            "\n| Operation | Connections | Rate, floor ÷ ours (≤ {COST}) | CPU, ours ÷ floor (≤ {COST}) \
             | p50, {} ÷ {FEW} stored (≤ {GROWTH}) | p99 (≤ {GROWTH}) |",
            self.plan.many
        );
        println!("|---|---:|---:|---:|---:|---:|");
        for (operation, name) in OPERATIONS {
            for (concurrency, _) in self.plan.loads {
                self.cost(name, operation, concurrency);
            }
        }
    }

    /// One line of it. Each of ours is held against the floor that does the same: mails that are kept in memory cost
    /// no more than a line, files are written and synced.
    fn cost(&self, name: &str, operation: Operation, concurrency: usize) {
        let of = |subject| self.median(operation, concurrency, subject);
        let ratios = |ours: &Figure, floor: &Figure| {
            let rate = met(floor.rate / ours.rate, COST);
            format!("{rate} | {}", met(ours.cpu_us / floor.cpu_us, COST))
        };
        if let (Some(ours), Some(floor)) = (of(Subject::Capture), of(Subject::Commits)) {
            let ratios = ratios(&ours, &floor);
            println!("| {name}, `capture` | {concurrency} | {ratios} | | |");
        }
        let floor = of(Subject::CommitsMail).or_else(|| of(Subject::Commits));
        let (Some(ours), Some(floor)) = (of(Subject::File), floor) else {
            return;
        };
        let growth = of(Subject::FileMany).map_or(" | ".to_owned(), |many| {
            let p50 = met(many.p50_ms / ours.p50_ms, GROWTH);
            format!("{p50} | {}", met(many.p99_ms / ours.p99_ms, GROWTH))
        });
        let ratios = ratios(&ours, &floor);
        println!("| {name}, `file:` | {concurrency} | {ratios} | {growth} |");
    }

    /// The aims that hold for the server as a whole.
    fn others(&self) {
        println!("\n| Aim | Reached |");
        println!("|---|---:|");
        let request = |subject| self.median(Operation::Request, 64, subject);
        let file = request(Subject::File);
        let relays = [
            (
                format!("behind a relay that takes {} ms", RELAY_DELAY.as_millis()),
                Subject::SlowRelay,
            ),
            (
                "behind a relay that refuses".to_owned(),
                Subject::RefusingRelay,
            ),
        ];
        for (words, subject) in relays {
            if let (Some(relay), Some(file)) = (request(subject), file) {
                let ratio = met(relay.p99_ms / file.p99_ms, RELAY);
                println!(
                    "| p99 of requestToken {words}, 64 connections, ÷ `file:` (≤ {RELAY}) | {ratio} |"
                );
            }
        }
        for subject in [Subject::File, Subject::FileMany] {
            if !self.measured.vitals.contains_key(&subject) {
                continue;
            }
            let vitals = |of: fn(&Vitals) -> f64| {
                median(
                    self.measured
                        .vitals
                        .get(&subject)
                        .into_iter()
                        .flatten()
                        .map(of),
                )
            };
            let name = self.name(subject);
            for (words, limit, value) in [
                (
                    "First answer after start, ms",
                    FIRST_ANSWER_MS,
                    vitals(|vitals| vitals.first_answer_ms),
                ),
                (
                    "Resident at start, MiB",
                    RESIDENT_MIB,
                    vitals(|vitals| vitals.resident_at_start),
                ),
                (
                    "Resident after the loads, MiB",
                    RESIDENT_MIB,
                    vitals(|vitals| vitals.resident_after),
                ),
            ] {
                println!("| {words}: {name} (< {limit}) | {} |", met(value, limit));
            }
        }
    }

    fn name(&self, subject: Subject) -> String {
        match subject {
            Subject::Bare => "bare handler".to_owned(),
            Subject::Commits => "floor".to_owned(),
            Subject::CommitsMail => "floor, with mail files".to_owned(),
            Subject::Capture => "threepid, `capture`".to_owned(),
            Subject::File => format!("threepid, `file:`, {FEW} stored"),
            Subject::FileMany => format!("threepid, `file:`, {} stored", self.plan.many),
            Subject::SlowRelay => "threepid, slow relay".to_owned(),
            Subject::RefusingRelay => "threepid, refusing relay".to_owned(),
        }
    }

    fn median(&self, operation: Operation, concurrency: usize, subject: Subject) -> Option<Figure> {
        let runs = self
            .measured
            .figures
            .get(&(operation, concurrency, subject))?;
        Some(Figure::median(runs))
    }
}
