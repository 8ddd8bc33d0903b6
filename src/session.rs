//! A session: one try to prove one address for one purpose, and what may happen to it.

use std::{fmt, time::Duration};

use crate::{
    clock::Timestamp,
    error::{Error, Result},
    keys::KeyId,
    secret::SessionId,
    threepid::Threepid,
};

/// An API by which sessions are opened and tokens are shown. What one has opened the other does not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// The Client-Server API; and that by which a homeserver has its users validate here.
    Client,
    /// The Identity Service API of our own identity server.
    Identity,
}

/// What an address is proved for. A proof opens nothing else.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Purpose {
    /// Signing up; such a proof also adds the address to an account, because clients ask for it there.
    Register,
    /// Adding the address to an account.
    Add,
    /// Resetting the password of the account that has the address.
    Password,
    /// Associating the address with a user at our own identity server, so that others find them by it.
    Identity,
}

impl Purpose {
    /// All of them.
    pub(crate) const ALL: [Self; 4] = [Self::Register, Self::Add, Self::Password, Self::Identity];

    /// Its name in the store and in lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Register => "register",
            Self::Add => "add",
            Self::Password => "password",
            Self::Identity => "identity",
        }
    }

    /// Reads the name that [`Purpose::as_str`] gives.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|purpose| purpose.as_str() == text)
    }

    /// The byte that stands for it in a MAC.
    pub(crate) fn tag(self) -> u8 {
        match self {
            Self::Register => b'r',
            Self::Add => b'a',
            Self::Password => b'p',
            Self::Identity => b'i',
        }
    }

    /// Whose sessions these are.
    #[must_use]
    pub fn api(self) -> Api {
        match self {
            Self::Register | Self::Add | Self::Password => Api::Client,
            Self::Identity => Api::Identity,
        }
    }

    /// Whether a session of this purpose may be used for `wanted`.
    #[must_use]
    pub fn serves(self, wanted: Self) -> bool {
        self == wanted || (self == Self::Register && wanted == Self::Add)
    }
}

impl fmt::Display for Purpose {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(self.as_str())
    }
}

/// What a message says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MessageKind {
    /// Link and code for a purpose.
    Token(Purpose),
    /// "You already have an account", instead of a token for `register` or `add`.
    AlreadyInUse,
    /// "There is no account with this address", instead of a token for `password`.
    NoAccount,
    /// "The password of your account was reset", to every address of the account.
    PasswordChanged,
    /// "You are invited to a room", to somebody who has no user id yet.
    Invite,
}

impl MessageKind {
    /// Its name in the store and in lists.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Token(purpose) => purpose.as_str(),
            Self::AlreadyInUse => "already_in_use",
            Self::NoAccount => "no_account",
            Self::PasswordChanged => "password_changed",
            Self::Invite => "invite",
        }
    }

    /// Reads the name that [`MessageKind::as_str`] gives.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "already_in_use" => Some(Self::AlreadyInUse),
            "no_account" => Some(Self::NoAccount),
            "password_changed" => Some(Self::PasswordChanged),
            "invite" => Some(Self::Invite),
            purpose => Purpose::parse(purpose).map(Self::Token),
        }
    }
}

/// How long things live, and how often a code may be tried: `[sessions]`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetimes {
    /// A link, from the accepted attempt that mailed it.
    pub link: Duration,
    /// A code, from the accepted attempt that sent it.
    pub code: Duration,
    /// A session, from its creation and once more from its validation (Identity Service API: 24 hours).
    pub session: Duration,
    /// How many codes may be tried in one session.
    pub code_tries: u32,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            link: Duration::from_hours(1),
            code: Duration::from_mins(15),
            session: Duration::from_hours(24),
            code_tries: 5,
        }
    }
}

/// Where a session is that an identity server validates.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Proxied {
    /// The server's name, as `IdServer` writes it.
    pub(crate) server: String,
    /// The session's name there.
    pub(crate) sid: String,
    /// The token of the account there that asked, sealed for the scope; `None` if it was our own account.
    pub(crate) access_token: Option<Vec<u8>>,
}

/// One session as the store keeps it.
#[derive(Clone, PartialEq, Eq)]
pub struct Session {
    /// Its name.
    pub sid: SessionId,
    /// The server key that its secret, link and code were made with.
    pub(crate) key_id: KeyId,
    /// What its count of attempts belongs to; also what its `next_link` is sealed for.
    pub(crate) scope: [u8; 16],
    /// A MAC of the `client_secret`.
    pub(crate) secret_hash: Vec<u8>,
    /// What the address is proved for.
    pub purpose: Purpose,
    /// The address.
    pub threepid: Threepid,
    /// `add`, `identity`: who asked, if known. `password`: who owned the address when it was asked.
    pub user_id: Option<String>,
    /// Whether the newest message held a token. A decoy can never be validated.
    pub(crate) genuine: bool,
    /// The greatest accepted `send_attempt`.
    pub send_attempt: i64,
    /// The `next_link`, sealed for the scope.
    pub(crate) next_link: Option<Vec<u8>>,
    /// How many codes were tried.
    pub tries: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// Until when its link works.
    pub link_expires_at: Timestamp,
    /// Until when its newest code works.
    pub code_expires_at: Timestamp,
    /// Until when it lives at all.
    pub expires_at: Timestamp,
    /// When the address was proved.
    pub validated_at: Option<Timestamp>,
    /// The digest of the request that claimed the proof.
    pub(crate) claim_digest: Option<Vec<u8>>,
    /// When the proof was used.
    pub taken_at: Option<Timestamp>,
    /// When a newer session took its place in the count of attempts; what it proved it still proves.
    pub replaced_at: Option<Timestamp>,
    /// The identity server that validates it; `None` if we do.
    pub(crate) proxied: Option<Proxied>,
}

impl fmt::Debug for Session {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.debug_struct("Session")
            .field("sid", &self.sid)
            .field("purpose", &self.purpose)
            .field("threepid", &self.threepid)
            .field("send_attempt", &self.send_attempt)
            .field("tries", &self.tries)
            .field("validated_at", &self.validated_at)
            .finish_non_exhaustive()
    }
}

/// A proved address: what the holder of `sid` and `client_secret` may show to the homeserver.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof {
    /// The address that was proved.
    pub threepid: Threepid,
    /// When it was proved.
    pub validated_at: Timestamp,
    /// What it was proved for.
    pub purpose: Purpose,
    /// `add`, `identity`: who asked, if known. `password`: who owned the address when it was asked.
    pub user_id: Option<String>,
}

/// Whether a token was right, and for the first time or again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    Now,
    Again,
}

impl Session {
    /// What its client calls it: our name, or that of the identity server.
    pub(crate) fn told_sid(&self) -> String {
        match &self.proxied {
            Some(proxied) => proxied.sid.clone(),
            None => self.sid.to_string(),
        }
    }

    /// The identity server that validates it, as `IdServer` writes it.
    pub(crate) fn server(&self) -> Option<&str> {
        let proxied = self.proxied.as_ref();
        proxied.map(|proxied| proxied.server.as_str())
    }

    /// Whether it has run out.
    #[must_use]
    pub fn is_over(&self, now: Timestamp) -> bool {
        now >= self.expires_at
    }

    /// Whether a genuine link of this session proves its address. Right again is right: people click twice, apps open
    /// links before people do.
    pub(crate) fn check_link(&self, now: Timestamp) -> Result<Shown> {
        if !self.genuine || self.is_over(now) {
            return Err(Error::SessionExpired);
        }
        // Taken without ever being validated: the link's own page has used it.
        match self.validated_at.or(self.taken_at) {
            Some(_) => Ok(Shown::Again),
            None if now >= self.link_expires_at => Err(Error::SessionExpired),
            None => Ok(Shown::Now),
        }
    }

    /// Whether a code may be tried at all: before it is counted, and so before it is compared.
    pub(crate) fn check_code_open(&self, now: Timestamp, code_tries: u32) -> Result<()> {
        let closed = self.validated_at.is_none()
            && (now >= self.code_expires_at || self.tries >= code_tries);
        if closed || self.is_over(now) {
            Err(Error::SessionExpired)
        } else {
            Ok(())
        }
    }

    /// Whether a code that `is_right` proves the address. A decoy has no right code.
    pub(crate) fn check_code(&self, is_right: bool) -> Result<Shown> {
        match (is_right && self.genuine, self.validated_at) {
            (false, _) => Err(Error::TokenIncorrect),
            (true, None) => Ok(Shown::Now),
            (true, Some(_)) => Ok(Shown::Again),
        }
    }

    /// The proof that this session gives for `wanted`, to `user_id` if the request came from an account.
    ///
    /// # Errors
    /// [`Error::NoValidSession`] for another purpose or another account, [`Error::SessionExpired`],
    /// [`Error::SessionNotValidated`].
    pub(crate) fn prove(
        &self,
        wanted: Purpose,
        user_id: Option<&str>,
        now: Timestamp,
    ) -> Result<Proof> {
        // An address to add may be anybody's; a reset is never for another account than the one that had the address.
        let is_named = match self.purpose {
            Purpose::Register => false,
            Purpose::Add | Purpose::Identity => self.user_id.is_some(),
            Purpose::Password => user_id.is_some(),
        };
        let tied_to_another = is_named && self.user_id.as_deref() != user_id;
        if !self.purpose.serves(wanted) || tied_to_another {
            return Err(Error::NoValidSession);
        }
        if self.is_over(now) {
            return Err(Error::SessionExpired);
        }
        let validated_at = self.validated_at.ok_or(Error::SessionNotValidated)?;
        Ok(Proof {
            threepid: self.threepid.clone(),
            validated_at,
            purpose: self.purpose,
            user_id: self.user_id.clone(),
        })
    }
}

/// How an accepted request is answered by message: the same answer over HTTP in every case.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) message: MessageKind,
    pub(crate) genuine: bool,
    pub(crate) user_id: Option<String>,
}

/// Which message goes out, given who owns the address: a token, a helpful notice, or (with `reveal`) a refusal.
///
/// `asker` is the account that asks to add the address, if it is known.
pub(crate) fn answer(
    purpose: Purpose,
    owner: Option<String>,
    asker: Option<String>,
    reveal: bool,
) -> Result<Answer> {
    let token = |user_id| Answer {
        message: MessageKind::Token(purpose),
        genuine: true,
        user_id,
    };
    let notice = |message, user_id| Answer {
        message,
        genuine: false,
        user_id,
    };
    match (purpose, owner) {
        (Purpose::Register, None) => Ok(token(None)),
        // Whoever has the address may be found by it, whatever account has it too (MSC2229).
        (Purpose::Add, None) | (Purpose::Identity, _) => Ok(token(asker)),
        (Purpose::Register | Purpose::Add, Some(_)) if reveal => Err(Error::InUse),
        (Purpose::Register, Some(_)) => Ok(notice(MessageKind::AlreadyInUse, None)),
        // Tied like a real one, so that other accounts are refused alike.
        (Purpose::Add, Some(_)) => Ok(notice(MessageKind::AlreadyInUse, asker)),
        (Purpose::Password, Some(owner)) => Ok(token(Some(owner))),
        (Purpose::Password, None) if reveal => Err(Error::NoAccount),
        (Purpose::Password, None) => Ok(notice(MessageKind::NoAccount, None)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Timestamp = Timestamp(1_000_000);

    fn pending() -> Session {
        Session {
            sid: SessionId::generate(Timestamp(0)),
            key_id: [0; 4],
            scope: [0; 16],
            secret_hash: Vec::new(),
            purpose: Purpose::Register,
            threepid: Threepid::email("a@b.org").unwrap(),
            user_id: None,
            genuine: true,
            send_attempt: 1,
            next_link: None,
            tries: 0,
            created_at: Timestamp(0),
            link_expires_at: Timestamp(2_000_000),
            code_expires_at: Timestamp(1_500_000),
            expires_at: Timestamp(9_000_000),
            validated_at: None,
            claim_digest: None,
            taken_at: None,
            replaced_at: None,
            proxied: None,
        }
    }

    fn validated() -> Session {
        Session {
            validated_at: Some(Timestamp(900_000)),
            ..pending()
        }
    }

    #[test]
    fn a_link_works_while_it_lives_and_again_once_validated() {
        assert_eq!(pending().check_link(NOW), Ok(Shown::Now));
        assert_eq!(
            validated().check_link(Timestamp(3_000_000)),
            Ok(Shown::Again)
        );
        assert_eq!(
            pending().check_link(Timestamp(2_000_000)),
            Err(Error::SessionExpired)
        );
        for dead in [
            Session {
                genuine: false,
                ..pending()
            },
            Session {
                expires_at: NOW,
                ..validated()
            },
        ] {
            assert_eq!(dead.check_link(NOW), Err(Error::SessionExpired));
        }
        assert_eq!(
            Session {
                tries: 5,
                ..pending()
            }
            .check_link(NOW),
            Ok(Shown::Now),
            "a dead code kills no link"
        );
    }

    #[test]
    fn a_code_dies_of_time_and_of_tries() {
        assert_eq!(pending().check_code_open(NOW, 5), Ok(()));
        assert_eq!(
            Session {
                tries: 4,
                ..pending()
            }
            .check_code_open(NOW, 5),
            Ok(())
        );
        assert_eq!(
            Session {
                tries: 5,
                ..pending()
            }
            .check_code_open(NOW, 5),
            Err(Error::SessionExpired)
        );
        assert_eq!(
            pending().check_code_open(Timestamp(1_500_000), 5),
            Err(Error::SessionExpired)
        );
        assert_eq!(validated().check_code_open(Timestamp(1_500_000), 5), Ok(()));
    }

    #[test]
    fn a_decoy_has_no_right_code() {
        let decoy = Session {
            genuine: false,
            ..pending()
        };
        assert_eq!(decoy.check_code(true), Err(Error::TokenIncorrect));
        assert_eq!(decoy.check_code(true), pending().check_code(false));
        assert_eq!(pending().check_code(true), Ok(Shown::Now));
        assert_eq!(validated().check_code(true), Ok(Shown::Again));
    }

    #[test]
    fn a_proof_opens_its_own_purpose_only() {
        use Purpose::{Add, Password, Register};
        for (had, wanted, opens) in [
            (Register, Register, true),
            (Register, Add, true),
            (Register, Password, false),
            (Add, Register, false),
            (Add, Add, true),
            (Add, Password, false),
            (Password, Register, false),
            (Password, Add, false),
            (Password, Password, true),
        ] {
            let proof = Session {
                purpose: had,
                ..validated()
            }
            .prove(wanted, None, NOW);
            assert_eq!(proof.is_ok(), opens, "{had} for {wanted}");
        }
    }

    #[test]
    fn an_add_proof_tied_to_a_user_is_that_user_s_alone() {
        let tied = Session {
            purpose: Purpose::Add,
            user_id: Some("@a:b".to_owned()),
            ..validated()
        };
        assert!(tied.prove(Purpose::Add, Some("@a:b"), NOW).is_ok());
        for other in [None, Some("@c:b")] {
            assert_eq!(
                tied.prove(Purpose::Add, other, NOW),
                Err(Error::NoValidSession)
            );
        }
    }

    #[test]
    fn who_owns_the_address_chooses_the_message() {
        use Purpose::{Add, Password, Register};
        let owner = || Some("@o:b".to_owned());
        for (purpose, owned, reveal, wanted) in [
            (
                Register,
                false,
                false,
                Ok((MessageKind::Token(Register), true)),
            ),
            (
                Register,
                true,
                false,
                Ok((MessageKind::AlreadyInUse, false)),
            ),
            (Register, true, true, Err(Error::InUse)),
            (Add, false, true, Ok((MessageKind::Token(Add), true))),
            (Add, true, false, Ok((MessageKind::AlreadyInUse, false))),
            (Add, true, true, Err(Error::InUse)),
            (
                Password,
                true,
                true,
                Ok((MessageKind::Token(Password), true)),
            ),
            (Password, false, false, Ok((MessageKind::NoAccount, false))),
            (Password, false, true, Err(Error::NoAccount)),
        ] {
            let got = answer(purpose, if owned { owner() } else { None }, None, reveal);
            assert_eq!(
                got.map(|answer| (answer.message, answer.genuine)),
                wanted,
                "{purpose} {owned} {reveal}"
            );
        }
        assert_eq!(
            answer(Password, owner(), None, false).unwrap().user_id,
            owner()
        );
    }
}
