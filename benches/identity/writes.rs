//! Associations that are made: what the store does for each `bind`.

use std::{path::Path, sync::Arc, time::Duration};

use threepid::{
    clock::Timestamp,
    store::{
        Association, Associations,
        sqlite::{Role, SqliteStore},
    },
    threepid::Threepid,
};
use tokio::task::JoinSet;

use crate::{
    Failure, Plan,
    fill::PEPPER,
    load::{Outcome, now},
};

/// Makes associations, by so many at once.
pub(crate) async fn all(plan: &Plan, folder: &Path) -> Result<Vec<(u32, Outcome)>, Failure> {
    let store = SqliteStore::open(&folder.join("threepid.db"), Role::Server)?;
    let (mut measured, mut first) = (Vec::new(), 0);
    for (concurrency, count) in plan.writes {
        eprintln!("associations, {concurrency}");
        let (began, mut writers) = (now(), JoinSet::new());
        for writer in 0..concurrency {
            let numbers = (first + writer..first + count).step_by(usize::try_from(concurrency)?);
            writers.spawn(associate(Arc::clone(&store), numbers.collect()));
        }
        let mut latencies = Vec::new();
        while let Some(writer) = writers.join_next().await {
            latencies.extend(writer??);
        }
        first += count;
        let outcome = Outcome::new(latencies, began.elapsed(), Vec::new())?;
        measured.push((concurrency, outcome));
    }
    store.close().await;
    Ok(measured)
}

async fn associate(store: Arc<SqliteStore>, numbers: Vec<u32>) -> Result<Vec<Duration>, Failure> {
    let mut latencies = Vec::new();
    for number in numbers {
        let association = Association {
            threepid: Threepid::email(&format!("new{number}@example.net"))?,
            user_id: format!("@new{number}:example.net"),
            at: Timestamp(1),
        };
        let began = now();
        store.associate(association, None, PEPPER).await?;
        latencies.push(began.elapsed());
    }
    Ok(latencies)
}
