//! Random bytes.

use std::io::{self, Read};

/// Sixteen random bytes: a pool's name, a token.
pub fn random_uuid() -> io::Result<[u8; 16]> {
    let mut uuid = [0; 16];
    std::fs::File::open("/dev/urandom")?.read_exact(&mut uuid)?;
    Ok(uuid)
}
