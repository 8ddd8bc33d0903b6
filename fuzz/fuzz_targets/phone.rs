#![no_main]

#[expect(dead_code, reason = "each target runs one of these")]
#[path = "../targets.rs"]
mod targets;

libfuzzer_sys::fuzz_target!(|number: (&str, &str)| targets::phone(number.0, number.1));
