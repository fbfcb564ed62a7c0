//! Expected bytes as people read them.

/// Fails unless `bytes` are what `expected` says in hexadecimal; spaces do not count, and `.` is
/// a zero byte that fills up to the length of `bytes`.
pub fn golden(bytes: &[u8], expected: &str) {
    let (digits, fill) = match expected.trim().strip_suffix('.') {
        Some(digits) => (digits, true),
        None => (expected, false),
    };
    let digits: String = digits.split_whitespace().collect();
    let mut want: Vec<u8> = (0..digits.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&digits[at..at + 2], 16).expect("two digits a byte"))
        .collect();
    if fill {
        want.resize(bytes.len(), 0);
    }
    assert_eq!(show(bytes), show(&want));
}

fn show(bytes: &[u8]) -> String {
    let rows = bytes.chunks(16).enumerate().map(|(row, chunk)| {
        let digits: String = chunk.iter().map(|byte| format!("{byte:02x} ")).collect();
        format!("{:4}: {}", row * 16, digits.trim_end())
    });
    rows.collect::<Vec<_>>().join("\n")
}
