//! Associations: made, and told to whoever made them.

use std::time::Duration;

use serde_json::{Map, Value, json};

use super::IdentityRules;
use crate::{
    clock::Timestamp,
    error::{Error, Result},
    lookup_hash::generate_pepper,
    secret::{ClientSecret, Sid},
    store::{Association, Proving},
    threepid::Threepid,
};

/// How long an association is said to hold: a hundred years, for want of an end that is known.
const HOLDS_FOR: Duration = Duration::from_hours(24 * 36_525);

/// What a user asks to be found by.
#[derive(Debug)]
pub(crate) struct BindRequest {
    /// Whose token the request has.
    pub(crate) account: String,
    /// Who is to be found: a user id.
    pub(crate) mxid: String,
    /// The session that proves the address.
    pub(crate) sid: Sid,
    pub(crate) client_secret: ClientSecret,
}

impl BindRequest {
    /// That it is the account's own user id. The specification lets anybody claim any, but nobody has a token for another
    /// one's (MSC2140).
    fn check_mxid(&self) -> Result<()> {
        if self.mxid != self.account {
            return Err(Error::UnauthorizedUser(
                "mxid must be the user whose access token this is.".into(),
            ));
        }
        Ok(())
    }
}

impl IdentityRules {
    /// Associates the address that was proved with its user, in the place of whoever had it; the association, signed
    /// (Identity Service API, `POST 3pid/bind`). The user's homeserver is told in the background.
    ///
    /// # Errors
    /// [`Error::UnauthorizedUser`] for the `mxid`; [`Error::Limited`]; [`Error::NoValidSession`], also if another user has
    /// been associated with the address since it was proved; [`Error::SessionNotValidated`], [`Error::SessionExpired`].
    pub(crate) async fn bind(&self, request: BindRequest) -> Result<Value> {
        request.check_mxid()?;
        let now = self.validation.clock.now();
        self.validation
            .limiter
            .count_change(&request.account, now)?;
        let proving = self.validation.identity_session(
            &request.sid,
            &request.client_secret,
            Some(&request.account),
        );
        let (sid, proof) = proving.await?;
        let by = Proving {
            sid,
            validated_at: proof.validated_at,
        };
        let association = Association {
            threepid: proof.threepid,
            user_id: request.mxid,
            at: now,
        };
        let signed = self.signed(described(&association, now))?;
        let store = &self.validation.store;
        let first_pepper = generate_pepper();
        let associating = store.associate(association, Some(by), &first_pepper);
        if !associating.await? {
            return Err(Error::NoValidSession);
        }
        self.onbind_wake.notify_one();
        Ok(signed)
    }

    /// The object with our signature: the newest key's, in the server's name.
    pub(super) fn signed(&self, mut object: Map<String, Value>) -> Result<Value> {
        let name = self.settings.name.to_string();
        self.signing.newest().sign(&name, &mut object)?;
        Ok(Value::Object(object))
    }
}

/// The association as it is signed.
fn described(association: &Association, now: Timestamp) -> Map<String, Value> {
    let mut object = whose(&association.threepid, &association.user_id);
    object.insert("ts".to_owned(), json!(now));
    object.insert("not_before".to_owned(), json!(now));
    object.insert("not_after".to_owned(), json!(now + HOLDS_FOR));
    object
}

/// An address, and whose it is.
pub(super) fn whose(threepid: &Threepid, user_id: &str) -> Map<String, Value> {
    let mut object = Map::new();
    object.insert("medium".to_owned(), json!(threepid.medium().as_str()));
    object.insert("address".to_owned(), json!(threepid.address()));
    object.insert("mxid".to_owned(), json!(user_id));
    object
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_are_found_under_their_own_name_alone() {
        let check = |mxid: &str| {
            let request = BindRequest {
                account: "@alice:example.org".to_owned(),
                mxid: mxid.to_owned(),
                sid: Sid::parse("1").unwrap(),
                client_secret: ClientSecret::parse("s").unwrap(),
            };
            request.check_mxid()
        };
        assert_eq!(check("@alice:example.org"), Ok(()));
        for other in [
            "@bob:example.org",
            "@Alice:example.org",
            "@alice:EXAMPLE.org",
        ] {
            let refused = check(other);
            assert!(
                matches!(refused, Err(Error::UnauthorizedUser(_))),
                "{other}"
            );
        }
    }

    #[test]
    fn an_association_is_told_in_integers_that_matrix_knows() {
        let association = Association {
            threepid: Threepid::email("Alice@Example.org").unwrap(),
            user_id: "@alice:example.org".to_owned(),
            at: Timestamp(0),
        };

        let object = described(&association, Timestamp(1_428_825_849_161));

        let wanted = json!({
            "medium": "email", "address": "alice@example.org", "mxid": "@alice:example.org",
            "ts": 1_428_825_849_161_i64, "not_before": 1_428_825_849_161_i64, "not_after": 4_584_585_849_161_i64,
        });
        assert_eq!(Value::Object(object), wanted);
    }
}
