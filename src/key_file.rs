//! The key file: made at first start, never made anew over a store that has a key.

use std::{
    fs::{self, DirBuilder, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, fchown},
    path::Path,
};

use zeroize::Zeroizing;

use crate::{keys::Keyring, signing::SigningKeys, store::sqlite::SqliteStore};

/// Reads the server's keys from `path`; makes a file with one key (mode 0600) if there is none and the store is fresh.
///
/// # Errors
/// A sentence for the operator: the file can not be read or made, it holds no keys, or the store was used with a key
/// that is not in it.
pub async fn load_or_create(path: &Path, store: &SqliteStore) -> Result<Keyring, String> {
    let known = store.key_fingerprint().map_err(|error| error.to_string())?;
    let keys = match (read(path)?, &known) {
        (Some(keys), _) => keys,
        (None, Some(_)) => {
            return Err(format!(
                "{} is missing, but the database was used with a server key. Restore the key file from your backup; \
                 to start anew, move the database away too.",
                path.display()
            ));
        }
        (None, None) => create(path)?,
    };
    check(path, &keys, known.as_deref())?;
    if known.as_deref() != Some(&keys.fingerprint()) {
        store
            .set_key_fingerprint(keys.fingerprint())
            .await
            .map_err(|error| error.to_string())?;
    }
    Ok(keys)
}

/// Reads the server's keys for a command beside the server, which makes and records nothing; `None` without a file.
///
/// # Errors
/// As [`load_or_create`].
pub fn load(path: &Path, store: &SqliteStore) -> Result<Option<Keyring>, String> {
    let known = store.key_fingerprint().map_err(|error| error.to_string())?;
    let Some(keys) = read(path)? else {
        return Ok(None);
    };
    check(path, &keys, known.as_deref())?;
    Ok(Some(keys))
}

/// Reads the identity server's signing keys from `path`; makes a file with one key (mode 0600) if there is none and the
/// store has never been used with one.
///
/// # Errors
/// A sentence for the operator: the file can not be read or made, it holds no keys, or it lacks the key that this store
/// was used with last.
pub async fn load_or_create_signing(
    path: &Path,
    store: &SqliteStore,
) -> Result<SigningKeys, String> {
    let keys = if let Some(keys) = load_signing(path, store)? {
        keys
    } else {
        let text = SigningKeys::generate_file("");
        write_new(path, &text)?;
        read_signing(path, &text)?
    };
    store
        .set_signing_key(keys.newest_encoded())
        .await
        .map_err(|error| error.to_string())?;
    Ok(keys)
}

/// Reads the identity server's signing keys for a command beside the server, which makes and records nothing; `None`
/// without a file, if nothing was ever signed.
///
/// # Errors
/// As [`load_or_create_signing`].
pub fn load_signing(path: &Path, store: &SqliteStore) -> Result<Option<SigningKeys>, String> {
    let known = store.signing_key().map_err(|error| error.to_string())?;
    let text = match (read_text(path)?, &known) {
        (Some(text), _) => text,
        (None, None) => return Ok(None),
        (None, Some(_)) => {
            return Err(format!(
                "the signing key file {} is missing, but this identity server has signed with a key of it. Restore the \
                 file from your backup: what was signed can not be checked without it.",
                path.display()
            ));
        }
    };
    let keys = read_signing(path, &text)?;
    if known.is_none_or(|known| keys.has_encoded(&known)) {
        return Ok(Some(keys));
    }
    Err(format!(
        "{} does not hold the key that this identity server signed with last. Restore the right file, or add that key \
         below the new one.",
        path.display()
    ))
}

/// What an operator should know of signing keys that the file has lost: what they signed can not be checked any more.
///
/// # Errors
/// Why the store can not tell.
pub fn lost_signing(keys: &SigningKeys, store: &SqliteStore) -> Result<Option<String>, String> {
    let older = store
        .older_signing_keys()
        .map_err(|error| error.to_string())?;
    let lost = older.iter().filter(|key| !keys.has_encoded(key)).count();
    Ok((lost > 0).then(|| {
        format!(
            "the signing key file lacks {lost} of the older keys: what they signed, invitations for one, is not valid any \
             more. Restore their lines below the newest one, unless they went on purpose"
        )
    }))
}

/// Puts a new signing key above those in the file; its name. A server that runs goes on with the older one until it is
/// started again.
///
/// # Errors
/// A sentence for the operator: there is no such file, it holds no keys, or it can not be written.
pub fn rotate_signing(path: &Path) -> Result<String, String> {
    let Some(older) = read_text(path)? else {
        return Err(format!(
            "there is no signing key file at {} yet; \"threepid serve\" makes it once the identity server is on",
            path.display()
        ));
    };
    read_signing(path, &older)?;
    let text = SigningKeys::generate_file(&older);
    write_new(path, &text)?;
    Ok(read_signing(path, &text)?.newest_id())
}

fn read_signing(path: &Path, text: &str) -> Result<SigningKeys, String> {
    SigningKeys::parse(text).map_err(|why| unusable("signing key file", path, &why))
}

fn unusable(what: &str, path: &Path, why: &str) -> String {
    format!("the {what} {} can not be used: {why}", path.display())
}

fn check(path: &Path, keys: &Keyring, known: Option<&str>) -> Result<(), String> {
    let fits = known.is_none_or(|known| keys.fingerprints().iter().any(|print| print == known));
    if fits {
        return Ok(());
    }
    Err(format!(
        "{} does not hold the server key that the database was used with. Restore the right key file, or add its key \
         below the new one.",
        path.display()
    ))
}

fn read(path: &Path) -> Result<Option<Keyring>, String> {
    let text = read_text(path)?;
    let keys = text.map(|text| Keyring::parse(&text)).transpose();
    keys.map_err(|why| unusable("key file", path, &why))
}

/// The text of a key file; `None` without one.
fn read_text(path: &Path) -> Result<Option<Zeroizing<String>>, String> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Zeroizing::new(text))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!(
            "the key file {} can not be read: {error}",
            path.display()
        )),
    }
}

/// Makes the file of a fresh key.
fn create(path: &Path) -> Result<Keyring, String> {
    let text = Keyring::generate_file();
    write_new(path, &text)?;
    Keyring::parse(&text)
}

/// Writes the file, and makes its folder for its owner alone. Written beside its place and moved there whole: a crash leaves
/// no half a key, and what such a crash left behind is removed first. Whatever else appears there, a symbolic link say,
/// gets no key: the file is new, and so is its mode. It has the owner and the group of the file in whose place it comes, so
/// that the server can read what an administrator wrote.
fn write_new(path: &Path, text: &str) -> Result<(), String> {
    let beside = path.with_extension("new");
    let folder = path
        .parent()
        .filter(|folder| !folder.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let written = (|| {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(folder)?;
        match fs::remove_file(&beside) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)?;
        let kept = keep_owner(&file, path);
        if kept.is_err() {
            fs::remove_file(&beside)?;
        }
        kept?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&beside, path)?;
        fs::File::open(folder)?.sync_all()
    })();
    written.map_err(|error: io::Error| {
        format!("the key file {} can not be made: {error}", path.display())
    })
}

/// Gives a file the owner and the group of the one at `path`, if there is one.
fn keep_owner(file: &fs::File, path: &Path) -> io::Result<()> {
    let owner = match fs::metadata(path) {
        Ok(former) => (former.uid(), former.gid()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let made = file.metadata()?;
    if (made.uid(), made.gid()) == owner {
        return Ok(());
    }
    let (uid, gid) = owner;
    fchown(file, Some(uid), Some(gid)).map_err(|error| {
        let why = format!("it can not be given to its owner, user {uid} and group {gid}: {error}");
        io::Error::new(error.kind(), why)
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, chown, symlink};

    use super::*;
    use crate::store::sqlite::Role;

    #[tokio::test]
    async fn a_key_is_made_once_and_never_over_a_used_store() {
        let dir = tempfile::tempdir().unwrap();
        let (database, path) = (
            dir.path().join("threepid.db"),
            dir.path().join("secret.key"),
        );
        let store = SqliteStore::open(&database, Role::Server).unwrap();

        let made = load_or_create(&path, &store).await.unwrap();
        let again = load_or_create(&path, &store).await.unwrap();

        assert_eq!(made.fingerprint(), again.fingerprint());
        assert_eq!(
            fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        fs::rename(&path, dir.path().join("lost")).unwrap();
        assert!(
            load_or_create(&path, &store)
                .await
                .unwrap_err()
                .contains("missing")
        );
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_key_in_a_folder_that_is_not_there_gets_one_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("keys");
        let store = SqliteStore::open(&dir.path().join("threepid.db"), Role::Server).unwrap();

        load_or_create(&folder.join("secret.key"), &store)
            .await
            .unwrap();

        let mode = fs::metadata(&folder).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }

    #[tokio::test]
    async fn a_key_is_written_to_no_file_that_was_there_before() {
        for plant in [
            |_: &Path, beside: &Path| fs::write(beside, "left over"),
            |other: &Path, beside: &Path| symlink(other, beside),
        ] {
            let dir = tempfile::tempdir().unwrap();
            let (other, path) = (dir.path().join("other"), dir.path().join("secret.key"));
            let store = SqliteStore::open(&dir.path().join("threepid.db"), Role::Server).unwrap();
            fs::write(&other, "precious").unwrap();
            plant(&other, &dir.path().join("secret.new")).unwrap();

            load_or_create(&path, &store).await.unwrap();

            let made = fs::symlink_metadata(&path).unwrap();
            assert!(made.is_file());
            assert_eq!(made.permissions().mode() & 0o777, 0o600);
            assert_eq!(fs::read(&other).unwrap(), b"precious");
        }
    }

    #[tokio::test]
    async fn another_key_is_refused_and_a_rotated_one_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret.key");
        let store = SqliteStore::open(&dir.path().join("threepid.db"), Role::Server).unwrap();
        load_or_create(&path, &store).await.unwrap();
        let old = fs::read_to_string(&path).unwrap();
        let new = Keyring::generate_file();

        fs::write(&path, new.as_bytes()).unwrap();
        assert!(load_or_create(&path, &store).await.is_err());
        fs::write(&path, format!("{}{old}", *new)).unwrap();
        assert!(load_or_create(&path, &store).await.is_ok());
    }

    #[tokio::test]
    async fn a_rotated_signing_key_stays_its_owner_s() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("signing.key");
        let store = SqliteStore::open(&dir.path().join("threepid.db"), Role::Server).unwrap();
        load_or_create_signing(&path, &store).await.unwrap();
        // Only root may: for anybody else it stays what it was.
        let _ = chown(&path, Some(4711), Some(4712));
        let owner = |path: &Path| {
            let file = fs::metadata(path).unwrap();
            (file.uid(), file.gid(), file.permissions().mode() & 0o777)
        };
        let before = owner(&path);

        rotate_signing(&path).unwrap();

        assert_eq!(owner(&path), before);
        assert_eq!(
            fs::read_dir(dir.path())
                .unwrap()
                .filter(|entry| { entry.as_ref().unwrap().file_name() == "signing.new" })
                .count(),
            0
        );
    }

    #[tokio::test]
    async fn signing_keys_are_made_once_rotated_and_never_lost_in_silence() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("keys").join("signing.key");
        let store = SqliteStore::open(&dir.path().join("threepid.db"), Role::Server).unwrap();
        assert!(
            rotate_signing(&path)
                .unwrap_err()
                .contains("no signing key file")
        );
        let first = load_or_create_signing(&path, &store).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(
            (first.newest_id().as_str(), mode & 0o777),
            ("ed25519:0", 0o600)
        );

        assert_eq!(rotate_signing(&path).unwrap(), "ed25519:1");
        let second = load_or_create_signing(&path, &store).await.unwrap();
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert!(second.has_encoded(&first.newest_encoded()));
        assert_eq!(
            (second.newest_id().as_str(), mode & 0o777),
            ("ed25519:1", 0o600)
        );

        assert_eq!(lost_signing(&second, &store).unwrap(), None);
        let newest = fs::read_to_string(&path).unwrap();
        let newest = newest.lines().next().unwrap().to_owned();
        fs::write(&path, &newest).unwrap();
        let kept = load_or_create_signing(&path, &store).await.unwrap();
        let lost = lost_signing(&kept, &store).unwrap().unwrap();
        assert!(lost.contains("lacks 1 of the older keys"), "{lost}");

        fs::write(&path, SigningKeys::generate_file("").as_bytes()).unwrap();
        let other = load_or_create_signing(&path, &store).await.unwrap_err();
        fs::remove_file(&path).unwrap();
        let missing = load_or_create_signing(&path, &store).await.unwrap_err();
        assert!(other.contains("does not hold the key") && missing.contains("is missing"));
        assert!(!path.exists());
    }
}
