use std::{sync::Arc, thread, time::Duration};

use rusqlite::Connection;

use super::*;

struct Disk {
    _dir: tempfile::TempDir,
    path: std::path::PathBuf,
    writer: Arc<Writer>,
}

impl Disk {
    fn new(set_up: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("test.db");
        let connection = Connection::open(&path).unwrap();
        connection
            .execute_batch("PRAGMA journal_mode=WAL; CREATE TABLE item (id INTEGER PRIMARY KEY, filler BLOB) STRICT;")
            .unwrap();
        connection.execute_batch(set_up).unwrap();
        Self {
            _dir: dir,
            path,
            writer: Arc::new(Writer::start(connection, true).unwrap()),
        }
    }

    /// Holds the writer inside a group until the returned sender is used, so that what comes next joins that group.
    fn hold(
        &self,
    ) -> (
        std::sync::mpsc::Sender<()>,
        tokio::task::JoinHandle<StoreResult<()>>,
    ) {
        let (let_go, held) = std::sync::mpsc::channel::<()>();
        let writer = Arc::clone(&self.writer);
        let task = tokio::spawn(async move {
            writer
                .run(Size::Many, move |_| {
                    let _ = held.recv_timeout(Duration::from_secs(5));
                    Ok(Verdict::Keep(()))
                })
                .await
        });
        (let_go, task)
    }

    fn insert(&self, id: i64, filler: i64) -> tokio::task::JoinHandle<StoreResult<()>> {
        let writer = Arc::clone(&self.writer);
        tokio::spawn(async move {
            writer
                .run(Size::Many, move |connection| {
                    connection
                        .execute("INSERT INTO item VALUES (?1, zeroblob(?2))", (id, filler))?;
                    Ok(Verdict::Keep(()))
                })
                .await
        })
    }

    fn ids(&self) -> Vec<i64> {
        let reader = Connection::open(&self.path).unwrap();
        let mut select = reader.prepare("SELECT id FROM item ORDER BY id").unwrap();
        select
            .query_map([], |row| row.get(0))
            .unwrap()
            .map(Result::unwrap)
            .collect()
    }
}

/// Lets tasks reach the writer's queue.
async fn queue_up() {
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    thread::sleep(Duration::from_millis(2));
}

#[tokio::test]
async fn what_waits_together_is_committed_together() {
    let disk = Disk::new("");
    let (let_go, held) = disk.hold();
    queue_up().await;
    let tasks: Vec<_> = (1..=20).map(|id| disk.insert(id, 1)).collect();
    queue_up().await;
    assert_eq!(disk.ids(), Vec::<i64>::new());

    let_go.send(()).unwrap();

    held.await.unwrap().unwrap();
    for task in tasks {
        task.await.unwrap().unwrap();
    }
    assert_eq!(disk.ids(), (1..=20).collect::<Vec<_>>());
}

#[tokio::test]
async fn a_constraint_error_in_a_group_harms_only_its_own_member() {
    let disk = Disk::new("INSERT INTO item VALUES (7, NULL)");
    let (let_go, _held) = disk.hold();
    queue_up().await;
    let (before, wrong, after) = (disk.insert(1, 1), disk.insert(7, 1), disk.insert(2, 1));
    queue_up().await;

    let_go.send(()).unwrap();

    before.await.unwrap().unwrap();
    assert!(matches!(wrong.await.unwrap(), Err(StoreError::Failed(_))));
    after.await.unwrap().unwrap();
    assert_eq!(disk.ids(), [1, 2, 7]);
}

#[tokio::test]
async fn a_panic_in_a_group_harms_only_its_own_member() {
    let disk = Disk::new("");
    let (let_go, _held) = disk.hold();
    queue_up().await;
    let before = disk.insert(1, 1);
    let writer = Arc::clone(&disk.writer);
    let panicking = tokio::spawn(async move {
        writer
            .run::<(), _>(Size::Many, |connection| {
                connection.execute("INSERT INTO item VALUES (66, NULL)", [])?;
                panic!("on purpose")
            })
            .await
    });
    let after = disk.insert(2, 1);
    queue_up().await;

    let_go.send(()).unwrap();

    before.await.unwrap().unwrap();
    assert!(matches!(
        panicking.await.unwrap(),
        Err(StoreError::Failed(_))
    ));
    after.await.unwrap().unwrap();
    assert_eq!(disk.ids(), [1, 2]);
}

#[tokio::test]
async fn work_that_undoes_itself_leaves_nothing_and_still_answers() {
    let disk = Disk::new("");

    let answer = disk
        .writer
        .run(Size::Many, |connection| {
            connection.execute("INSERT INTO item VALUES (1, NULL)", [])?;
            Ok(Verdict::Undo("refused"))
        })
        .await;

    assert_eq!(answer.unwrap(), "refused");
    assert_eq!(disk.ids(), Vec::<i64>::new());
}

#[tokio::test]
async fn a_full_disk_refuses_and_writes_resume_when_space_returns() {
    let disk = Disk::new("PRAGMA max_page_count = 20");
    assert!(disk.insert(1, 1).await.unwrap().is_ok());
    let (let_go, _held) = disk.hold();
    queue_up().await;
    let (small, large, later) = (
        disk.insert(2, 1),
        disk.insert(3, 200_000),
        disk.insert(4, 1),
    );
    queue_up().await;

    let_go.send(()).unwrap();

    assert!(matches!(
        large.await.unwrap(),
        Err(StoreError::Unavailable(_))
    ));
    let mut expected = vec![1];
    for (id, task) in [(2, small), (4, later)] {
        match task.await.unwrap() {
            Ok(()) => expected.push(id),
            Err(error) => assert!(matches!(error, StoreError::Unavailable(_)), "{error}"),
        }
    }
    assert_eq!(
        disk.ids(),
        expected,
        "what was answered Ok is there, and nothing else"
    );

    let more = disk.writer.run(Size::One, |connection| {
        connection.query_row("PRAGMA max_page_count = 1000", [], |_| Ok(()))?;
        Ok(Verdict::Keep(()))
    });
    more.await.unwrap();
    disk.insert(5, 200_000).await.unwrap().unwrap();
    assert!(disk.ids().contains(&5));
}

#[tokio::test]
async fn a_full_queue_refuses_at_once() {
    let disk = Disk::new("");
    let (let_go, _held) = disk.hold();
    queue_up().await;
    let tasks: Vec<_> = (0..QUEUE + 50)
        .map(|id| disk.insert(i64::try_from(id).unwrap(), 1))
        .collect();
    queue_up().await;

    let_go.send(()).unwrap();

    let mut refused = 0;
    for task in tasks {
        match task.await.unwrap() {
            Ok(()) => {}
            Err(StoreError::Unavailable(_)) => refused += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!((1..=50).contains(&refused), "{refused}");
    assert_eq!(disk.ids().len(), QUEUE + 50 - refused);
}

#[tokio::test]
async fn a_stopped_writer_has_finished_what_waited() {
    let disk = Disk::new("");
    let tasks: Vec<_> = (1..=50).map(|id| disk.insert(id, 1)).collect();
    queue_up().await;

    disk.writer.stop();

    let mut done = Vec::new();
    for (id, task) in (1..=50).zip(tasks) {
        if task.await.unwrap().is_ok() {
            done.push(id);
        }
    }
    assert_eq!(disk.ids(), done);
    assert!(matches!(
        disk.insert(99, 1).await.unwrap(),
        Err(StoreError::Unavailable(_))
    ));
}

#[tokio::test]
async fn what_nobody_waits_for_any_more_is_not_done() {
    let disk = Disk::new("");
    let (let_go, held) = disk.hold();
    queue_up().await;
    let abandoned = disk.insert(1, 1);
    let wanted = disk.insert(2, 1);
    queue_up().await;

    abandoned.abort();
    queue_up().await;
    let_go.send(()).unwrap();

    held.await.unwrap().unwrap();
    wanted.await.unwrap().unwrap();
    assert_eq!(disk.ids(), [2]);
}

#[tokio::test]
#[expect(
    clippy::disallowed_methods,
    reason = "how long a refusal takes is the point"
)]
async fn a_lock_of_another_process_refuses_all_who_wait_at_once() {
    let disk = Disk::new("PRAGMA busy_timeout = 300");
    let other = Connection::open(&disk.path).unwrap();
    other.execute_batch("BEGIN IMMEDIATE").unwrap();
    let began = Instant::now();
    let tasks: Vec<_> = (1..=10).map(|id| disk.insert(id, 1)).collect();
    for task in tasks {
        assert!(matches!(
            task.await.unwrap(),
            Err(StoreError::Unavailable(_))
        ));
    }
    assert!(
        began.elapsed() < Duration::from_millis(1500),
        "{:?}",
        began.elapsed()
    );
    other.execute_batch("ROLLBACK").unwrap();
    disk.insert(11, 1).await.unwrap().unwrap();
}
