//! Wall clock and random bytes.

use std::io::{self, Read};
use std::time::{SystemTime, UNIX_EPOCH};

/// Wall clock, nanoseconds since 1970; 0 on a clock before that.
pub fn now_ns() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .ok()
        .and_then(|since| u64::try_from(since.as_nanos()).ok())
        .unwrap_or(0)
}

/// Sixteen random bytes: a pool's name, a token.
pub fn random_uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    Ok(uuid)
}
