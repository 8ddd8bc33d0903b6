//! What accounts cost: `cargo bench --bench accounts`, see `docs/performance.md`.
//!
//! Prints Markdown. `-- --full` stores a million sessions and runs everything five times.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark is read in a terminal"
)]

use std::path::Path;

#[path = "../validation/figure.rs"]
mod figure;
#[path = "../validation/fill.rs"]
mod fill;
mod homeserver;
#[path = "../validation/load.rs"]
mod load;
mod measure;
mod person;
mod registering;
mod relay;
mod report;
#[path = "../validation/server.rs"]
mod server;
#[path = "../validation/sessions.rs"]
mod sessions;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
struct Plan {
    /// How often everything is measured.
    runs: usize,
    /// How many sessions the database holds before.
    stored: usize,
    /// Connections, and how many requests go through them.
    polls: [(usize, usize); 2],
    /// The same for what changes something.
    changes: [(usize, usize); 2],
    /// The same for registrations.
    registrations: [(usize, usize); 3],
    /// How the benchmark was called.
    command: &'static str,
}

const QUICK: Plan = Plan {
    runs: 1,
    stored: 50_000,
    polls: [(1, 2_000), (16, 20_000)],
    changes: [(1, 200), (16, 400)],
    registrations: [(1, 100), (16, 320), (64, 320)],
    command: "cargo bench --bench accounts",
};
const FULL: Plan = Plan {
    runs: 5,
    stored: 1_000_000,
    polls: [(1, 10_000), (16, 60_000)],
    changes: [(1, 300), (16, 1_000)],
    registrations: [(1, 300), (16, 1_000), (64, 1_000)],
    command: "cargo bench --bench accounts -- --full",
};

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("Nothing is measured without optimisation: run \"cargo bench --bench accounts\".");
        return Ok(());
    }
    let is_full = arguments.iter().any(|argument| argument == "--full");
    let plan = if is_full { FULL } else { QUICK };
    // Before this process is kept off the server's core.
    let machine = figure::machine();
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let figures = runtime.block_on(measure::all(&plan, folder.path()))?;
    report::print(&plan, &machine, &figures);
    Ok(())
}
