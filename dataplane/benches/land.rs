//! Landing alone.
fn main() {}
