//! What follows a `Hello`: the topic's name, and of a subscriber that comes back its places. What
//! follows an `Ends`: places alone.

use std::fmt;
use std::str::Utf8Error;

use crate::limits::LOGS_PER_TOPIC;

/// Bytes of a place: the log, and two words in little-endian order.
const PLACE_BYTES: usize = 17;

/// Where a subscriber is in one log.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogPlace {
    /// The log's number.
    pub log: u8,
    /// Index of the entry that it has not seen yet; it has seen all before.
    pub next: u64,
    /// Position that it expects there.
    pub position: u64,
}

impl LogPlace {
    /// Places as they go over the wire: [`PLACE_BYTES`] each, by rising numbers of their logs.
    pub fn encode_all(places: &[Self]) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(places.len() * PLACE_BYTES);
        for Self { log, next, position } in places {
            bytes.push(*log);
            bytes.extend_from_slice(&next.to_le_bytes());
            bytes.extend_from_slice(&position.to_le_bytes());
        }
        bytes
    }

    /// The places that bytes from the wire say; none where there are no bytes.
    pub fn decode_all(bytes: &[u8]) -> Result<Vec<Self>, TailError> {
        if !bytes.len().is_multiple_of(PLACE_BYTES) {
            return Err(TailError::Places { bytes: bytes.len() });
        }
        let mut places: Vec<Self> = Vec::with_capacity(bytes.len() / PLACE_BYTES);
        for place in bytes.chunks_exact(PLACE_BYTES) {
            let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|i| place[at + i]));
            let log = place[0];
            let is_next = places.last().is_none_or(|last| last.log < log);
            if usize::from(log) >= LOGS_PER_TOPIC || !is_next {
                return Err(TailError::Log { log });
            }
            places.push(Self { log, next: word(1), position: word(9) });
        }
        Ok(places)
    }
}

/// The tail of a `Hello`: the topic's name and, behind a zero byte, places of [`PLACE_BYTES`] each,
/// by rising numbers of their logs. Without places there is no zero byte.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HelloTail {
    /// The topic's name.
    pub topic: String,
    /// Where a subscriber goes on. A log without a place begins where the `Hello` says.
    pub places: Vec<LogPlace>,
}

/// Why bytes are no tail of a `Hello`, or of an `Ends`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TailError {
    /// The topic's name is no text.
    Name(Utf8Error),
    /// The bytes are no whole number of places, or none behind a name and a zero.
    Places {
        /// Bytes found.
        bytes: usize,
    },
    /// A log that no topic has, or one that does not come behind the one before.
    Log {
        /// Number found.
        log: u8,
    },
}

impl HelloTail {
    /// The tail as it goes over the wire.
    pub fn encode(&self) -> Vec<u8> {
        let mut bytes = self.topic.as_bytes().to_vec();
        if !self.places.is_empty() {
            bytes.push(0);
        }
        bytes.extend_from_slice(&LogPlace::encode_all(&self.places));
        bytes
    }

    /// What bytes from the wire say.
    pub fn decode(bytes: &[u8]) -> Result<Self, TailError> {
        let (name, rest) = match bytes.iter().position(|byte| *byte == 0) {
            Some(end) => (&bytes[..end], &bytes[end + 1..]),
            None => (bytes, &[][..]),
        };
        let topic = std::str::from_utf8(name).map_err(TailError::Name)?.to_owned();
        let is_told = name.len() < bytes.len();
        if is_told && rest.is_empty() {
            return Err(TailError::Places { bytes: 0 });
        }
        Ok(Self { topic, places: LogPlace::decode_all(rest)? })
    }
}

impl fmt::Display for TailError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(error) => write!(f, "the topic's name: {error}"),
            Self::Places { bytes } => write!(
                f,
                "{bytes} bytes are no places in logs; those take {PLACE_BYTES} bytes each, and at \
                 least one follows a topic's name and a zero"
            ),
            Self::Log { log } => write!(
                f,
                "a place in log {log}; logs are numbered below {LOGS_PER_TOPIC} and named in \
                 rising order, each once"
            ),
        }
    }
}

impl std::error::Error for TailError {}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::TAIL_BYTES_MAX;
    use crate::limits::TOPIC_NAME_BYTES_MAX;

    fn place(log: u8) -> LogPlace {
        LogPlace { log, next: 0x0102_0304_0506_0708, position: u64::MAX - u64::from(log) }
    }

    #[test]
    fn a_name_alone_is_its_bytes() {
        let tail = HelloTail { topic: "orders".into(), places: vec![] };
        assert_eq!(tail.encode(), b"orders");
        assert_eq!(HelloTail::decode(b"orders"), Ok(tail));
    }

    #[test]
    fn the_longest_tail_fits_and_says_what_it_said() {
        let places = (0..LOGS_PER_TOPIC as u8).map(place).collect();
        let tail = HelloTail { topic: "n".repeat(TOPIC_NAME_BYTES_MAX), places };
        let bytes = tail.encode();
        assert!(bytes.len() <= TAIL_BYTES_MAX, "{} bytes", bytes.len());
        assert_eq!(HelloTail::decode(&bytes), Ok(tail));
    }

    #[test]
    fn a_place_is_a_log_an_index_and_a_position() {
        let tail = HelloTail { topic: "t".into(), places: vec![place(3)] };
        let bytes = [b't', 0, 3, 8, 7, 6, 5, 4, 3, 2, 1, 0xfc, 255, 255, 255, 255, 255, 255, 255];
        assert_eq!(tail.encode(), bytes);
    }

    #[test]
    fn places_alone_may_be_none() {
        let places = [place(0), place(31)];
        assert_eq!(LogPlace::decode_all(&LogPlace::encode_all(&places)), Ok(places.to_vec()));
        assert_eq!(LogPlace::decode_all(&LogPlace::encode_all(&[])), Ok(vec![]));
        assert_eq!(LogPlace::decode_all(&[1; 16]), Err(TailError::Places { bytes: 16 }));
        let falling = LogPlace::encode_all(&[place(2), place(1)]);
        assert_eq!(LogPlace::decode_all(&falling), Err(TailError::Log { log: 1 }));
    }

    #[test]
    fn what_is_no_tail_says_why() {
        let why = |bytes: &[u8]| HelloTail::decode(bytes).unwrap_err().to_string();
        assert!(why(&[0xff]).contains("the topic's name"));
        assert!(why(b"t\0").contains("0 bytes are no places"), "{}", why(b"t\0"));
        assert!(why(&[b't', 0, 1, 2]).contains("2 bytes are no places"));
        let twice = HelloTail { topic: "t".into(), places: vec![place(4), place(4)] };
        assert!(why(&twice.encode()).contains("log 4"));
        let beyond = HelloTail { topic: "t".into(), places: vec![place(LOGS_PER_TOPIC as u8)] };
        assert!(why(&beyond.encode()).contains("log 33; logs are numbered below 33"));
    }
}
