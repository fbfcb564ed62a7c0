//! The target `pool` under libFuzzer.
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    landfall_layout_fuzz::pool(bytes);
});
