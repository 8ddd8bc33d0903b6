//! A rotation of the pepper while somebody looks up.

use std::{path::Path, time::Duration};

use serde_json::Value;
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{
    Failure, Plan,
    fill::{self, Chance, PEPPER},
    load::{self, Outcome, now},
    lookups::{self, Kind},
    serve,
};

/// The longest that is waited for the end of a rotation.
const LONGEST: Duration = Duration::from_mins(30);
/// A lookup that took longer than this is told of at once.
const SLOW: Duration = Duration::from_millis(40);
/// How long whoever looks up rests between two lookups.
const REST: Duration = Duration::from_millis(20);

/// What a rotation took, and what it did to others.
pub(crate) struct Rotated {
    /// Until the new pepper was the current one.
    pub(crate) rehashed: Duration,
    /// Until the old hashes were gone too.
    pub(crate) whole: Duration,
    /// The server's CPU time meanwhile, lookups included.
    pub(crate) cpu: Duration,
    /// The lookups meanwhile.
    pub(crate) lookups: Outcome,
}

/// Starts a server whose pepper is due, and looks up until it has rotated it.
pub(crate) async fn measure(plan: &Plan, folder: &Path) -> Result<Rotated, Failure> {
    eprintln!("rotation");
    fill::age_pepper(folder)?;
    let began = now();
    let (server, token) = serve::start(folder)?;
    let stream = TcpStream::connect(server.address).await?;
    stream.set_nodelay(true)?;
    let mut asker = Asker {
        stream,
        token,
        pepper: PEPPER.to_owned(),
    };
    let (mut chance, mut latencies, mut rehashed) = (Chance(11), Vec::new(), None);
    loop {
        if began.elapsed() > LONGEST {
            return Err("the rotation does not end".into());
        }
        let request = lookups::request(plan, Kind::Mixed, &asker.token, &asker.pepper, &mut chance);
        let sent = now();
        let answer = asker.ask(&request).await?;
        let latency = sent.elapsed();
        if latency > SLOW {
            eprintln!("{latency:.1?} after {:.1?}", began.elapsed());
        }
        latencies.push(latency);
        if answer["errcode"] == "M_INVALID_PEPPER" {
            rehashed.get_or_insert(began.elapsed());
            let pepper = answer["lookup_pepper"].as_str().ok_or("no pepper")?;
            pepper.clone_into(&mut asker.pepper);
        } else if answer["mappings"]
            .as_object()
            .is_none_or(serde_json::Map::is_empty)
        {
            return Err(format!("nobody is found: {answer}").into());
        }
        if rehashed.is_some() && fill::is_rotated(folder)? {
            break;
        }
        tokio::time::sleep(REST).await;
    }
    let whole = began.elapsed();
    Ok(Rotated {
        rehashed: rehashed.unwrap_or(whole),
        whole,
        cpu: server.cpu()?,
        lookups: Outcome::new(latencies, whole, Vec::new())?,
    })
}

/// Somebody who looks up.
struct Asker {
    stream: TcpStream,
    token: String,
    pepper: String,
}

impl Asker {
    /// Sends a lookup; the answer, be it a refusal.
    async fn ask(&mut self, request: &[u8]) -> Result<Value, Failure> {
        self.stream.write_all(request).await?;
        let mut buffer = Vec::with_capacity(8192);
        let body = load::answer(&mut self.stream, &mut buffer, "http/1.1 ").await?;
        Ok(serde_json::from_slice(&body)?)
    }
}
