//! Programs of others, from the packages of Debian, of Python and of npm.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
};

/// The oldest release of Node that is taken.
const OLDEST_NODE: u32 = 20;

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
    let venv = made_once(package, |venv| {
        must_run(
            Command::new("python3")
                .args(["-m", "venv", "--clear"])
                .arg(venv),
        );
        let python = venv.join("bin/python");
        must_run(Command::new(python).args(["-m", "pip", "install", "--quiet", package]));
    });
    venv.join("bin/python")
}

/// A folder whose `node_modules` hold `package`, a name with its release; whoever needs it first makes it.
pub(crate) fn node_modules_with(package: &str) -> PathBuf {
    made_once(package, |folder| {
        need_node();
        must_run(
            Command::new("npm")
                .args(["install", "--no-audit", "--no-fund", "--ignore-scripts"])
                .arg("--prefix")
                .arg(folder)
                .arg(package),
        );
    })
}

/// Node and npm, from Debian's packages if there are none; what Debian has may be too old.
fn need_node() {
    need(&["node", "npm"], &["nodejs", "npm"]);
    let output = Command::new("node").arg("--version").output();
    let output = output.expect("it just ran").stdout;
    let version = String::from_utf8_lossy(&output);
    let major = version.trim().trim_start_matches('v').split('.').next();
    let is_new = major
        .and_then(|major| major.parse().ok())
        .is_some_and(|major: u32| major >= OLDEST_NODE);
    assert!(
        is_new,
        "this test needs Node {OLDEST_NODE} or newer; \"node --version\" says {version}"
    );
}

/// A folder for what takes long to make, below the target folder; `make` fills it unless it was filled before.
fn made_once(name: &str, make: impl FnOnce(&Path)) -> PathBuf {
    let all = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("peers");
    fs::create_dir_all(&all).expect("the target folder can be written");
    let lock = File::create(all.join("lock")).expect("the target folder can be written");
    lock.lock().expect("a lock can be waited for");
    let folder = all.join(name);
    let ready = folder.join("ready");
    if !ready.exists() {
        fs::create_dir_all(&folder).expect("the target folder can be written");
        make(&folder);
        File::create(ready).expect("the folder can be written");
    }
    folder
}

/// Runs a command, which must succeed.
pub(crate) fn must_run(command: &mut Command) {
    let output = command.output().unwrap_or_else(|why| {
        panic!("{command:?} can not be run ({why}): python3 with venv, and openssl, are needed")
    });
    assert!(
        output.status.success(),
        "{command:?} failed, this test needs it: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}
