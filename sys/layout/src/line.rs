//! How a structure declares its lines.

/// Asserts a structure's size in 64-byte lines and the offset of each named field, and gives it
/// `to_words` and `from_words`, the form in which it crosses into shared memory.
///
/// The `zerocopy` derives on the structure refuse padding, so bytes of an earlier use can never
/// leak through a hole.
macro_rules! lines {
    ($name:ident, $lines:literal, { $($field:ident @ $offset:literal),+ $(,)? }) => {
        const _: () = {
            assert!(size_of::<$name>() == $lines * $crate::limits::LINE_BYTES as usize);
            assert!(align_of::<$name>() <= 8);
            $(assert!(core::mem::offset_of!($name, $field) == $offset);)+
        };

        impl $name {
            /// 64-byte lines this structure takes.
            pub const LINES: usize = $lines;
            /// Bytes this structure takes.
            pub const BYTES: u64 = $lines * $crate::limits::LINE_BYTES;
            /// 64-bit words this structure takes.
            pub const WORDS: usize = $lines * 8;

            /// The structure as the words that lie in memory.
            pub fn to_words(&self) -> [u64; $lines * 8] {
                zerocopy::transmute!(*self)
            }

            /// The structure that these words say. Total: checking the values is the caller's.
            pub fn from_words(words: [u64; $lines * 8]) -> Self {
                zerocopy::transmute!(words)
            }

            /// The structure as bytes, for the wire and for golden tests.
            pub fn to_bytes(&self) -> [u8; $lines * 64] {
                zerocopy::transmute!(*self)
            }

            /// The structure that these bytes say.
            pub fn from_bytes(bytes: [u8; $lines * 64]) -> Self {
                zerocopy::transmute!(bytes)
            }
        }
    };
}
