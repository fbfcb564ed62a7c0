//! A message as a JSON line.

use serde::ser::SerializeMap;
use serde::{Serialize, Serializer};

/// Version of [`Line`]: its client is a text, since a number beyond 2^53 is another one to whoever
/// reads JSON numbers as floating-point ones.
pub const SCHEMA_VERSION: u32 = 2;

/// A message as `landfall subscribe -o json` prints it.
#[derive(Serialize)]
pub struct Line<'a> {
    /// Version of this shape.
    pub schema_version: u32,
    /// Position in the log.
    pub position: u64,
    /// Client id of its publisher.
    #[serde(serialize_with = "as_text")]
    pub client: u64,
    /// Sequence of its batch.
    pub sequence: u64,
    /// Nanoseconds since 1970 that the publisher gave it.
    pub timestamp: u64,
    /// Its key.
    pub key: Option<Text<'a>>,
    /// What it says.
    pub payload: Text<'a>,
    /// Log.
    pub log: u8,
    /// Broker that landed it.
    pub broker: u8,
}

fn as_text<S: Serializer>(number: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

/// Bytes as a JSON string where they are UTF-8, else as `{"base64": "..."}`.
pub struct Text<'a>(&'a [u8]);

impl<'a> From<&'a [u8]> for Text<'a> {
    fn from(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }
}

impl Serialize for Text<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match std::str::from_utf8(self.0) {
            Ok(text) => serializer.serialize_str(text),
            Err(_) => {
                let mut map = serializer.serialize_map(Some(1))?;
                map.serialize_entry("base64", &base64(self.0))?;
                map.end()
            }
        }
    }
}

/// Base64 with the usual alphabet and padding, RFC 4648 section 4.
fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::with_capacity(bytes.len().div_ceil(3) * 4);
    for three in bytes.chunks(3) {
        let byte = |at: usize| u32::from(three.get(at).copied().unwrap_or(0));
        let bits = byte(0) << 16 | byte(1) << 8 | byte(2);
        for sextet in 0..4 {
            let letter = ALPHABET[(bits >> (18 - 6 * sextet) & 63) as usize];
            text.push(if sextet <= three.len() { letter as char } else { '=' });
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_has_the_vectors_of_the_standard() {
        let cases = [
            ("", ""),
            ("f", "Zg=="),
            ("fo", "Zm8="),
            ("foo", "Zm9v"),
            ("foob", "Zm9vYg=="),
            ("fooba", "Zm9vYmE="),
            ("foobar", "Zm9vYmFy"),
        ];
        for (plain, encoded) in cases {
            assert_eq!(base64(plain.as_bytes()), encoded);
        }
        assert_eq!(base64(&[0xff, 0xfe, 0xfb]), "//77");
    }

    #[test]
    fn a_line_has_this_shape() {
        let line = Line {
            schema_version: SCHEMA_VERSION,
            position: 41,
            client: u64::MAX,
            sequence: 7,
            timestamp: 1_769_860_800_000_000_000,
            key: Some(b"k\"1".as_slice().into()),
            payload: b"hall\xc3\xb6chen".as_slice().into(),
            log: 32,
            broker: 3,
        };
        assert_eq!(
            serde_json::to_string(&line).unwrap(),
            "{\"schema_version\":2,\"position\":41,\"client\":\"18446744073709551615\",\
             \"sequence\":7,\"timestamp\":1769860800000000000,\"key\":\"k\\\"1\",\
             \"payload\":\"hallöchen\",\"log\":32,\"broker\":3}"
        );
        let binary = Line { key: None, payload: [0xff, 0].as_slice().into(), ..line };
        let text = serde_json::to_string(&binary).unwrap();
        assert!(text.contains("\"key\":null,\"payload\":{\"base64\":\"/wA=\"}"), "{text}");
    }
}
