//! The disk is full, and then it is not.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{
    mails::{Arrivals, link},
    server::{REGISTER, Server, Site, asking, sid, until},
    smtp::{Script, SmtpServer},
};

/// How many mails fit on the small disk at most, by far.
const MORE_THAN_FIT: usize = 100_000;

/// How large the small disk is: full before the database's log is first written back, or about then.
fn size() -> &'static str {
    match std::env::var_os("THREEPID_EXTENDED") {
        Some(_) => "18m",
        None => "1m",
    }
}

/// A small file system of its own, where this user may mount one; unmounted when it is dropped.
struct Disk(PathBuf);

impl Disk {
    fn mount(path: PathBuf) -> Option<Self> {
        std::fs::create_dir(&path).expect("the folder can be written");
        let mounted = Command::new("mount")
            .args([
                "-t",
                "tmpfs",
                "-o",
                &format!("size={},mode=700", size()),
                "tmpfs",
            ])
            .arg(&path)
            .output();
        let mounted = mounted.is_ok_and(|output| output.status.success());
        mounted.then_some(Self(path))
    }

    fn grow(&self) {
        let grown = Command::new("mount")
            .args(["-o", "remount,size=64m"])
            .arg(&self.0)
            .status();
        assert!(grown.expect("mount runs").success());
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // Lazily: a test that failed may have left a server there.
        let _ = Command::new("umount").arg("-l").arg(&self.0).status();
    }
}

/// Asks for mails until a request is refused; the addresses that were granted one, and their `sid`.
async fn fill(server: &Server) -> BTreeMap<String, String> {
    let mut granted = BTreeMap::new();
    for number in 0..MORE_THAN_FIT {
        let email = format!("u{number}@example.org");
        let (status, answer) = server.post(REGISTER, &asking(&email)).await;
        if status != 200 {
            assert_eq!(status, 503, "{answer}");
            assert_eq!(answer["errcode"], "M_UNKNOWN");
            assert!(answer["error"].is_string() && !granted.is_empty());
            return granted;
        }
        granted.insert(email, sid(&answer));
    }
    panic!("the disk was never full");
}

/// What holds while nothing can be written: no fault, no crash, and reading goes on.
async fn refuses_politely(server: &Server, granted: &BTreeMap<String, String>) {
    for number in 0..20 {
        let email = format!("later{number}@example.org");
        let (status, answer) = server.post(REGISTER, &asking(&email)).await;
        assert_eq!((status, &answer["errcode"]), (503, &"M_UNKNOWN".into()));
    }
    let (email, sid) = granted.iter().next().expect("some were granted");
    assert_eq!(
        &server.ask(email).await,
        sid,
        "what is known is still answered"
    );
    assert_eq!(server.inside("/_threepid/health/live").await.0, 200);
    let (status, answer) = server.ready().await;
    assert_eq!((status, &answer["errcode"]), (503, &"M_UNKNOWN".into()));
}

/// What holds when there is space again: all that was granted is there, once.
async fn is_whole(server: &Server, relay: &SmtpServer, granted: &BTreeMap<String, String>) {
    until("the server is ready again", async || {
        server.ready().await.0 == 200
    })
    .await;
    server.ask("again@example.org").await;
    server.settle().await;
    let mails = relay.arrived();
    assert_eq!(
        mails.len(),
        granted.len() + 1,
        "a mail is missing, or came twice"
    );
    for mail in mails {
        assert!(granted.contains_key(&mail.to) || mail.to == "again@example.org");
        assert_eq!(server.press(link(&mail.text)).await, 200, "{}", mail.to);
    }
}

fn site(database: &Path, relay: &SmtpServer) -> Site {
    Site::sending(&format!("smtp://{}?tls=none", relay.address()))
        .set("storage.url", format!("sqlite:{}", database.display()))
}

/// A server on a small disk, what makes the disk larger, and what ends with the test.
async fn on_a_small_disk(site: &Site, folder: &Path) -> (Server, Box<dyn Fn(&Server)>) {
    if let Some(disk) = Disk::mount(folder.to_owned()) {
        let server = site.start().await;
        return (server, Box::new(move |_| disk.grow()));
    }
    println!("no file system can be mounted here: files are limited in size instead");
    let mut command = tokio::process::Command::new("sh");
    // An ignored signal stays ignored, so that a write fails instead of ending the process.
    let limited = "trap '' XFSZ; ulimit -S -f 1024; exec \"$0\" serve";
    command.args(["-c", limited, env!("CARGO_BIN_EXE_threepid")]);
    site.prepare(&mut command);
    let server = site.start_by(command).await;
    let grow = |server: &Server| {
        let id = server.id().to_string();
        let grown = Command::new("prlimit")
            .args(["--pid", &id, "--fsize=unlimited"])
            .status();
        assert!(grown.expect("prlimit runs").success());
    };
    (server, Box::new(grow))
}

#[tokio::test]
async fn a_full_disk_refuses_loses_nothing_and_needs_no_restart() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    let relay = SmtpServer::start(Script::default()).await;
    let site = site(&small.join("threepid.db"), &relay);
    let (server, grow) = on_a_small_disk(&site, &small).await;

    let granted = fill(&server).await;
    refuses_politely(&server, &granted).await;
    grow(&server);

    is_whole(&server, &relay, &granted).await;
    assert!(!site.log().contains("panicked"), "{}", site.log());
}

#[tokio::test]
async fn a_crash_on_a_full_disk_loses_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let small = folder.path().join("small");
    let relay = SmtpServer::start(Script::default()).await;
    let site = site(&small.join("threepid.db"), &relay);
    let (server, grow) = on_a_small_disk(&site, &small).await;

    let granted = fill(&server).await;
    grow(&server);
    server.settle().await;
    server.kill().await;
    let server = site.start().await;

    is_whole(&server, &relay, &granted).await;
}
