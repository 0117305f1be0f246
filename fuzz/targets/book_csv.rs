//! libFuzzer on [`tessera_fuzz::book_csv`].
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| tessera_fuzz::book_csv(data));
