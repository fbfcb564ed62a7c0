//! A memory client's channel: a small mapping it shares with its broker, beside the pool.
//!
//! ```text
//! 0    magic, version, lines (written by the broker before it hands the channel out)
//! 64   client's parked word        128  broker's parked word      192  client's hold word
//! 4096 ring client -> broker       4096 + ring  ring broker -> client
//! ```

use crate::limits::{CHANNEL_LINES, LINE_BYTES, PAGE_BYTES};

/// First word of a channel: "LFCHAN01".
pub const CHANNEL_MAGIC: u64 = u64::from_le_bytes(*b"LFCHAN01");
/// Offset of the magic.
pub const MAGIC_AT: u64 = 0;
/// Offset of the client's parked word. Writer: the client.
pub const CLIENT_PARKED_AT: u64 = 64;
/// Offset of the broker's parked word. Writer: the broker.
pub const BROKER_PARKED_AT: u64 = 128;
/// Offset of the hold word: segment + 1 that the client reads at this moment, or 0. While it
/// stands, the broker does not let that segment be reused. Writer: the client.
pub const HOLD_AT: u64 = 192;
/// Bytes of one ring: the consumer's line, then the lines.
pub const RING_BYTES: u64 = (1 + CHANNEL_LINES) * LINE_BYTES;
/// Offset of the ring client -> broker.
pub const TO_BROKER_AT: u64 = PAGE_BYTES;
/// Offset of the ring broker -> client.
pub const TO_CLIENT_AT: u64 = TO_BROKER_AT + RING_BYTES;
/// Bytes of the whole channel.
pub const CHANNEL_BYTES: u64 = (TO_CLIENT_AT + RING_BYTES).next_multiple_of(PAGE_BYTES);
