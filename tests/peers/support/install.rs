//! Programs of others, from Debian's packages.

use std::{process::Command, sync::Mutex};

/// Installs `packages` unless all `programs` can be run already.
pub(crate) fn need(programs: &[&str], packages: &[&str]) {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock();
    let works = || programs.iter().all(|name| runs(name, &["--version"]));
    let install = [&["install", "-y", "--no-install-recommends"], packages].concat();
    let installed = works() || ((apt(&install) || (apt(&["update"]) && apt(&install))) && works());
    assert!(
        installed,
        "run this as root, these tests need it: apt-get {}",
        install.join(" ")
    );
}

fn apt(arguments: &[&str]) -> bool {
    runs("apt-get", arguments)
}

fn runs(program: &str, arguments: &[&str]) -> bool {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive");
    command.output().is_ok_and(|output| output.status.success())
}
