//! Which copy on disk holds durable receipts back, as a broker tells its publishers.

use std::fmt;

use crate::replica::ReplicaState;

/// How it is with a copy that is not as far as somebody waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum HeldBy {
    /// Its keeper is at work on it.
    Behind,
    /// Its keeper has not begun.
    Absent,
    /// Its keeper's disk failed.
    Failed,
    /// Its keeper's disk is full, or its descriptors or memory are short.
    Full,
    /// Its keeper's process is gone.
    Gone,
    /// Its keeper does not beat, or its disk hangs.
    Silent,
}

impl HeldBy {
    /// All of them.
    pub const ALL: [Self; 6] =
        [Self::Behind, Self::Absent, Self::Failed, Self::Full, Self::Gone, Self::Silent];

    /// What a replica's line says, while its keeper is there.
    pub fn of(state: ReplicaState) -> Self {
        match state {
            ReplicaState::Absent => Self::Absent,
            ReplicaState::Well => Self::Behind,
            ReplicaState::Failed => Self::Failed,
            ReplicaState::Full => Self::Full,
        }
    }
}

/// The copy that is furthest behind, of those that a durable receipt waits for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Held {
    /// Broker whose batches it is a copy of.
    pub source: u8,
    /// Which copy on disk it is, from 0.
    pub replica: u8,
    /// Broker that keeps it now.
    pub keeper: u8,
    /// Another broker keeps it than its home.
    pub moved: bool,
    /// How it is.
    pub by: HeldBy,
    /// The system's error number behind that; 0: none.
    pub errno: u32,
    /// Log index below which it is durable.
    pub durable: u64,
    /// Log index of the entry that waits.
    pub awaited: u64,
}

impl Held {
    pub(crate) fn words(self) -> [u64; 3] {
        let small = u64::from(self.source)
            | u64::from(self.replica) << 8
            | u64::from(self.keeper) << 16
            | u64::from(self.moved) << 24
            | (self.by as u64) << 32
            | u64::from(self.errno as u16) << 48;
        [small, self.durable, self.awaited]
    }

    /// What the words say; the word that stands for nothing otherwise.
    pub(crate) fn from_words([small, durable, awaited]: [u64; 3]) -> Result<Self, u64> {
        let by = HeldBy::ALL.into_iter().find(|by| *by as u64 == small >> 32 & 0xffff);
        Ok(Self {
            source: small as u8,
            replica: (small >> 8) as u8,
            keeper: (small >> 16) as u8,
            moved: match small >> 24 & 0xff {
                0 => false,
                1 => true,
                _ => return Err(small),
            },
            by: by.ok_or(small)?,
            errno: (small >> 48) as u32,
            durable,
            awaited,
        })
    }
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { source, replica, keeper, moved, by, errno, durable, awaited } = self;
        write!(
            f,
            "copy {replica} on disk of what broker {source} landed, which broker {keeper} keeps"
        )?;
        if *moved {
            f.write_str(" in place of its home")?;
        }
        write!(f, ", has everything below log index {durable} and {awaited} is waited for: ")?;
        match by {
            HeldBy::Behind => f.write_str("its disk is behind; wait, or publish less at once"),
            HeldBy::Absent => write!(f, "broker {keeper} has not begun it"),
            // What files say is no answer of the system's.
            HeldBy::Failed if *errno == 0 => write!(
                f,
                "it failed, and landfall errors says why; mend the cause and start broker {keeper} \
                 again"
            ),
            HeldBy::Failed => write!(
                f,
                "it failed with error {errno} (landfall errors); mend the cause and start broker \
                 {keeper} again"
            ),
            HeldBy::Full if matches!(errno, 12 | 23 | 24) => write!(
                f,
                "broker {keeper} has no {} left (error {errno}); raise its limit or that of the \
                 system",
                if *errno == 12 { "memory" } else { "descriptors" }
            ),
            HeldBy::Full if *errno == 11 => write!(
                f,
                "another process keeps the lock of its directory (landfall errors); let it go on, \
                 or end it"
            ),
            HeldBy::Full if !matches!(errno, 0 | 28 | 122) => write!(
                f,
                "broker {keeper} cannot open or make a file of it (error {errno}; landfall errors \
                 names it) and tries again until it can; mend the cause"
            ),
            HeldBy::Full => write!(f, "the disk of broker {keeper} is full; make room"),
            HeldBy::Gone | HeldBy::Silent => write!(
                f,
                "broker {keeper} {}; start it again, or wait for another broker with a disk to \
                 take the copy over (landfall topic describe)",
                if *by == HeldBy::Gone {
                    "is gone"
                } else {
                    "does not answer, or its disk does not"
                }
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_said_comes_back_and_nothing_else_is_taken() {
        for by in HeldBy::ALL {
            let held = Held {
                source: 1,
                replica: 2,
                keeper: 3,
                moved: true,
                by,
                errno: 28,
                durable: 4,
                awaited: 5,
            };
            assert_eq!(Held::from_words(held.words()), Ok(held));
            assert!(held.to_string().contains("broker 3"), "{held}");
        }
        let held = |by, errno| {
            let (source, replica, keeper, moved, durable, awaited) = (1, 2, 3, false, 4, 5);
            Held { source, replica, keeper, moved, by, errno, durable, awaited }.to_string()
        };
        let failed = |errno| held(HeldBy::Failed, errno);
        assert!(held(HeldBy::Full, 28).contains("make room"));
        let refused = held(HeldBy::Full, 5);
        assert!(refused.contains("error 5") && !refused.contains("room"), "{refused}");
        assert!(failed(5).contains("error 5"), "{}", failed(5));
        assert!(!failed(0).contains("error 0"), "none of the system's: {}", failed(0));
        assert!(Held::from_words([2 << 24, 0, 0]).is_err());
        assert!(Held::from_words([6 << 32, 0, 0]).is_err());
    }
}
