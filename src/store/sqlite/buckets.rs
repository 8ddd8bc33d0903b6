//! Token buckets that survive restarts.

use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, named_params};

use crate::{clock::Timestamp, rate::SET_BACK, store::Bucket};

/// When a bucket is full again; `None` if nothing was taken from it.
pub(super) fn full_at(
    connection: &Connection,
    bucket: Bucket,
) -> rusqlite::Result<Option<Timestamp>> {
    connection
        .prepare_cached("SELECT full_at FROM bucket WHERE key = ?1")?
        .query_row([bucket.key], |row| Ok(Timestamp(row.get(0)?)))
        .optional()
}

/// Takes one from each bucket; how long to wait if one of them has none left, and then the transaction must be undone.
pub(super) fn count_all(
    connection: &Connection,
    buckets: &[Bucket],
    now: Timestamp,
) -> rusqlite::Result<Result<(), Duration>> {
    for bucket in buckets {
        if let Err(wait) = count(connection, *bucket, now)? {
            return Ok(Err(wait));
        }
    }
    Ok(Ok(()))
}

/// Takes one from a bucket in one statement; how long to wait if there is none left.
pub(super) fn count(
    connection: &Connection,
    bucket: Bucket,
    now: Timestamp,
) -> rusqlite::Result<Result<(), Duration>> {
    let Some((step, period)) = bucket.rate.step_and_period() else {
        return Ok(Ok(()));
    };
    let counted = connection
        .prepare_cached(
            "INSERT INTO bucket (key, full_at) VALUES (:key, :now + :step)
             ON CONFLICT (key) DO UPDATE SET
                 full_at = iif(full_at > :now + :period + :set_back, :now + :period, max(full_at, :now) + :step)
             WHERE full_at > :now + :period + :set_back OR max(full_at, :now) + :step <= :now + :period",
        )?
        .execute(
            named_params! { ":key": bucket.key, ":now": now.0, ":step": step, ":period": period, ":set_back": SET_BACK },
        )?;
    if counted > 0 {
        return Ok(Ok(()));
    }
    let full_at = full_at(connection, bucket)?;
    Ok(Err(bucket
        .rate
        .take(full_at, now)
        .err()
        .unwrap_or(Duration::from_secs(1))))
}
