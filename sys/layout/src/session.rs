//! Session lines: what the sequencer says of each publisher's identity.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Where a session stands.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum SessionState {
    /// The line is unused.
    Free,
    /// Its batches are ordered.
    Active,
    /// A gap outlived the lease: nothing after the gap is ever ordered in this epoch.
    Fenced,
    /// The publisher said goodbye; the line may be used again when lines run out.
    Closed,
}

/// A session's line. Writer: the sequencer. Readers: brokers, tools.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, KnownLayout, Immutable)]
#[repr(C)]
pub struct SessionLine {
    /// [`Standing`], packed; stored last.
    pub standing: u64,
    /// The publisher's client id.
    pub client: u64,
    /// Batch sequence expected next: everything below it is ordered, or was never sent.
    pub next_seq: u64,
    /// Topic id.
    pub topic: u32,
    /// The epoch that `opened_by` opened. Stored before it, and so no line that was being changed
    /// when its writer died names a request beside an epoch that it did not open.
    pub opened_epoch: u32,
    /// Wall clock when it was opened, nanoseconds.
    pub opened_ns: u64,
    /// The broker's request that opened `opened_epoch`: asked again, of this control or of the next
    /// one, it is answered with that epoch and opens no other. 0: not known.
    pub opened_by: u64,
    /// Zero.
    pub reserved: [u64; 2],
}

lines!(SessionLine, 1, {
    standing @ 0, client @ 8, next_seq @ 16, topic @ 24, opened_epoch @ 28,
    opened_ns @ 32, opened_by @ 40, reserved @ 48,
});

/// Epoch and state of a session in one word, so that a broker reads both at once.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Standing {
    /// Session epoch, from 1.
    pub epoch: u32,
    /// State in that epoch.
    pub state: SessionState,
}

impl Standing {
    /// The word as it lies in the line.
    pub fn pack(self) -> u64 {
        u64::from(self.epoch) | (self.state as u64) << 32
    }

    /// What a word says; an unknown state reads as fenced, the one that stops everything.
    pub fn unpack(word: u64) -> Self {
        let state = match word >> 32 {
            0 => SessionState::Free,
            1 => SessionState::Active,
            3 => SessionState::Closed,
            _ => SessionState::Fenced,
        };
        Self { epoch: word as u32, state }
    }
}
