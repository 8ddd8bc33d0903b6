//! Somebody who registers, step by step.

use std::{net::SocketAddr, time::Duration};

use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, net::TcpStream};

use crate::{Failure, load, measure::user, relay::Relay, sessions::Session};

const REGISTER: &str = "/_matrix/client/v3/register";
const REQUEST_TOKEN: &str = "/_matrix/client/v3/register/email/requestToken";
const SUBMIT_TOKEN: &str = "/_threepid/email/submitToken";

/// How often a client asks in vain, before its address is proved.
pub(crate) const POLLS: usize = 3;

/// Somebody who registers.
pub(crate) struct Person {
    pub(crate) session: Session,
    /// The registration's session, once it is begun.
    registration: String,
}

impl Person {
    pub(crate) fn new(number: usize) -> Self {
        Self {
            session: Session::new(number),
            registration: String::new(),
        }
    }

    /// `POST register`, answered with 401.
    pub(crate) fn start(&self) -> Vec<u8> {
        load::post(REGISTER, &self.wish().to_string())
    }

    /// Reads what [`Person::start`] was answered.
    pub(crate) fn started(&mut self, answer: &[u8]) -> Result<(), Failure> {
        self.registration = text(answer, "session")?;
        Ok(())
    }

    /// `requestToken`
    pub(crate) fn request_token(&self) -> Vec<u8> {
        let Session {
            email,
            client_secret,
            ..
        } = &self.session;
        let body = json!({ "email": email, "client_secret": client_secret, "send_attempt": 1 });
        load::post(REQUEST_TOKEN, &body.to_string())
    }

    /// Reads what [`Person::request_token`] was answered.
    pub(crate) fn requested(&mut self, answer: &[u8]) -> Result<(), Failure> {
        self.session.sid = text(answer, "sid")?;
        Ok(())
    }

    /// `submitToken` with the mailed code.
    pub(crate) fn submit_token(&self) -> Vec<u8> {
        let Session {
            sid,
            client_secret,
            code,
            ..
        } = &self.session;
        let body = json!({ "sid": sid, "client_secret": client_secret, "token": code });
        load::post(SUBMIT_TOKEN, &body.to_string())
    }

    /// `POST register` with our stage: 401 until the address is proved, then 200.
    pub(crate) fn show(&self) -> Vec<u8> {
        let Session {
            sid, client_secret, ..
        } = &self.session;
        let mut body = self.wish();
        body["auth"] = json!({
            "type": "m.login.email.identity",
            "session": self.registration,
            "threepid_creds": { "sid": sid, "client_secret": client_secret },
        });
        load::post(REGISTER, &body.to_string())
    }

    fn wish(&self) -> Value {
        json!({
            "username": user(&self.session.email), "password": "correct horse battery",
            "initial_device_display_name": "A benchmark",
        })
    }

    /// All of it; how long its requests took together, without the mail's way.
    pub(crate) async fn register(
        mut self,
        connection: &mut Connection,
        relay: &Relay,
    ) -> Result<Duration, Failure> {
        let before = connection.waited;
        let answer = connection.ask(&self.start(), 401).await?;
        self.started(&answer)?;
        let answer = connection.ask(&self.request_token(), 200).await?;
        self.requested(&answer)?;
        for _ in 0..POLLS {
            connection.ask(&self.show(), 401).await?;
        }
        self.session.code = relay.code(&self.session.email).await?;
        connection.ask(&self.submit_token(), 200).await?;
        connection.ask(&self.show(), 200).await?;
        Ok(connection.waited.saturating_sub(before))
    }
}

/// The text that an answer has under `key`.
fn text(answer: &[u8], key: &str) -> Result<String, Failure> {
    let answer: Value = serde_json::from_slice(answer)?;
    let text = answer[key].as_str();
    Ok(text.ok_or(format!("an answer without {key}"))?.to_owned())
}

/// One connection, and how long it has waited for answers.
pub(crate) struct Connection {
    stream: TcpStream,
    buffer: Vec<u8>,
    waited: Duration,
}

impl Connection {
    pub(crate) async fn open(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            buffer: Vec::with_capacity(8192),
            waited: Duration::ZERO,
        })
    }

    /// The body of an answer, which must have this status.
    async fn ask(&mut self, request: &[u8], status: u16) -> Result<Vec<u8>, Failure> {
        let asked = load::now();
        self.stream.write_all(request).await?;
        let wanted = format!("http/1.1 {status}");
        let answer = load::answer(&mut self.stream, &mut self.buffer, &wanted).await?;
        self.waited += asked.elapsed();
        Ok(answer)
    }
}
