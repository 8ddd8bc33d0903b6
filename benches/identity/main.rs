//! What lookups cost, and what a rotation of the pepper costs those who look up: `cargo bench --bench identity`.
//!
//! Prints Markdown. `-- --full` stores a million associations. The server is this program itself, in a process of its own
//! on one core, with the library's router as a host mounts it.

#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a benchmark is read in a terminal"
)]

use std::path::Path;

mod binds;
#[path = "../validation/figure.rs"]
#[expect(dead_code, reason = "this benchmark has one run of each load")]
mod figure;
mod fill;
#[path = "../validation/load.rs"]
#[expect(dead_code, reason = "other benchmarks ask for other statuses")]
mod load;
mod lookups;
mod report;
mod rotation;
mod serve;
#[path = "../validation/server.rs"]
#[expect(dead_code, reason = "other benchmarks measure the program itself")]
mod server;
mod writes;

type Failure = Box<dyn std::error::Error + Send + Sync>;

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    /// How many associations the database holds.
    stored: u32,
    /// How many addresses a lookup has.
    addresses: u32,
    /// Connections, and how many lookups of each kind go through them.
    loads: [(usize, usize); 2],
    /// How many associations are made, and by how many at once.
    writes: [(u32, u32); 2],
    /// How often an address is bound over HTTP.
    binds: usize,
    /// How the benchmark was called.
    command: &'static str,
}

const QUICK: Plan = Plan {
    stored: 10_000,
    addresses: 1000,
    loads: [(1, 100), (4, 200)],
    writes: [(1, 50), (16, 400)],
    binds: 200,
    command: "cargo bench --bench identity",
};
const FULL: Plan = Plan {
    stored: 1_000_000,
    addresses: 1000,
    loads: [(1, 400), (4, 800)],
    writes: [(1, 300), (16, 4000)],
    binds: 2000,
    command: "cargo bench --bench identity -- --full",
};

fn main() -> Result<(), Failure> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [first, folder, address] = &arguments[..]
        && first == serve::ARGUMENT
    {
        return serve::run(Path::new(folder), address.parse()?);
    }
    if !arguments.iter().any(|argument| argument == "--bench") {
        println!("Nothing is measured without optimisation: run \"cargo bench --bench identity\".");
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
    eprintln!("filling");
    fill::database(folder.path(), plan.stored)?;
    let lookups = runtime.block_on(lookups::all(&plan, folder.path()))?;
    let rotated = runtime.block_on(rotation::measure(&plan, folder.path()))?;
    let writes = runtime.block_on(writes::all(&plan, folder.path()))?;
    let bound = runtime.block_on(binds::measure(&plan, folder.path()))?;
    report::print(&plan, &machine, &lookups, &rotated);
    report::print_writes(&writes, &bound);
    Ok(())
}
