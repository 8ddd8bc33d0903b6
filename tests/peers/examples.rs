//! The examples run and finish their flow.

use std::{
    io::{BufRead, BufReader},
    path::PathBuf,
    process::{Child, Command, Stdio},
};

/// Ends its process with itself.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn example(name: &str) -> Command {
    let mut path: PathBuf = std::env::current_exe().expect("this test is a file");
    path.pop();
    path.pop();
    Command::new(path.join("examples").join(name))
}

#[test]
fn a_client_signs_up_at_the_embedding_homeserver_once() {
    let mut embed = example("embed")
        .arg("127.0.0.1:0")
        .stdout(Stdio::piped())
        .spawn()
        .map(Running)
        .expect("cargo test builds the examples");
    let stdout = embed.0.stdout.take().expect("it is piped");
    let greeting = BufReader::new(stdout)
        .lines()
        .next()
        .expect("a line")
        .expect("text");
    let server = greeting
        .split_whitespace()
        .find_map(|word| word.strip_suffix(';'))
        .expect("it tells where it listens");
    let client = || {
        let run = example("client").arg(server).stdin(Stdio::null()).output();
        let run = run.expect("it runs");
        (
            run.status.success(),
            String::from_utf8_lossy(&run.stdout).into_owned(),
        )
    };

    let (first, second) = (client(), client());

    assert!(
        first.0 && first.1.contains("registered: \"@alice:localhost\""),
        "{}",
        first.1
    );
    assert!(
        !second.0,
        "the address is taken: its owner gets a notice, and no code"
    );
}
