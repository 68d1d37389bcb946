#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| ambra::fuzzing::run("certificate", bytes));
