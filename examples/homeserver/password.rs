//! Passwords, as they are stored: by PBKDF2, each with a salt of its own.

use std::num::NonZeroU32;

use aws_lc_rs::pbkdf2::{self, PBKDF2_HMAC_SHA256};
use tokio::sync::Semaphore;
use zeroize::Zeroizing;

/// How often a password is hashed: what OWASP advises for SHA-256.
const ITERATIONS: NonZeroU32 = NonZeroU32::new(600_000).expect("it is not zero");

/// Hashing is meant to be slow. So many at once, and no more: others wait, and leave the processor to the rest.
static AT_ONCE: Semaphore = Semaphore::const_new(2);

/// What a password is checked by.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct PasswordHash {
    salt: [u8; 16],
    key: [u8; 32],
}

/// The hash of no password that anybody knows.
const NOBODYS: PasswordHash = PasswordHash {
    salt: [0; 16],
    key: [0; 32],
};

impl PasswordHash {
    /// Hashes a new password.
    pub(crate) async fn of(password: &str) -> Self {
        slowly(password, |password| {
            let (salt, mut key) = (rand::random::<[u8; 16]>(), [0; 32]);
            pbkdf2::derive(PBKDF2_HMAC_SHA256, ITERATIONS, &salt, password, &mut key);
            Self { salt, key }
        })
        .await
    }
}

/// The hash of an account, if it has one and `password` is right. Without an account it takes as long as with one, so
/// that nobody learns by the clock which there are.
pub(crate) async fn check(known: Option<PasswordHash>, password: &str) -> Option<PasswordHash> {
    slowly(password, move |password| {
        let PasswordHash { salt, key } = known.as_ref().unwrap_or(&NOBODYS);
        let is_right = pbkdf2::verify(PBKDF2_HMAC_SHA256, ITERATIONS, salt, password, key).is_ok();
        known.filter(|_| is_right)
    })
    .await
}

/// Off the threads that answer requests.
async fn slowly<T: Send + 'static>(
    password: &str,
    work: impl FnOnce(&[u8]) -> T + Send + 'static,
) -> T {
    let password = Zeroizing::new(password.to_owned());
    let turn = AT_ONCE.acquire().await.expect("nobody closes it");
    // The turn goes along: the work goes on even if nobody waits for it any more.
    let work = tokio::task::spawn_blocking(move || {
        let done = work(password.as_bytes());
        drop(turn);
        done
    });
    work.await.expect("hashing does not panic")
}
