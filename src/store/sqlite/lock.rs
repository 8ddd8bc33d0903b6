//! One server to a database.

use std::{
    fs::{File, TryLockError},
    io::{Read, Seek, Write},
    path::{Path, PathBuf},
};

use super::{OpenError, private_options, refused};

/// The lock against a second server: held until it is dropped, or the process ends.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file would do, but for a child that is just being started: it has the file too, for a moment.
        let _ = self.0.unlock();
    }
}

/// Takes the lock of a database.
pub(super) fn lock(database: &Path) -> Result<Lock, OpenError> {
    let path = lock_path(database);
    let mut file = private_options()
        .create(true)
        .truncate(false)
        .open(&path)
        .map_err(|error| refused(&path, &error))?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            let mut holder = String::new();
            let _ = file.read_to_string(&mut holder);
            let holder = if holder.is_empty() {
                "another process".to_owned()
            } else {
                holder.trim().to_owned()
            };
            return Err(OpenError::Locked {
                path: database.display().to_string(),
                holder,
            });
        }
        Err(TryLockError::Error(error)) => return Err(refused(&path, &error)),
    }
    let written = file
        .set_len(0)
        .and_then(|()| file.rewind())
        .and_then(|()| writeln!(file, "process {}", std::process::id()));
    written.map_err(|error| refused(&path, &error))?;
    Ok(Lock(file))
}

pub(super) fn lock_path(database: &Path) -> PathBuf {
    let mut name = database.as_os_str().to_owned();
    name.push(".lock");
    PathBuf::from(name)
}
