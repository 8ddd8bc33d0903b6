//! Ten thousand made-up inputs for each parser that strangers reach. The seed is printed; `THREEPID_SEED` repeats it.

use proptest::{
    prelude::*,
    test_runner::{Config, RngAlgorithm, TestRng, TestRunner},
};

#[path = "../../fuzz/targets.rs"]
mod targets;

const CASES: u32 = 10_000;

fn run<S: Strategy>(name: &str, inputs: &S, check: impl Fn(S::Value)) {
    let seed: u64 = match std::env::var_os("THREEPID_SEED") {
        Some(seed) => seed
            .to_string_lossy()
            .parse()
            .expect("THREEPID_SEED is a number"),
        None => chance(),
    };
    eprintln!("{name}: {CASES} cases, THREEPID_SEED={seed}");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: CASES,
        failure_persistence: None,
        ..Config::default()
    };
    let mut runner =
        TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let outcome = runner.run(inputs, |input| {
        check(input);
        Ok(())
    });
    assert!(outcome.is_ok(), "THREEPID_SEED={seed}: {outcome:?}");
}

/// A number that differs from run to run.
fn chance() -> u64 {
    use std::hash::{BuildHasher, RandomState};
    RandomState::new().hash_one("seed")
}

/// A good text with a few characters changed, put in or left out.
fn bent(good: &'static [&'static str]) -> impl Strategy<Value = String> {
    let odd = prop_oneof![
        any::<char>(),
        prop::sample::select(vec![
            '@', '\0', '\r', '\n', ' ', '"', '\\', '/', '#', '?', '.', ':', 'ß', '\u{202e}', '%',
            'K', '!'
        ]),
    ];
    let change = (any::<prop::sample::Index>(), odd, 0..3u8);
    (
        prop::sample::select(good),
        prop::collection::vec(change, 0..4),
    )
        .prop_map(|(good, changes)| {
            let mut letters: Vec<char> = good.chars().collect();
            for (place, odd, kind) in changes {
                let at = place.index(letters.len() + 1);
                match kind {
                    0 => letters.insert(at, odd),
                    1 if at < letters.len() => letters[at] = odd,
                    _ if at < letters.len() => drop(letters.remove(at)),
                    _ => {}
                }
            }
            letters.into_iter().collect()
        })
}

#[test]
fn addresses_keep_their_promises() {
    const GOOD: &[&str] = &[
        "alice@example.org",
        "Strauß+tag@Mail.Example.org",
        "o'neil@xn--strae-oqa.example",
        "a@localhost",
    ];
    run(
        "address",
        &prop_oneof![bent(GOOD), any::<String>(), "[a-zA-Z.+@ßK]{0,80}"],
        |text| targets::address(&text),
    );
}

#[test]
fn phone_numbers_keep_their_promises() {
    const GOOD: &[&str] = &[
        "07700900001",
        "+33 6 11 22 33 44",
        "+49 0 030/1234567",
        "011 15 2345-6789",
        "＋４４ ７７００９００００１",
        "(650) 253-0000",
        "+881612345678",
    ];
    const COUNTRIES: &[&str] = &[
        "GB", "US", "DE", "AT", "AR", "BR", "MX", "IT", "AQ", "ZZ", "gb",
    ];
    let country = prop_oneof![
        prop::sample::select(COUNTRIES).prop_map(str::to_owned),
        "[A-Z]{2}"
    ];
    let number = prop_oneof![
        bent(GOOD),
        any::<String>(),
        "\\+?[0-9 /x]{1,20}",
        "\\+[1-9][0-9]{4,16}"
    ];
    run("phone", &(country, number), |(country, typed)| {
        targets::phone(&country, &typed);
    });
}

#[test]
fn next_links_keep_their_promises() {
    const GOOD: &[&str] = &[
        "https://app.example.org/#/register?client_secret=abc&hs_url=https%3A%2F%2Fx",
        "http://localhost:8080/?x=1",
        "https://[::1]:8443/a",
        "io.example.app:/done",
        "https://app.example.org",
    ];
    run(
        "next_link",
        &prop_oneof![
            bent(GOOD),
            any::<String>(),
            "https?:[/\\\\]{0,3}[a-z@:.#?]{0,40}"
        ],
        |text| {
            targets::next_link(&text);
        },
    );
}

#[test]
fn bodies_keep_their_promises() {
    const GOOD: &[&str] = &[
        r#"{"client_secret":"s","email":"alice@example.org","send_attempt":1}"#,
        r#"{"client_secret":"a.=_-","email":"A@b.org","send_attempt":9007199254740991,"next_link":"https://a.org/","x":[{}]}"#,
    ];
    let bytes = prop::collection::vec(any::<u8>(), 0..200);
    run(
        "body",
        &prop_oneof![bent(GOOD).prop_map(String::into_bytes), bytes],
        |bytes| targets::body(&bytes),
    );
}
