//! Whether our identity server has its key, and whether the world finds it by its name.

use std::time::Duration;

use url::Url;

use super::{Found, call::Caller};
use crate::{
    cli::{Failure, beside},
    config::Config,
    key_file,
    signing::SigningKeys,
};

const PART: &str = "identity server";
/// The longest that the call takes.
const LIMIT: Duration = Duration::from_secs(5);

pub(super) async fn look(config: &Config, keys: Option<SigningKeys>, found: &mut Found) {
    let Some(name) = config.identity_name().filter(|_| config.identity.enabled) else {
        return;
    };
    let path = config.identity.signing_key_file.display();
    let Some(keys) = keys else {
        let detail = format!("{name}; {path} is not there yet, and is made at first start");
        return found.fine(PART, &detail);
    };
    found.fine(
        PART,
        &format!("{name} signs with {} of {path}", keys.newest_id()),
    );
    if config.server.is_for_this_machine() {
        return;
    }
    let asked = format!(
        "https://{name}/_matrix/identity/v2/pubkey/{}",
        keys.newest_id()
    );
    match ask(config, &asked).await {
        Ok(key) if keys.has_encoded(&key) => {
            found.fine(PART, &format!("{asked} shows our key"));
        }
        Ok(_) => found.failed(
            PART,
            format!("{asked} shows a key of another server; let that name lead to threepid, or write identity.name"),
        ),
        Err(why) => found.warn(
            PART,
            &format!(
                "{asked}: {why}; whether others find us by our name was not seen. Run the check again while threepid and \
                 the reverse proxy serve"
            ),
        ),
    }
}

/// The keys of the file, if it is there and holds the one that was signed with last.
pub(super) fn keys(config: &Config, found: &mut Found) -> Result<Option<SigningKeys>, Failure> {
    let is_there = config.storage.path()?.exists();
    if !config.identity.enabled || !is_there {
        return Ok(None);
    }
    let path = &config.identity.signing_key_file;
    match beside(config, async |store| {
        Ok(key_file::load_signing(path, store)?)
    }) {
        Ok(keys) => Ok(keys),
        Err(Failure::Told(why)) => {
            found.failed(PART, why);
            Ok(None)
        }
        Err(failure) => Err(failure),
    }
}

/// The key that is shown there.
async fn ask(config: &Config, asked: &str) -> Result<String, String> {
    let url = Url::parse(asked).map_err(|why| why.to_string())?;
    let base = url.join("/").map_err(|why| why.to_string())?;
    let caller = Caller::new(&base, &config.outbound.ca_files.0, LIMIT)?;
    let reply = caller.get(url.path()).await?;
    let key = reply.body["public_key"].as_str().map(str::to_owned);
    key.ok_or_else(|| format!("the answer is {}, and no key", reply.status))
}
