//! Data on stdout, everything else on stderr.

use std::io::{self, BufWriter, IsTerminal, Stdout, Write};
use std::time::{Duration, Instant};

use serde::Serialize;

use crate::error::{Failure, Outcome};

/// Version of every JSON document this tool prints. It grows when a field changes its meaning or
/// goes away; fields may be added without.
pub const SCHEMA_VERSION: u32 = 1;

/// Bytes that are gathered before they are written.
const BUFFER_BYTES: usize = 256 << 10;

/// Stdout.
pub struct Out {
    stdout: BufWriter<Stdout>,
}

impl Out {
    /// Stdout of this process.
    pub fn new() -> Self {
        Self { stdout: BufWriter::with_capacity(BUFFER_BYTES, io::stdout()) }
    }

    /// Writes a line.
    pub fn line(&mut self, line: impl std::fmt::Display) -> Outcome {
        Ok(writeln!(self.stdout, "{line}")?)
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) -> Outcome {
        Ok(self.stdout.write_all(bytes)?)
    }

    /// Writes a JSON document on one line.
    pub fn json_line(&mut self, document: &impl Serialize) -> Outcome {
        serde_json::to_writer(&mut self.stdout, document).map_err(io::Error::from)?;
        Ok(self.stdout.write_all(b"\n")?)
    }

    /// Writes a JSON document for people: indented, with its `schema_version` first.
    pub fn document(&mut self, document: &impl Serialize) -> Outcome {
        let whole = Document { schema_version: SCHEMA_VERSION, document };
        serde_json::to_writer_pretty(&mut self.stdout, &whole).map_err(io::Error::from)?;
        self.stdout.write_all(b"\n")?;
        self.flush()
    }

    /// Writes out what was gathered.
    pub fn flush(&mut self) -> Outcome {
        Ok(self.stdout.flush()?)
    }
}

impl Default for Out {
    fn default() -> Self {
        Self::new()
    }
}

#[derive(Serialize)]
struct Document<'a, T> {
    schema_version: u32,
    #[serde(flatten)]
    document: &'a T,
}

/// Columns that line up. The first row is the heading; columns of numbers go to the right.
pub fn table(rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let cells = |column: usize| rows.iter().filter_map(move |row| row.get(column));
    let widths: Vec<usize> = (0..columns)
        .map(|c| cells(c).map(|cell| cell.chars().count()).max().unwrap_or(0))
        .collect();
    let numeric: Vec<bool> = (0..columns)
        .map(|c| cells(c).skip(1).all(|cell| cell.starts_with(|c: char| c.is_ascii_digit())))
        .collect();
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let pad = " ".repeat(widths[column] - cell.chars().count());
            if numeric[column] {
                line.push_str(&format!("{pad}{cell}  "));
            } else {
                line.push_str(&format!("{cell}{pad}  "));
            }
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// A number with its thousands apart: 1234567 is `1_234_567`.
pub fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push('_');
        }
        text.push(digit);
    }
    text
}

/// Bytes for people, in powers of 1024: `1.50 GiB`.
pub fn human_bytes(bytes: f64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = bytes;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < units.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{value:.0} B") } else { format!("{value:.2} {}", units[unit]) }
}

/// Nanoseconds for people: `3.2 us`.
pub fn human_ns(ns: u64) -> String {
    match ns {
        0..1_000 => format!("{ns} ns"),
        1_000..1_000_000 => format!("{:.1} us", ns as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} ms", ns as f64 / 1e6),
        _ => format!("{:.2} s", ns as f64 / 1e9),
    }
}

/// There is no stdout to print to. Status 2, as of a wrong command line: verify and recover say
/// something else with 1.
pub fn closed() -> Failure {
    Failure::usage("there is nowhere to print to", "stdout is closed; >/dev/null throws it away")
}

/// Says something to the person, on stderr.
pub fn note(text: impl std::fmt::Display) {
    // Nobody reads stderr any more: there is nobody left to tell.
    let _ = writeln!(io::stderr(), "{text}");
}

/// The last word of a command that failed, on stderr.
pub fn say_failure(text: impl std::fmt::Display) {
    let colour = io::stderr().is_terminal() && !no_colour();
    let (on, off) = if colour { ("\x1b[1;31m", "\x1b[0m") } else { ("", "") };
    note(format_args!("{on}error:{off} {text}"));
}

/// NO_COLOR counts when it is set to anything but the empty text (no-color.org).
fn no_colour() -> bool {
    std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
}

/// A line on stderr that is written over, only where stderr is a terminal.
pub struct Progress {
    shown: bool,
    live: bool,
    due: Instant,
}

/// Ten times a second is smooth and costs nothing.
const PROGRESS_EVERY: Duration = Duration::from_millis(100);

impl Progress {
    /// Shows nothing for the first tenth of a second.
    pub fn new() -> Self {
        let live = io::stderr().is_terminal();
        Self { shown: false, live, due: Instant::now() + PROGRESS_EVERY }
    }

    /// Shows a line, if it is time to.
    pub fn show(&mut self, line: impl FnOnce() -> String) {
        if self.live && Instant::now() >= self.due {
            self.due = Instant::now() + PROGRESS_EVERY;
            self.shown = true;
            let _ = write!(io::stderr(), "\r\x1b[K{}", line());
        }
    }

    /// Takes the line away.
    pub fn clear(&mut self) {
        if std::mem::take(&mut self.shown) {
            let _ = write!(io::stderr(), "\r\x1b[K");
        }
    }
}

impl Default for Progress {
    fn default() -> Self {
        Self::new()
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_for_people() {
        assert_eq!(grouped(0), "0");
        assert_eq!(grouped(999), "999");
        assert_eq!(grouped(1_234_567), "1_234_567");
        assert_eq!(human_bytes(1023.0), "1023 B");
        assert_eq!(human_bytes(1.5 * 1024.0 * 1024.0 * 1024.0), "1.50 GiB");
        assert_eq!(human_ns(999), "999 ns");
        assert_eq!(human_ns(3_200), "3.2 us");
        assert_eq!(human_ns(12_500_000), "12.5 ms");
        assert_eq!(human_ns(2_000_000_000), "2.00 s");
    }

    #[test]
    fn columns_line_up_and_numbers_go_to_the_right() {
        let row = |cells: &[&str]| cells.iter().map(|cell| (*cell).to_owned()).collect();
        let text = table(&[row(&["name", "count"]), row(&["a", "5"]), row(&["longer", "1_000"])]);
        assert_eq!(text, "name    count\na           5\nlonger  1_000\n");
    }

    #[test]
    fn every_document_says_its_schema_version_first() {
        #[derive(Serialize)]
        struct Inner {
            deleted: &'static str,
        }
        let whole = Document { schema_version: SCHEMA_VERSION, document: &Inner { deleted: "a" } };
        let text = serde_json::to_string(&whole).unwrap();
        assert_eq!(text, r#"{"schema_version":1,"deleted":"a"}"#);
    }
}
