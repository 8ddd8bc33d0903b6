//! One connection to a relay: how it is opened, and how one mail goes through it.

use std::{panic::AssertUnwindSafe, time::Duration};

use futures_util::FutureExt;
use lettre::transport::smtp::{
    self,
    authentication::{Credentials, Mechanism},
    client::{AsyncSmtpConnection, TlsParameters},
    commands::{Data, Mail as MailFrom, Noop},
    extension::{ClientId, Extension, MailParameter},
    response::Response,
};
use tokio::{
    net::{TcpStream, lookup_host},
    time::timeout,
};

use super::{
    outcome::{Cause, Failure, Phase, Reply},
    stream::Stream,
    tls::ImplicitTls,
};
use crate::courier::mime::Mail;

/// How the way to the relay is protected.
pub(super) enum Security {
    /// TLS from the first byte.
    Implicit(ImplicitTls),
    /// STARTTLS, or nothing is sent.
    Required(TlsParameters),
    /// STARTTLS where the relay offers it; without it no login.
    Opportunistic(TlsParameters),
    /// None at all, because the operator wrote so.
    Plain,
}

/// Who logs in, and how.
pub(super) struct Login {
    pub(super) user: String,
    pub(super) credentials: Credentials,
    /// In the order in which they are tried: the first one that the relay offers.
    pub(super) mechanisms: &'static [Mechanism],
}

/// Where the relay is, and how to talk to it.
pub(super) struct Relay {
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) security: Security,
    pub(super) login: Option<Login>,
    pub(super) hello: ClientId,
    /// How long one phase may take, apart from the body.
    pub(super) phase_timeout: Duration,
    /// How long handing over the body, and the answer to it, may take.
    pub(super) body_timeout: Duration,
}

/// A connection that has got past greeting, TLS and login.
pub(super) struct Connection {
    smtp: AsyncSmtpConnection,
    /// How many mails went through it.
    pub(super) sent: u32,
}

impl Relay {
    /// Opens a connection. `told` gets a line for each phase that went well.
    pub(super) async fn open(&self, told: &mut Vec<String>) -> Result<Connection, Failure> {
        let tcp = self.within(Phase::Connect, self.connect()).await??;
        told.push(format!("connected to {}:{}", self.host, self.port));
        let stream = match &self.security {
            Security::Implicit(tls) => {
                let handshake = tls.connector.connect(tls.name.clone(), tcp);
                let handshake = self.within(Phase::Tls, handshake).await?;
                let stream = handshake.map_err(|error| Failure::of_io(Phase::Tls, &error))?;
                told.push("TLS".to_owned());
                Stream::Tls(Box::new(stream))
            }
            Security::Required(_) | Security::Opportunistic(_) => Stream::Tcp {
                tcp,
                byte_by_byte: true,
            },
            Security::Plain => Stream::Tcp {
                tcp,
                byte_by_byte: false,
            },
        };
        let greeting = AsyncSmtpConnection::connect_with_transport(Box::new(stream), &self.hello);
        let mut smtp = self.step(Phase::Greeting, greeting).await?;
        told.push("relay greets".to_owned());
        if self.start_tls(&mut smtp).await? {
            told.push("STARTTLS".to_owned());
        }
        if let Some(login) = &self.login {
            self.log_in(&mut smtp, login).await?;
            told.push(format!("logged in as {}", login.user));
        }
        Ok(Connection { smtp, sent: 0 })
    }

    /// The first of the host's addresses that answers; each has its share of the time.
    async fn connect(&self) -> Result<TcpStream, Failure> {
        let failed = |cause| Failure::new(Phase::Connect, cause);
        let found = lookup_host((self.host.as_str(), self.port)).await;
        let addresses: Vec<_> = found
            .map_err(|_| failed(Cause::Network("host not found")))?
            .collect();
        let share = self.phase_timeout / u32::try_from(addresses.len().max(1)).unwrap_or(u32::MAX);
        let mut last = failed(Cause::Network("host has no address"));
        for address in addresses {
            match timeout(share, TcpStream::connect(address)).await {
                // Without it each command waits 40 ms for the acknowledgement of the one before.
                Ok(Ok(tcp)) => match tcp.set_nodelay(true) {
                    Ok(()) => return Ok(tcp),
                    Err(error) => last = Failure::of_io(Phase::Connect, &error),
                },
                Ok(Err(error)) => last = Failure::of_io(Phase::Connect, &error),
                Err(_) => last = failed(Cause::TimedOut),
            }
        }
        Err(last)
    }

    /// Turns to TLS where that is to happen now; whether it did.
    async fn start_tls(&self, smtp: &mut AsyncSmtpConnection) -> Result<bool, Failure> {
        let offered = smtp.server_info().supports_feature(Extension::StartTls);
        let tls = match &self.security {
            Security::Implicit(_) | Security::Plain => return Ok(false),
            Security::Opportunistic(_) if !offered => return Ok(false),
            Security::Required(_) if !offered => {
                let cause = Cause::Setup("the relay offers no STARTTLS");
                return Err(Failure::new(Phase::Tls, cause));
            }
            Security::Required(tls) | Security::Opportunistic(tls) => tls.clone(),
        };
        self.step(Phase::Tls, smtp.starttls(tls, &self.hello))
            .await?;
        Ok(true)
    }

    async fn log_in(&self, smtp: &mut AsyncSmtpConnection, login: &Login) -> Result<(), Failure> {
        let failed = |why| Failure::new(Phase::Auth, Cause::Setup(why));
        if matches!(self.security, Security::Opportunistic(_)) && !smtp.is_encrypted() {
            return Err(failed("no password is sent without encryption"));
        }
        let offered = smtp.server_info().get_auth_mechanism(login.mechanisms);
        if offered.is_none() {
            return Err(failed(
                "the relay offers no way to log in that is set up here",
            ));
        }
        let dialogue = smtp.auth(login.mechanisms, &login.credentials);
        let response = self.step(Phase::Auth, dialogue).await?;
        expect(Phase::Auth, &response, &[235]).map(drop)
    }

    /// One phase of the dialogue, within its time.
    async fn step<T>(
        &self,
        phase: Phase,
        work: impl Future<Output = Result<T, smtp::Error>>,
    ) -> Result<T, Failure> {
        let done = self.within(phase, work).await?;
        done.map_err(|error| Failure::of(phase, &error))
    }

    async fn within<T>(&self, phase: Phase, work: impl Future<Output = T>) -> Result<T, Failure> {
        let limit = match phase {
            Phase::Body => self.body_timeout,
            _ => self.phase_timeout,
        };
        // lettre panics at a line of nothing but blanks in the answer to EHLO. The connection is dropped then.
        let work = AssertUnwindSafe(work).catch_unwind();
        match timeout(limit, work).await {
            Ok(Ok(done)) => Ok(done),
            Ok(Err(_)) => Err(Failure::new(phase, Cause::Setup("answer not understood"))),
            Err(_) => Err(Failure::new(phase, Cause::TimedOut)),
        }
    }
}

impl Connection {
    /// Hands `mail` to the relay; its last answer.
    ///
    /// After an error, or when this is cancelled, the connection is of no more use.
    pub(super) async fn send(&mut self, relay: &Relay, mail: &Mail) -> Result<Reply, Failure> {
        let mut parameters = Vec::new();
        if mail.needs_smtputf8() {
            if !self
                .smtp
                .server_info()
                .supports_feature(Extension::SmtpUtfEight)
            {
                let cause = Cause::Never("the relay takes no address beyond ASCII (SMTPUTF8)");
                return Err(Failure::new(Phase::Mail, cause));
            }
            parameters.push(MailParameter::SmtpUtfEight);
        }
        let from = MailFrom::new(Some(mail.from.clone()), parameters);
        let response = relay.step(Phase::Mail, self.smtp.command(from)).await?;
        expect(Phase::Mail, &response, &[250])?;
        // Not lettre's own: its address type knows fewer letters than RFC 6531.
        let to = format!("RCPT TO:<{}>\r\n", mail.to);
        let response = relay.step(Phase::Rcpt, self.smtp.command(to)).await?;
        expect(Phase::Rcpt, &response, &[250, 251])?;
        let response = relay.step(Phase::Data, self.smtp.command(Data)).await?;
        expect(Phase::Data, &response, &[354])?;
        let body = self.smtp.message(&mail.bytes);
        let response = relay.step(Phase::Body, body).await?;
        let reply = expect(Phase::Body, &response, &[250])?;
        self.sent += 1;
        Ok(reply)
    }

    /// Whether lettre gave it up.
    pub(super) fn is_broken(&self) -> bool {
        self.smtp.has_broken()
    }

    /// Asks for nothing, and takes leave.
    pub(super) async fn part(mut self, relay: &Relay) -> Result<(), Failure> {
        let response = relay.step(Phase::Noop, self.smtp.command(Noop)).await?;
        expect(Phase::Noop, &response, &[250])?;
        // It has told us all we wanted to know: how it takes leave does not matter.
        let _ = relay.step(Phase::Noop, self.smtp.quit()).await;
        Ok(())
    }
}

fn expect(phase: Phase, response: &Response, codes: &[u16]) -> Result<Reply, Failure> {
    let reply = Reply::from(response);
    if reply.is(codes) {
        Ok(reply)
    } else {
        Err(Failure::reply(phase, reply))
    }
}
