//! Programs of others, from Debian's packages and from Python's.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

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

/// The python of a virtual environment with `package`, a name with its release; whoever needs it first makes it.
pub(crate) fn python_with(package: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    fs::create_dir_all(&folder).expect("the target folder can be written");
    let lock = File::create(folder.join("venv.lock")).expect("the target folder can be written");
    lock.lock().expect("a lock can be waited for");
    let venv = folder.join(package);
    let python = venv.join("bin/python");
    let ready = venv.join("ready");
    if !ready.exists() {
        must_run(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(&venv),
        );
        must_run(Command::new(&python).args(["-m", "pip", "install", "--quiet", package]));
        File::create(ready).expect("the environment can be written");
    }
    python
}

/// Runs a command, which must succeed.
pub(crate) fn must_run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|why| {
        panic!("{command:?} can not be run ({why}): python3 with venv and openssl are needed")
    });
    assert!(
        output.status.success(),
        "{command:?} failed, this test needs it: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
