//! A memory client's channel: two line rings, two parked words and a hold word in a memfd.

use std::fs::File;
use std::os::fd::OwnedFd;

use landfall_layout::channel::*;
use landfall_layout::limits::CHANNEL_LINES;
use nix::fcntl::{FcntlArg, SealFlag, fcntl};

use crate::hold::HoldWord;
use crate::line_ring::LineRing;
use crate::map::{Backing, MapError, Mapping, memfd};
use crate::memory::Memory;

/// Ring client -> broker.
pub const TO_BROKER: LineRing = LineRing::behind(TO_BROKER_AT, CHANNEL_LINES);
/// Ring broker -> client.
pub const TO_CLIENT: LineRing = LineRing::behind(TO_CLIENT_AT, CHANNEL_LINES);
/// The subscriber's hold.
pub const HOLD: HoldWord = HoldWord { at: HOLD_AT };

/// Makes a channel: its mapping, and the descriptor for the client.
pub fn create() -> Result<(Mapping, OwnedFd), MapError> {
    let fd = memfd("landfall-channel", CHANNEL_BYTES)?;
    // A client that cut the file short would end the broker at its next look at it.
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&fd, FcntlArg::F_ADD_SEALS(seals))
        .map_err(|e| MapError::Io { what: "seal the channel's size".into(), source: e.into() })?;
    let mapping = Mapping::new(&fd, CHANNEL_BYTES, Backing::Shmem, true)?;
    mapping.store_release(MAGIC_AT, CHANNEL_MAGIC);
    Ok((mapping, fd))
}

/// Maps a channel that a broker handed out.
pub fn open(fd: OwnedFd) -> Result<Mapping, MapError> {
    let file = File::from(fd);
    let bytes = file
        .metadata()
        .map_err(|source| MapError::Io { what: "look at the channel".into(), source })?
        .len();
    if bytes != CHANNEL_BYTES {
        return Err(MapError::NotChannel { bytes, magic: 0 });
    }
    let mapping = Mapping::new(&file, CHANNEL_BYTES, Backing::Shmem, true)?;
    // The descriptor came over a socket after the word was stored, so no edge is needed.
    match mapping.load_relaxed(MAGIC_AT) {
        CHANNEL_MAGIC => Ok(mapping),
        magic => Err(MapError::NotChannel { bytes, magic }),
    }
}

/// Says in a parked word that this side is about to sleep (1) or is awake (0). After saying 1 the
/// caller looks for work once more and then sleeps on the connection.
pub fn set_parked(channel: &impl Memory, at: u64, parked: bool) {
    // EDGE channel-parked, release half. Pairs with `is_parked`.
    channel.store_release(at, parked.into());
    if parked {
        channel.full_fence();
    }
}

/// Whether the other side sleeps and wants a byte on the connection. Called after work was
/// published.
pub fn is_parked(channel: &impl Memory, at: u64) -> bool {
    channel.full_fence();
    // EDGE channel-parked, acquire half. Pairs with `set_parked`.
    channel.load(at) != 0
}
