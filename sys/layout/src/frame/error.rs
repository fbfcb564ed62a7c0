//! What is wrong with bytes that are not a frame.

use std::fmt;

use super::{FRAME_MAGIC, FRAME_VERSION, TAIL_BYTES_MAX};
use crate::batch::BATCH_MAGIC;

/// Why bytes are not a frame.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum FrameError {
    /// The first word is no frame's.
    Magic {
        /// Word found.
        found: u32,
    },
    /// Another version.
    Version {
        /// Version found.
        found: u8,
    },
    /// A kind, or a field's value, that does not exist.
    Field {
        /// Kind found.
        kind: u8,
        /// The field.
        field: &'static str,
        /// Value found.
        value: u64,
    },
    /// A tail past the bound.
    Tail {
        /// Bytes claimed.
        bytes: u16,
    },
}

impl fmt::Display for FrameError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Self::Magic { found } => write!(
                f,
                "frame starts with {found:#010x}; a frame starts with {FRAME_MAGIC:#010x} and a \
                 batch with {BATCH_MAGIC:#010x}"
            ),
            Self::Version { found } => {
                write!(
                    f,
                    "frame has protocol version {found}; this program speaks {FRAME_VERSION}: use \
                     programs of one release"
                )
            }
            Self::Field { kind, field, value } => {
                write!(f, "frame of kind {kind} has {field} = {value}, which does not exist")
            }
            Self::Tail { bytes } => {
                write!(f, "frame claims a tail of {bytes} bytes; at most {TAIL_BYTES_MAX}")
            }
        }
    }
}

impl std::error::Error for FrameError {}
