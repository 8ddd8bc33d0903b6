//! The servers that are measured: each a process of its own.

use std::{
    fs,
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    thread,
    time::Duration,
};

use crate::{Failure, load::now};

/// The kernel's unit of CPU time in `/proc/PID/stat`, on every Linux there is.
const TICK: Duration = Duration::from_millis(10);
/// The longest that a server may take until it answers.
const START_LIMIT: Duration = Duration::from_secs(30);
/// The longest that a server may go on working after the load.
const SETTLE_LIMIT: Duration = Duration::from_mins(1);

/// A running server; it is killed when it is dropped.
pub(crate) struct Server {
    child: Child,
    /// Where it answers.
    pub(crate) address: SocketAddr,
    /// From its start to its first answer, in milliseconds.
    pub(crate) first_answer_ms: f64,
    /// Its resident memory then, in MiB.
    pub(crate) resident_at_start: f64,
}

impl Server {
    /// Starts the program that `command` names, which is told where to listen.
    pub(crate) fn start(
        command: impl FnOnce(SocketAddr) -> Result<Command, Failure>,
    ) -> Result<Self, Failure> {
        let address = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?;
        let mut command = command(address)?;
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::inherit());
        let began = now();
        let mut server = Self {
            child: command.spawn()?,
            address,
            first_answer_ms: 0.0,
            resident_at_start: 0.0,
        };
        while server.probe().is_err() {
            if let Some(status) = server.child.try_wait()? {
                return Err(format!("a server ended at once: {status}").into());
            }
            if began.elapsed() > START_LIMIT {
                return Err("a server does not answer".into());
            }
            thread::sleep(Duration::from_millis(1));
        }
        server.first_answer_ms = began.elapsed().as_secs_f64() * 1000.0;
        server.resident_at_start = server.resident()?;
        Ok(server)
    }

    fn probe(&self) -> std::io::Result<()> {
        let mut stream = TcpStream::connect(self.address)?;
        stream.write_all(b"GET /_threepid/health/live HTTP/1.1\r\nHost: a\r\n\r\n")?;
        stream.read_exact(&mut [0; 12])
    }

    /// The CPU time that it has used until now.
    pub(crate) fn cpu(&self) -> Result<Duration, Failure> {
        cpu_of(&self.child.id().to_string())
    }

    /// Its resident memory, in MiB.
    pub(crate) fn resident(&self) -> Result<f64, Failure> {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id()))?;
        let kib: u32 = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .and_then(|value| value.trim().trim_end_matches(" kB").parse().ok())
            .ok_or("no VmRSS in status")?;
        Ok(f64::from(kib) / 1024.0)
    }

    /// Waits until it has done what the load left to it, mails for one; the CPU time that it has used then.
    pub(crate) async fn settle(&self) -> Result<Duration, Failure> {
        let began = now();
        let mut before = self.cpu()?;
        loop {
            tokio::time::sleep(Duration::from_millis(300)).await;
            let after = self.cpu()?;
            if after.saturating_sub(before) <= TICK || began.elapsed() > SETTLE_LIMIT {
                return Ok(after);
            }
            before = after;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program itself, with its data in `folder` and its mails going to `transport`.
pub(crate) fn threepid(
    folder: &Path,
    transport: &str,
    address: SocketAddr,
) -> Result<Command, Failure> {
    let file = folder.join("threepid.toml");
    let shown = folder.display();
    fs::write(
        &file,
        format!(
            r#"
[server]
public_url = "https://matrix.example.org"
listen = ["{address}"]
trusted_proxies = ["127.0.0.1"]
internal_listen = "off"
[storage]
url = "sqlite:{shown}/threepid.db"
[secrets]
key_file = "{shown}/secret.key"
[email]
transport = "{transport}"
# One machine asks for everything here; limits per address, session and code stay as they are.
[limits]
per_source = "off"
per_source_submit = "off"
global = "off"
"#
        ),
    )?;
    let mut command = Command::new(env!("CARGO_BIN_EXE_threepid"));
    command.arg("--config").arg(file);
    Ok(command)
}

/// Waits until what was written before is on the disk, so that it is not paid for by what is measured.
pub(crate) fn sync() {
    let _ = Command::new("sync").status();
}

/// The CPU time that a process has used, by its id or `self`.
pub(crate) fn cpu_of(process: &str) -> Result<Duration, Failure> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    // The program's name, in parentheses, may hold blanks.
    let (_, fields) = stat.rsplit_once(") ").ok_or("no name in stat")?;
    let ticks: u32 = fields
        .split(' ')
        .skip(11)
        .take(2)
        .map(|field| field.parse::<u32>().unwrap_or(0))
        .sum();
    Ok(TICK * ticks)
}
