//! What phone numbers and identity servers cost: `cargo bench --bench proxying`, see `docs/performance.md`.
//!
//! Prints Markdown. `-- --full` runs everything five times, in turns; `-- --only Phone` measures one kind of request
//! alone, as a profiler wants it, and `-- --only Hanging` those that hang.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark is read in a terminal"
)]

use std::path::Path;

#[path = "../../tests/it/support/certificates.rs"]
#[expect(dead_code, reason = "the tests show wrong certificates too")]
mod certificates;
#[path = "../validation/figure.rs"]
mod figure;
mod hanging;
mod identity_server;
#[path = "../validation/load.rs"]
#[expect(dead_code, reason = "the other benchmark reads the answers")]
mod load;
mod report;
mod requests;
#[path = "../validation/server.rs"]
mod server;
mod turns;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
struct Plan {
    /// How often everything is measured.
    runs: usize,
    /// Connections, and how many requests go through them.
    loads: [(usize, usize); 3],
    /// How many requests are measured beside those that hang.
    beside: usize,
    /// How the benchmark was called.
    command: &'static str,
    /// The one thing to measure: a kind of request by its name, or `Hanging`.
    only: Option<String>,
}

const QUICK: Plan = Plan {
    runs: 1,
    loads: [(1, 200), (16, 1000), (64, 2000)],
    beside: 2000,
    command: "cargo bench --bench proxying",
    only: None,
};
const FULL: Plan = Plan {
    runs: 5,
    loads: [(1, 1000), (16, 4000), (64, 8000)],
    beside: 8000,
    command: "cargo bench --bench proxying -- --full",
    only: None,
};

impl Plan {
    fn measures(&self, name: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only == name)
    }
}

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("Nothing is measured without optimisation: run \"cargo bench --bench proxying\".");
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
    let figures = runtime.block_on(turns::all(&plan, folder.path()))?;
    let hanging = if plan.measures("Hanging") {
        Some(runtime.block_on(hanging::all(&plan, folder.path()))?)
    } else {
        None
    };
    report::print(&plan, &figures, hanging.as_ref());
    Ok(())
}
