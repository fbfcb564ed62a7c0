//! What a message costs its publisher and its reader.
fn main() {}
