//! From what was found to what it means: pure functions.

mod machine;
mod memory;
mod pool;
mod rdma;

use std::collections::BTreeMap;

use serde::Serialize;

use crate::doctor::facts::Facts;

/// How a check ended.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// It is as it should be.
    Ok,
    /// It cannot be known from here.
    Unknown,
    /// Something is slower or cannot be used, and nobody asked for it.
    Warn,
    /// What was asked for does not work.
    Fail,
}

impl Status {
    /// The word that is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Unknown => "unknown",
            Self::Warn => "warn",
            Self::Fail => "fail",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Finding {
    /// What was looked at; the same words on every machine.
    pub name: &'static str,
    /// Which of several: a device, a port, a path. Empty when there is one only.
    pub of: String,
    /// How it ended.
    pub status: Status,
    /// What was found, with numbers.
    pub found: String,
    /// Why it matters.
    pub why: String,
    /// What mends it: commands, the best first, with where they belong in brackets behind them.
    pub mend: Vec<String>,
    /// The numbers for programs; sizes are in bytes.
    pub numbers: BTreeMap<&'static str, u64>,
}

impl Finding {
    /// A finding without numbers and mends.
    pub fn new(
        name: &'static str,
        status: Status,
        found: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self {
            name,
            of: String::new(),
            status,
            found: found.into(),
            why: why.into(),
            mend: Vec::new(),
            numbers: BTreeMap::new(),
        }
    }

    fn of(mut self, object: impl Into<String>) -> Self {
        self.of = object.into();
        self
    }

    fn mend(mut self, command: impl Into<String>) -> Self {
        self.mend.push(command.into());
        self
    }

    fn mends(mut self, commands: Vec<String>) -> Self {
        self.mend.extend(commands);
        self
    }

    fn number(mut self, name: &'static str, value: u64) -> Self {
        self.numbers.insert(name, value);
        self
    }
}

/// All findings, in the order in which things have to work: RDMA, memory, machine.
pub fn judge(facts: &Facts) -> Vec<Finding> {
    let mut findings = rdma::judge(facts);
    findings.extend(pool::judge(facts));
    findings.extend(memory::judge(facts));
    findings.extend(machine::judge(facts));
    findings
}

/// Fail when it was asked for, else a warning.
fn bad(asked: bool) -> Status {
    if asked { Status::Fail } else { Status::Warn }
}

/// A number with its noun: `1 host`, `2 hosts`.
fn count(number: usize, noun: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{plural}")
}

/// Cores as a list of ranges: `0-3,6`.
fn ranges(cores: &[usize]) -> String {
    let mut text = String::new();
    let mut at = 0;
    while at < cores.len() {
        let mut end = at;
        while end + 1 < cores.len() && cores[end + 1] == cores[end] + 1 {
            end += 1;
        }
        let comma = if text.is_empty() { "" } else { "," };
        text.push_str(&match end - at {
            0 => format!("{comma}{}", cores[at]),
            _ => format!("{comma}{}-{}", cores[at], cores[end]),
        });
        at = end + 1;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nouns_have_their_plural() {
        assert_eq!([0, 1, 2].map(|n| count(n, "host")), ["0 hosts", "1 host", "2 hosts"]);
    }

    #[test]
    fn cores_are_shown_as_ranges() {
        assert_eq!(ranges(&[]), "");
        assert_eq!(ranges(&[3]), "3");
        assert_eq!(ranges(&[0, 1, 2, 5, 7, 8]), "0-2,5,7-8");
    }

    #[test]
    fn the_worst_status_is_the_largest() {
        let all = [Status::Fail, Status::Ok, Status::Warn, Status::Unknown];
        assert_eq!(all.into_iter().max(), Some(Status::Fail));
        assert_eq!(bad(true), Status::Fail);
        assert_eq!(bad(false), Status::Warn);
    }
}
