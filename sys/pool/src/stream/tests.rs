use super::*;
use landfall_layout::batch::crc32c;

/// Deterministic and aperiodic enough that a misplaced byte shows.
fn noise(seed: u64) -> impl FnMut() -> u64 {
    let mut state = seed | 1;
    move || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    }
}

fn random_bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut next = noise(seed);
    (0..len).map(|_| (next() >> 32) as u8).collect()
}

/// Line-aligned room, filled with a byte that copies must not disturb beyond their end.
fn room(len: usize) -> Vec<Line> {
    vec![Line([0xa5; LINE_BYTES]); len.div_ceil(LINE_BYTES) + 1]
}

fn flat(lines: &[Line]) -> &[u8] {
    // SAFETY: a `Line` is 64 initialised bytes without padding, so `lines` is that many bytes.
    unsafe { core::slice::from_raw_parts(lines.as_ptr().cast(), size_of_val(lines)) }
}

fn check_copy(len: usize, offset: usize) {
    let source = random_bytes(offset + len, len as u64 + 1);
    let mut target = room(len);
    // SAFETY: `target` has `len` bytes and more at a line; `source` has `len` past `offset`.
    unsafe { stream_copy(target.as_mut_ptr().cast(), source[offset..].as_ptr(), len) }
    stream_fence();
    assert_eq!(flat(&target)[..len], source[offset..], "{len} bytes from offset {offset}");
    assert!(flat(&target)[len..].iter().all(|&byte| byte == 0xa5), "wrote past {len}");
}

#[test]
fn a_streamed_copy_is_a_copy() {
    for len in 0..300 {
        check_copy(len, len % 7);
    }
    let mut next = noise(5);
    for _ in 0..200 {
        check_copy(next() as usize % 20_000, next() as usize % 64);
    }
}

#[cfg(target_arch = "x86_64")]
#[test]
fn every_register_width_copies() {
    let source = random_bytes(1024 + 1, 9);
    let check = |stream: unsafe fn(*mut u8, *const u8, usize)| {
        let mut target = room(1024);
        // SAFETY: the caller detected the feature; 1024 bytes on both sides, at a line.
        unsafe { stream(target.as_mut_ptr().cast(), source[1..].as_ptr(), 1024) }
        stream_fence();
        assert_eq!(flat(&target)[..1024], source[1..]);
    };
    check(x86::stream_128);
    if is_x86_feature_detected!("avx") {
        check(x86::stream_256);
    }
    if is_x86_feature_detected!("avx512f") {
        check(x86::stream_512);
    }
}

/// A message for each pair of lengths, through `kernel`, against the same laid out by hand.
fn check_writer(kernel: fn(*mut u8) -> Kernel, lengths: &[[usize; 2]]) {
    let mut expected = Vec::new();
    let messages: Vec<_> = (1..)
        .zip(lengths)
        .map(|(i, &[key, payload])| {
            let header = [i << 40 | key as u64, u64::MAX - payload as u64];
            let parts = [random_bytes(key, i), random_bytes(payload, !i)];
            expected.extend(header.into_iter().flat_map(u64::to_le_bytes));
            expected.extend(parts.iter().flatten());
            expected.resize(expected.len().next_multiple_of(8), 0);
            (header, parts)
        })
        .collect();
    let total = expected.len();
    let mut target = room(total);
    // SAFETY: `target` has `total` bytes and is ours until `finish`.
    let mut writer = unsafe { StreamWriter::new(target.as_mut_ptr().cast(), total) };
    writer.kernel = kernel(target.as_mut_ptr().cast());
    for (header, [key, payload]) in &messages {
        writer.append(*header, [key, payload]);
    }
    assert_eq!(writer.room(), 0);
    assert_eq!(writer.finish(), crc32c(&expected), "lengths {lengths:?}");
    assert_eq!(flat(&target)[..total], expected, "lengths {lengths:?}");
    assert!(flat(&target)[total..].iter().all(|&byte| byte == 0xa5), "wrote past {total}");
}

#[test]
fn a_writer_lays_messages_end_to_end_and_sums_them() {
    for kernel in [Kernel::best, Kernel::staged] {
        check_writer(kernel, &[]);
        for len in 0..300 {
            check_writer(kernel, &[[0, len]]);
            check_writer(kernel, &[[len % 64, len], [len, 300 - len], [0, len % 5]]);
        }
        let mut next = noise(7);
        for _ in 0..100 {
            let longest = [20, 100, 1100, 9000][next() as usize % 4];
            let lengths: Vec<_> =
                (0..40).map(|_| [next() as usize % 30, next() as usize % longest]).collect();
            check_writer(kernel, &lengths);
        }
    }
}

#[test]
#[should_panic(expected = "32 bytes into 24")]
fn a_writer_refuses_what_does_not_fit() {
    let mut target = room(64);
    // SAFETY: `target` has 64 bytes and is ours until the writer is gone.
    let mut writer = unsafe { StreamWriter::new(target.as_mut_ptr().cast(), 64) };
    writer.append([0; 2], [&[0; 9], &[0; 15]]);
    writer.append([0; 2], [&[], &[0; 9]]);
}

#[test]
fn the_checksum_is_castagnoli() {
    assert_eq!(crc32c(b"123456789"), 0xe306_9283);
    assert_eq!(crc32c(&[0; 32]), 0x8a91_36aa, "RFC 3720 B.4");
    assert_eq!(crc32c(b""), 0);
    assert_eq!(Crc32c::new().finish(), 0);
}

#[test]
fn parts_sum_like_the_whole() {
    let bytes = random_bytes(10_000, 11);
    let mut next = noise(13);
    for _ in 0..200 {
        let (mut crc, mut rest) = (Crc32c::new(), &bytes[..]);
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.len().min(next() as usize % 3000));
            crc.update(part);
            rest = after;
        }
        assert_eq!(crc.finish(), crc32c(&bytes));
    }
}

#[test]
fn the_checksum_of_far_bytes_is_the_checksum() {
    let mut next = noise(9);
    let bytes: Vec<u8> = (0..40_000).map(|_| next() as u8).collect();
    for length in [0, 1, 63, 64, PIECE_BYTES - 1, PIECE_BYTES, 8191, 8192, 8193, 20_001, 40_000] {
        assert_eq!(crc32c_far(&bytes[..length]), crc32c(&bytes[..length]), "{length} bytes");
    }
}
