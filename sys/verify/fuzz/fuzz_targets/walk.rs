//! The target `walk` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let path = std::env::temp_dir().join(format!("fuzz-walk-{}", std::process::id()));
    landfall_verify_fuzz::any_walk(&path, bytes);
});
