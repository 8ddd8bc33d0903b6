//! What the store promises of associations: one user to an address, and lookups that are right at each step of a rotation.

use std::{collections::HashMap, sync::Arc, time::Duration};

use threepid::{
    clock::Timestamp,
    store::{
        Association, Associations, Dissociated, LookedUp, Rotation,
        sqlite::{Role, SqliteStore},
    },
    threepid::{Medium, Threepid},
};

use crate::support::identity::lookup_hash;

const AT_ONCE: usize = 20;
const NOW: Timestamp = Timestamp(1_795_341_600_000);
const PEPPER: &str = "matrixrocks";

struct Stored {
    store: Arc<SqliteStore>,
    dir: tempfile::TempDir,
}

impl Stored {
    fn new() -> Self {
        Self::open(tempfile::tempdir().expect("a folder"))
    }

    fn open(dir: tempfile::TempDir) -> Self {
        let store = SqliteStore::open(&dir.path().join("t.db"), Role::Server).expect("a store");
        Self { store, dir }
    }

    /// The store as a process finds it whose predecessor was killed.
    async fn reopened(self) -> Self {
        let Self { store, dir } = self;
        store.close().await;
        Self::open(dir)
    }

    async fn associate(&self, address: &str, user_id: &str) {
        let association = Association {
            threepid: email(address),
            user_id: user_id.to_owned(),
            at: NOW,
        };
        self.store
            .associate(association, None, PEPPER)
            .await
            .expect("the store answers");
    }

    async fn dissociate(&self, address: &str, user_id: &str) -> bool {
        let address = email(address);
        let ended = self.store.dissociate(&address, user_id, None, NOW).await;
        ended.expect("the store answers") == Dissociated::Yes
    }

    async fn pepper(&self) -> String {
        self.store
            .pepper("unused", NOW)
            .await
            .expect("the store answers")
            .value
    }

    /// Whose these addresses are, asked by hash with the current pepper.
    async fn owners(&self, addresses: &[&str]) -> Vec<Option<String>> {
        let pepper = self.pepper().await;
        let hashes: Vec<_> = addresses.iter().map(|one| hash(one, &pepper)).collect();
        let found = found(
            self.store
                .look_up(&pepper, hashes.clone())
                .await
                .expect("the store answers"),
        );
        assert!(found.keys().all(|asked| hashes.contains(asked)));
        let owner = |hash| found.get(hash).cloned();
        hashes.iter().map(owner).collect()
    }

    async fn step(&self) -> Rotation {
        self.store
            .rotation_step(NOW)
            .await
            .expect("the store answers")
    }

    async fn begin(&self, next: &str) -> bool {
        self.store
            .begin_rotation(next, NOW)
            .await
            .expect("the store answers")
    }

    async fn rotate(&self, next: &str) {
        assert!(self.begin(next).await);
        while self.step().await == Rotation::GoesOn {}
    }

    /// How many hashes the database has in all, read as an operator would.
    fn hashes(&self) -> u32 {
        let connection =
            rusqlite::Connection::open(self.dir.path().join("t.db")).expect("a database");
        let count = "SELECT count(*) FROM association_hash";
        connection
            .query_row(count, [], |row| row.get(0))
            .expect("a count")
    }
}

fn email(address: &str) -> Threepid {
    Threepid::email(address).expect("an address")
}

fn hash(address: &str, pepper: &str) -> String {
    lookup_hash(address, "email", pepper)
}

fn found(answer: LookedUp) -> HashMap<String, String> {
    match answer {
        LookedUp::Found(found) => found,
        other @ LookedUp::OtherPepper(_) => panic!("{other:?}"),
    }
}

#[expect(
    clippy::unnecessary_wraps,
    reason = "it stands beside owners, of whom there may be none"
)]
fn some(user_id: &str) -> Option<String> {
    Some(user_id.to_owned())
}

fn address(number: u32) -> String {
    format!("user{number}@example.org")
}

#[tokio::test(flavor = "multi_thread")]
async fn of_parallel_first_peppers_one_is_everybodys() {
    let stored = Stored::new();
    let calls: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let store = Arc::clone(&stored.store);
            tokio::spawn(async move { store.pepper(&format!("pepper{number}"), NOW).await })
        })
        .collect();

    let mut peppers = Vec::new();
    for call in calls {
        peppers.push(call.await.unwrap().unwrap());
    }

    peppers.dedup();
    assert_eq!(peppers.len(), 1);
    assert_eq!(peppers[0].since, NOW);
}

#[tokio::test(flavor = "multi_thread")]
async fn of_parallel_associations_of_one_address_one_stays() {
    let stored = Stored::new();
    let calls: Vec<_> = (0..AT_ONCE)
        .map(|number| {
            let store = Arc::clone(&stored.store);
            let association = Association {
                threepid: email("alice@example.org"),
                user_id: format!("@user{number}:example.org"),
                at: NOW,
            };
            tokio::spawn(async move { store.associate(association, None, PEPPER).await })
        })
        .collect();
    for call in calls {
        call.await.unwrap().unwrap();
    }

    let last = stored.store.association(&email("alice@example.org")).await;
    let last = last.unwrap().unwrap().user_id;
    assert_eq!(stored.owners(&["alice@example.org"]).await, [some(&last)]);
    let due = stored.store.lease_onbinds(NOW, NOW, 99, 99).await.unwrap();
    assert_eq!(due.len(), 1, "one homeserver is told");
    assert_eq!(due[0].association.user_id, last);
    assert_eq!(stored.hashes(), 1);
}

#[tokio::test]
async fn an_address_is_found_until_its_own_user_leaves_it() {
    let stored = Stored::new();
    stored.associate("alice@example.org", "@alice:a").await;
    let alice = ["alice@example.org"];

    assert!(!stored.dissociate("alice@example.org", "@mallory:a").await);
    assert_eq!(stored.owners(&alice).await, [some("@alice:a")]);

    assert!(stored.dissociate("alice@example.org", "@alice:a").await);
    assert!(!stored.dissociate("alice@example.org", "@alice:a").await);
    assert_eq!(stored.owners(&alice).await, [None]);
    assert_eq!(stored.store.next_onbind(true).await.unwrap(), None);
    assert_eq!(stored.hashes(), 0);
}

#[tokio::test]
async fn lookups_with_another_pepper_are_told_the_current_one() {
    let stored = Stored::new();
    let asked = || vec![hash("alice@example.org", "other")];
    let before = stored.store.look_up("other", asked()).await.unwrap();
    stored.associate("alice@example.org", "@alice:a").await;

    let other = stored.store.look_up("other", asked()).await.unwrap();
    let plain = vec![(Medium::Email, "alice@example.org".to_owned())];
    let plain = stored.store.look_up_plain("other", plain).await.unwrap();

    assert_eq!(before, LookedUp::Found(HashMap::new()));
    assert_eq!(other, LookedUp::OtherPepper(PEPPER.to_owned()));
    assert_eq!(plain, other);
}

#[tokio::test]
async fn what_is_no_hash_finds_nothing() {
    let stored = Stored::new();
    stored.associate("alice@example.org", "@alice:a").await;
    let good = hash("alice@example.org", PEPPER);
    let mut asked: Vec<String> = [
        "",
        " ",
        "%",
        "\0",
        "' OR 1=1",
        "ä",
        "💩",
        "alice@example.org",
    ]
    .map(str::to_owned)
    .into();
    asked.extend([format!("{good}="), format!(" {good}"), good.to_lowercase()]);
    asked.push("A".repeat(1 << 20));
    asked.extend([good.clone(), good.clone()]);

    let found = found(stored.store.look_up(PEPPER, asked).await.unwrap());

    let only = HashMap::from([(good, "@alice:a".to_owned())]);
    assert_eq!(found, only);
}

#[tokio::test]
async fn addresses_in_clear_are_compared_as_they_are() {
    let stored = Stored::new();
    stored.associate("alice@example.org", "@alice:a").await;
    let asked = [
        (Medium::Email, "alice@example.org"),
        (Medium::Email, "Alice@example.org"),
        (Medium::Msisdn, "alice@example.org"),
        (Medium::Email, "alice@example.org "),
    ];

    let asked = asked.map(|(medium, address)| (medium, address.to_owned()));
    let found = found(
        stored
            .store
            .look_up_plain(PEPPER, asked.into())
            .await
            .unwrap(),
    );

    let only = HashMap::from([("alice@example.org email".to_owned(), "@alice:a".to_owned())]);
    assert_eq!(found, only);
}

#[tokio::test]
async fn lookups_are_right_at_each_step_of_a_rotation() {
    let stored = Stored::new();
    for number in 0..700 {
        stored.associate(&address(number), "@old:a").await;
    }
    assert!(stored.begin("second").await);
    assert!(!stored.begin("third").await, "one at a time");
    let mut owners: HashMap<u32, Option<String>> =
        (0..700).map(|number| (number, some("@old:a"))).collect();

    let mut steps = 0;
    loop {
        // Of each kind some in the first half of the hashes, and some in the second.
        for number in (steps * 20)..(steps * 20 + 7) {
            assert!(stored.dissociate(&address(number), "@old:a").await);
            owners.insert(number, None);
            stored.associate(&address(number + 7), "@new:a").await;
            owners.insert(number + 7, some("@new:a"));
            stored.associate(&address(number + 5000), "@late:a").await;
            owners.insert(number + 5000, some("@late:a"));
        }
        let state = stored.step().await;
        steps += 1;
        let addresses: Vec<_> = owners.keys().copied().map(address).collect();
        let asked: Vec<_> = addresses.iter().map(String::as_str).collect();
        let wanted: Vec<_> = owners.values().cloned().collect();
        assert_eq!(stored.owners(&asked).await, wanted, "after step {steps}");
        if state == Rotation::Done {
            break;
        }
    }

    assert!(steps >= 4, "{steps} small steps");
    assert_eq!(stored.pepper().await, "second");
    let living = owners.values().flatten().count();
    assert_eq!(stored.hashes(), u32::try_from(living).unwrap());
}

#[tokio::test]
async fn an_address_that_left_and_came_back_during_a_rotation_is_the_new_users() {
    let stored = Stored::new();
    for number in 0..300 {
        stored.associate(&address(number), "@old:a").await;
    }
    assert!(stored.begin("second").await);
    stored.step().await;

    for number in 0..300 {
        stored.dissociate(&address(number), "@old:a").await;
        stored.associate(&address(number), "@new:a").await;
    }
    while stored.step().await == Rotation::GoesOn {}

    let addresses: Vec<_> = (0..300).map(address).collect();
    let asked: Vec<_> = addresses.iter().map(String::as_str).collect();
    assert_eq!(stored.owners(&asked).await, vec![some("@new:a"); 300]);
    assert_eq!(stored.hashes(), 300);
}

#[tokio::test]
async fn a_rotation_goes_on_where_a_killed_process_left_it() {
    let mut stored = Stored::new();
    for number in 0..1100 {
        stored.associate(&address(number), "@user:a").await;
    }
    assert!(stored.begin("second").await);
    let addresses: Vec<_> = (0..1100).map(address).collect();
    let asked: Vec<_> = addresses.iter().map(String::as_str).collect();

    let mut steps = 0;
    loop {
        let state = stored.step().await;
        steps += 1;
        stored = stored.reopened().await;
        assert!(stored.owners(&asked).await.iter().all(Option::is_some));
        if state == Rotation::Done {
            break;
        }
        assert!(steps < 50 && !stored.begin("third").await);
    }

    assert!(steps >= 6, "{steps} small steps");
    assert_eq!(stored.pepper().await, "second");
    assert_eq!(stored.hashes(), 1100);
    stored.rotate("third").await;
    assert_eq!(stored.pepper().await, "third");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rotation_may_be_pushed_from_several_sides() {
    let stored = Stored::new();
    for number in 0..900 {
        stored.associate(&address(number), "@user:a").await;
    }
    assert!(stored.begin("second").await);

    let pushes: Vec<_> = (0..4)
        .map(|_| {
            let store = Arc::clone(&stored.store);
            tokio::spawn(async move {
                while store.rotation_step(NOW).await.unwrap() == Rotation::GoesOn {}
            })
        })
        .collect();
    for push in pushes {
        push.await.unwrap();
    }

    let addresses: Vec<_> = (0..900).map(address).collect();
    let asked: Vec<_> = addresses.iter().map(String::as_str).collect();
    assert_eq!(stored.owners(&asked).await, vec![some("@user:a"); 900]);
    assert_eq!(
        (stored.pepper().await, stored.hashes()),
        ("second".to_owned(), 900)
    );
}

#[tokio::test]
async fn there_is_nothing_to_rotate_before_the_first_pepper() {
    let stored = Stored::new();

    assert!(!stored.begin("second").await);
    assert_eq!(stored.step().await, Rotation::Done);

    assert_eq!(stored.pepper().await, "unused");
    stored.rotate("second").await;
    assert_eq!(stored.pepper().await, "second");
}

#[tokio::test]
async fn what_a_homeserver_is_told_is_leased_put_off_and_forgotten() {
    let later = |seconds| NOW + Duration::from_secs(seconds);
    let stored = Stored::new();
    let store = &stored.store;
    stored.associate("alice@example.org", "@alice:a").await;
    assert_eq!(store.next_onbind(true).await.unwrap(), Some(NOW));

    let due = store.lease_onbinds(NOW, later(60), 9, 9).await.unwrap();
    assert_eq!((due.len(), due[0].tries), (1, 0));
    assert_eq!(due[0].association.threepid, email("alice@example.org"));
    let again = store
        .lease_onbinds(later(59), later(60), 9, 9)
        .await
        .unwrap();
    assert!(again.is_empty());

    store.defer_onbind(due[0].id, later(90)).await.unwrap();
    assert_eq!(store.next_onbind(true).await.unwrap(), Some(later(90)));
    let due = store
        .lease_onbinds(later(90), later(99), 9, 9)
        .await
        .unwrap();
    assert_eq!(due[0].tries, 1);

    assert_eq!(store.free_onbinds(later(91)).await.unwrap(), 1);
    assert_eq!(store.next_onbind(true).await.unwrap(), Some(later(91)));
    store
        .finish_onbind(due[0].id, Vec::new(), later(92))
        .await
        .unwrap();
    assert_eq!(store.next_onbind(true).await.unwrap(), None);
}

#[tokio::test]
async fn a_newer_association_takes_the_place_of_what_an_older_one_has_to_tell() {
    let stored = Stored::new();
    let store = &stored.store;
    stored.associate("alice@example.org", "@old:a").await;
    let until = NOW + Duration::from_mins(1);
    let older = store.lease_onbinds(NOW, until, 9, 9).await.unwrap();

    stored.associate("alice@example.org", "@new:a").await;
    store
        .finish_onbind(older[0].id, Vec::new(), NOW)
        .await
        .unwrap();

    let newer = store.lease_onbinds(NOW, until, 9, 9).await.unwrap();
    assert_eq!(newer.len(), 1);
    assert_eq!(newer[0].association.user_id, "@new:a");
}
