//! Sizes, times and starting points as people write them.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A text that is no size, time or start, with what would be one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BadUnit {
    text: String,
    why: &'static str,
}

impl fmt::Display for BadUnit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} is {}", self.text, self.why)
    }
}

impl std::error::Error for BadUnit {}

fn bad(text: &str, why: &'static str) -> BadUnit {
    BadUnit { text: text.to_owned(), why }
}

/// Bytes. Written plain, or with K, M, G or T, powers of 1024; KiB, MiB, GiB and TiB are the same.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Size(pub u64);

const SIZES: [(&str, u32); 5] = [("T", 40), ("G", 30), ("M", 20), ("K", 10), ("", 0)];
const NO_SIZE: &str = "no size; say bytes, or a whole number with K, M, G or T: 4096, 64K, 1MiB";

impl Size {
    /// The size in 32 bits; the largest there is when it does not fit, which every bound refuses.
    pub fn as_u32(self) -> u32 {
        u32::try_from(self.0).unwrap_or(u32::MAX)
    }
}

impl FromStr for Size {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let trimmed = text.trim();
        let digits = trimmed.find(|c: char| !c.is_ascii_digit()).unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(digits);
        let number: u64 = number.parse().map_err(|_| bad(text, NO_SIZE))?;
        let unit = unit.trim().to_ascii_uppercase();
        let unit = match unit.strip_suffix("IB") {
            Some("") => return Err(bad(text, NO_SIZE)),
            Some(unit) => unit,
            None => unit.strip_suffix('B').unwrap_or(&unit),
        };
        let shift = SIZES.iter().find(|(name, _)| *name == unit).ok_or(bad(text, NO_SIZE))?.1;
        number.checked_mul(1 << shift).map(Self).ok_or(bad(text, "more than 2^64 bytes"))
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The largest unit that says it exactly, so that what is shown can be typed again.
        let (unit, shift) = SIZES
            .iter()
            .find(|(_, shift)| self.0 > 0 && self.0.trailing_zeros() >= *shift)
            .unwrap_or(&("", 0));
        write!(f, "{}{unit}", self.0 >> shift)
    }
}

impl Serialize for Size {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Size {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOr::<Self> {
            number: |number| Ok(Self(number)),
            expects: "a size such as 4096, \"64K\" or \"1MiB\"",
        })
    }
}

/// A time span. Written as a number with ns, us, ms, s, m or h.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time(pub Duration);

const TIMES: [(&str, u64); 6] = [
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];
const NO_TIME: &str = "no time; say a number with ns, us, ms, s, m or h: 250us, 5ms, 1.5s";

impl Time {
    /// Whole milliseconds, at least one for a time above zero: it goes where 0 means "no bound".
    pub fn as_ms(self) -> u64 {
        let ms = self.0.as_nanos().div_ceil(1_000_000);
        u64::try_from(ms).unwrap_or(u64::MAX)
    }
}

impl FromStr for Time {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let trimmed = text.trim();
        if trimmed == "0" {
            return Ok(Self(Duration::ZERO));
        }
        let end = trimmed.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(trimmed.len());
        let (number, unit) = trimmed.split_at(end);
        let unit = if unit.trim() == "µs" { "us" } else { unit.trim() };
        let scale = TIMES.iter().find(|(name, _)| *name == unit).ok_or(bad(text, NO_TIME))?.1;
        let (whole, part) = number.split_once('.').unwrap_or((number, ""));
        let whole: u64 = whole.parse().map_err(|_| bad(text, NO_TIME))?;
        if number.ends_with('.') || part.len() > 12 || !part.bytes().all(|b| b.is_ascii_digit()) {
            return Err(bad(text, NO_TIME));
        }
        let ten = 10_u128.pow(part.len() as u32);
        let part: u128 = if part.is_empty() { 0 } else { part.parse().unwrap_or(0) };
        let scale = u128::from(scale);
        let ns = u128::from(whole) * scale + part * scale / ten;
        let ns = u64::try_from(ns).map_err(|_| bad(text, "longer than 584 years"))?;
        Ok(Self(Duration::from_nanos(ns)))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ns = u64::try_from(self.0.as_nanos()).unwrap_or(u64::MAX);
        if ns == 0 {
            return f.write_str("0s");
        }
        let (unit, scale) =
            TIMES.iter().find(|(_, scale)| ns.is_multiple_of(*scale)).unwrap_or(&("ns", 1));
        write!(f, "{}{unit}", ns / scale)
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOr::<Self> {
            number: |number| {
                if number == 0 { Ok(Self(Duration::ZERO)) } else { Err("a time needs a unit") }
            },
            expects: "a time such as \"5ms\", \"1s\" or \"250us\"",
        })
    }
}

/// Takes a text in `T`'s notation, or a plain number.
struct TextOr<T> {
    number: fn(u64) -> Result<T, &'static str>,
    expects: &'static str,
}

impl<T: FromStr<Err = BadUnit>> de::Visitor<'_> for TextOr<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expects)
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<T, E> {
        text.parse().map_err(E::custom)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        (self.number)(number).map_err(E::custom)
    }

    fn visit_i64<E: de::Error>(self, number: i64) -> Result<T, E> {
        let number = u64::try_from(number)
            .map_err(|_| E::custom(format!("{number} is negative; say {}", self.expects)))?;
        self.visit_u64(number)
    }
}

/// Where a subscription starts, as people write it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Start(pub landfall::Start);

const NO_START: &str = "no start; say earliest, latest, a position (42), a time in RFC 3339 \
     (2026-01-31T12:00:00Z) or @ and nanoseconds since 1970 (@1769860800000000000)";

impl FromStr for Start {
    type Err = BadUnit;

    fn from_str(text: &str) -> Result<Self, BadUnit> {
        let no = || bad(text, NO_START);
        let from = match text.trim() {
            "earliest" => landfall::Start::Earliest,
            "latest" => landfall::Start::Latest,
            word if word.starts_with('@') => {
                landfall::Start::Time(word[1..].parse().map_err(|_| no())?)
            }
            word if word.bytes().all(|b| b.is_ascii_digit()) => {
                landfall::Start::Position(word.parse().map_err(|_| no())?)
            }
            word => landfall::Start::Time(rfc3339(word).ok_or_else(no)?),
        };
        Ok(Self(from))
    }
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            landfall::Start::Earliest => f.write_str("earliest"),
            landfall::Start::Latest => f.write_str("latest"),
            landfall::Start::Position(position) => write!(f, "{position}"),
            landfall::Start::Time(ns) => write!(f, "@{ns}"),
        }
    }
}

impl Serialize for Start {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Start {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(TextOr::<Self> {
            number: |number| Ok(Self(landfall::Start::Position(number))),
            expects: "earliest, latest, a position or a time",
        })
    }
}

/// Nanoseconds since 1970 of an RFC 3339 time. `None` for anything else and for times before.
fn rfc3339(text: &str) -> Option<u64> {
    let digits = |range: std::ops::Range<usize>| -> Option<i64> {
        let part = text.get(range)?;
        part.bytes().all(|b| b.is_ascii_digit()).then(|| part.parse().ok())?
    };
    let bytes = text.as_bytes();
    let marks = [(4, b'-'), (7, b'-'), (13, b':'), (16, b':')];
    let separator = *bytes.get(10)?;
    if marks.iter().any(|(at, mark)| bytes.get(*at) != Some(mark)) || !b"Tt ".contains(&separator) {
        return None;
    }
    let (year, month, day) = (digits(0..4)?, digits(5..7)?, digits(8..10)?);
    let (hour, minute, second) = (digits(11..13)?, digits(14..16)?, digits(17..19)?);
    let month_days = days(year + month / 12, month % 12 + 1) - days(year, month);
    if !(1..=12).contains(&month) || !(1..=month_days).contains(&day) {
        return None;
    }
    // 60 is a leap second, which counts as the first of the next minute.
    if hour > 23 || minute > 59 || second > 60 {
        return None;
    }
    let mut rest = text.get(19..)?;
    let mut fraction_ns = 0;
    if let Some(after) = rest.strip_prefix('.') {
        let end = after.find(|c: char| !c.is_ascii_digit())?;
        let kept = after.get(..end.min(9)).filter(|kept| !kept.is_empty())?;
        fraction_ns = format!("{kept:0<9}").parse::<i64>().ok()?;
        rest = &after[end..];
    }
    let offset_minutes = match rest.as_bytes() {
        [b'Z' | b'z'] => 0,
        [sign @ (b'+' | b'-'), h1, h2, b':', m1, m2] if rest[1..].is_ascii() => {
            let two = |a: &u8, b: &u8| -> Option<i64> {
                let (a, b) = ((*a as char).to_digit(10)?, (*b as char).to_digit(10)?);
                Some(i64::from(a * 10 + b))
            };
            let (hours, minutes) = (two(h1, h2)?, two(m1, m2)?);
            if hours > 23 || minutes > 59 {
                return None;
            }
            (hours * 60 + minutes) * if *sign == b'-' { -1 } else { 1 }
        }
        _ => return None,
    };
    let minutes = (days(year, month) + day - 1) * 1440 + hour * 60 + minute - offset_minutes;
    let seconds = u64::try_from(minutes * 60 + second).ok()?;
    seconds.checked_mul(1_000_000_000)?.checked_add(fraction_ns as u64)
}

/// Days from 1970-01-01 to the first of the month, in the Gregorian calendar. Years count from
/// March, so that the leap day is the last one and a month's start needs no table.
fn days(year: i64, month: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let month = (month + 9) % 12;
    365 * year + year.div_euclid(4) - year.div_euclid(100)
        + year.div_euclid(400)
        + (month * 153 + 2) / 5
        - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn sizes_in_every_notation() {
        let cases = [
            ("0", 0),
            ("4096", 4096),
            ("64K", 64 << 10),
            ("64KiB", 64 << 10),
            ("64kb", 64 << 10),
            ("1M", 1 << 20),
            ("2GiB", 2 << 30),
            ("3 T", 3 << 40),
            ("7b", 7),
        ];
        for (text, bytes) in cases {
            assert_eq!(text.parse(), Ok(Size(bytes)), "{text}");
        }
        for text in ["", "K", "1.5M", "-1", "1Q", "1iB", "64 K B", "0x10", "1MiBs"] {
            let error = text.parse::<Size>().unwrap_err().to_string();
            assert!(error.contains(&format!("{text:?} is no size")), "{error}");
        }
        assert!("17179869184G".parse::<Size>().unwrap_err().to_string().contains("2^64"));
    }

    #[test]
    fn times_in_every_notation() {
        let cases = [
            ("0", 0),
            ("5ms", 5_000_000),
            ("1s", 1_000_000_000),
            ("250us", 250_000),
            ("250µs", 250_000),
            ("1.5s", 1_500_000_000),
            ("2m", 120_000_000_000),
            ("1h", 3_600_000_000_000),
            ("17ns", 17),
        ];
        for (text, ns) in cases {
            assert_eq!(text.parse(), Ok(Time(Duration::from_nanos(ns))), "{text}");
        }
        for text in ["", "5", "ms", "1.s", ".5s", "1.2.3s", "-1s", "5 fortnights", "1e3s"] {
            assert!(text.parse::<Time>().is_err(), "{text}");
        }
        assert!("999999999999h".parse::<Time>().unwrap_err().to_string().contains("584"));
    }

    #[test]
    fn starts_in_every_notation() {
        assert_eq!("earliest".parse(), Ok(Start(landfall::Start::Earliest)));
        assert_eq!("latest".parse(), Ok(Start(landfall::Start::Latest)));
        assert_eq!("42".parse(), Ok(Start(landfall::Start::Position(42))));
        assert_eq!("@17".parse(), Ok(Start(landfall::Start::Time(17))));
        let noon = landfall::Start::Time(1_769_860_800_000_000_000);
        for text in [
            "2026-01-31T12:00:00Z",
            "2026-01-31t12:00:00.000z",
            "2026-01-31 13:30:00+01:30",
            "2026-01-31T07:00:00-05:00",
        ] {
            assert_eq!(text.parse(), Ok(Start(noon)), "{text}");
        }
        let leap = "2024-02-29T23:59:60.123456789Z".parse();
        assert_eq!(leap, Ok(Start(landfall::Start::Time(1_709_251_200_123_456_789))));
        for text in [
            "",
            "soon",
            "-1",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-31T24:00:00Z",
            "2026-01-31T12:00:00",
            "2026-01-31T12:00:00+1:00",
            "2026-01-31",
            "1969-12-31T23:59:59Z",
            "2026-01-31T12:00:00é",
            "@-5",
        ] {
            let error = text.parse::<Start>().map(|start| panic!("{text} gave {start:?}"));
            assert!(error.unwrap_err().to_string().contains("earliest"), "{text}");
        }
    }

    proptest! {
        #[test]
        fn a_size_that_is_shown_reads_back_the_same(bytes: u64) {
            prop_assert_eq!(Size(bytes).to_string().parse(), Ok(Size(bytes)));
        }

        #[test]
        fn a_time_that_is_shown_reads_back_the_same(ns: u64) {
            let time = Time(Duration::from_nanos(ns));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
        }

        #[test]
        fn no_text_makes_the_parsers_panic(text: String) {
            let _ = (text.parse::<Size>(), text.parse::<Time>(), text.parse::<Start>());
        }

        #[test]
        fn almost_a_time_does_not_panic(text in "[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:.+Z-]{0,16}") {
            let _ = text.parse::<Start>();
        }
    }
}
