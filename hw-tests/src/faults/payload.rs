//! Messages that name their topic, their publisher and their number, under a checksum: whoever
//! reads one knows whether it may be there.

use landfall_layout::batch::crc32c;

use crate::flow::Random;
use crate::history::{Name, Stranger};

/// Bytes in front of the filling: topic, checksum, publisher, number.
pub const HEAD_BYTES: usize = 24;

/// Message `n` of a publisher in a topic; at least [`HEAD_BYTES`].
pub fn message(topic: u32, name: Name, bytes: usize) -> Vec<u8> {
    let mut message = Vec::with_capacity(bytes.max(HEAD_BYTES));
    message.extend_from_slice(&topic.to_le_bytes());
    message.extend_from_slice(&[0; 4]);
    message.extend_from_slice(&name.client.to_le_bytes());
    message.extend_from_slice(&name.n.to_le_bytes());
    let mut random = Random::new(u64::from(topic) << 48 ^ name.client << 32 ^ name.n);
    message.extend_from_slice(&random.bytes(bytes.saturating_sub(HEAD_BYTES)));
    let sum = crc32c(&message).to_le_bytes();
    message[4..8].copy_from_slice(&sum);
    message
}

/// What a message says of itself, if its checksum holds.
pub fn says(payload: &[u8]) -> Option<Stranger> {
    let word = |at: usize| Some(u64::from_le_bytes(payload.get(at..at + 8)?.try_into().ok()?));
    let topic = u32::from_le_bytes(payload.get(..4)?.try_into().ok()?);
    let said = Stranger { topic, name: Name { client: word(8)?, n: word(16)? } };
    (message(topic, said.name, payload.len()) == payload).then_some(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_says_what_it_was_made_with_and_no_changed_one_does() {
        let name = Name { client: 7, n: 41 };
        let mut bytes = message(3, name, 100);
        assert_eq!(bytes.len(), 100);
        assert_eq!(says(&bytes), Some(Stranger { topic: 3, name }));
        for at in 0..bytes.len() {
            bytes[at] ^= 0x10;
            assert_eq!(says(&bytes), None, "byte {at}");
            bytes[at] ^= 0x10;
        }
        assert_eq!(says(&bytes[..23]), None);
    }
}
