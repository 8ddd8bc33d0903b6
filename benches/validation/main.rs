//! What a validation costs, beside what it must cost: `cargo bench --bench validation`, see `docs/performance.md`.
//!
//! Prints Markdown. `-- --full` stores a million sessions and runs everything five times, in turns; `-- --only File`
//! measures one server alone, as a profiler wants it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark is read in a terminal"
)]

use std::path::Path;

mod commits;
mod figure;
mod fill;
mod floor;
mod load;
mod measure;
mod relay;
mod report;
mod server;
mod sessions;

type Failure = Box<dyn std::error::Error + Send + Sync>;

const REQUEST: &str = "/_matrix/client/v3/register/email/requestToken";
const SUBMIT: &str = "/_threepid/email/submitToken";
/// Served by the benchmark: we have no such endpoint, a homeserver calls the library.
const CHECK: &str = "/check";
/// Makes this program one of the servers that it measures.
const BECOME: &str = "--become-server";

/// How much is measured.
struct Plan {
    /// How often each server is measured.
    runs: usize,
    /// How many sessions the larger database holds; the smaller one always holds [`FEW`].
    many: usize,
    /// Connections, and how many requests go through them.
    loads: [(usize, usize); 3],
    /// How the benchmark was called.
    command: &'static str,
    /// The one server to measure, by its name in [`measure::Subject`].
    only: Option<String>,
}

const FEW: usize = 1000;
const QUICK: Plan = Plan {
    runs: 1,
    many: 50_000,
    loads: [(1, 200), (16, 1000), (64, 2000)],
    command: "cargo bench --bench validation",
    only: None,
};
const FULL: Plan = Plan {
    runs: 5,
    many: 1_000_000,
    loads: [(1, 1000), (16, 4000), (64, 8000)],
    command: "cargo bench --bench validation -- --full",
    only: None,
};

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if arguments.first().is_some_and(|first| first == BECOME) {
        return floor::become_server(&arguments[1..]);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!(
            "Nothing is measured without optimisation: run \"cargo bench --bench validation\"."
        );
        return Ok(());
    }
    let mut plan = if arguments.iter().any(|argument| argument == "--full") {
        FULL
    } else {
        QUICK
    };
    plan.only = arguments
        .iter()
        .skip_while(|argument| *argument != "--only")
        .nth(1)
        .cloned();
    let folder = tempfile::tempdir_in(Path::new(env!("CARGO_TARGET_TMPDIR")))?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let measured = runtime.block_on(measure::all(&plan, folder.path()))?;
    report::print(&plan, &measured);
    Ok(())
}
