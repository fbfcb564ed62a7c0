//! What was found: sentences with numbers, and how bad each is.

use std::collections::BTreeMap;
use std::fmt;

/// How bad a finding is.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Severity {
    /// Worth knowing, and nothing follows from it.
    Note,
    /// Not as it should be, and nothing was lost: a process that died left it, or the next start
    /// of its owner mends it.
    Warning,
    /// A promise is broken, or something can no longer be read.
    Error,
}

impl Severity {
    /// All of them, the worst first.
    pub const ALL: [Self; 3] = [Self::Error, Self::Warning, Self::Note];

    /// The word that is printed.
    pub fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// One thing that is not as it should be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Finding {
    /// How bad it is.
    pub severity: Severity,
    /// Which check found it; the same words everywhere.
    pub check: &'static str,
    /// The structure and its number, or the file.
    pub of: String,
    /// Where it lies: bytes from the start of the pool or of the file.
    pub at: Option<u64>,
    /// What is wrong, with its numbers.
    pub found: String,
    /// What to do.
    pub mend: &'static str,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { severity, check, of, at, found, .. } = self;
        write!(f, "{:7}  {check:9}  {of}", severity.word())?;
        if let Some(at) = at {
            write!(f, " (byte {at:#x})")?;
        }
        write!(f, ": {found}")
    }
}

/// Findings of one check that are kept; those beyond are only counted. What is broken all over
/// says nothing more by its thousandth sentence.
pub const KEPT_OF_A_CHECK: u64 = 64;

/// The check of what the system refused to read. It may be whole: nothing that is missing is known
/// to be.
pub const UNREAD: &str = "unread";

/// Findings as they come.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    kept: Vec<Finding>,
    seen: BTreeMap<(&'static str, Severity), u64>,
}

impl Findings {
    /// Takes one more.
    pub fn push(&mut self, finding: Finding) {
        let seen = self.seen.entry((finding.check, finding.severity)).or_default();
        *seen += 1;
        if *seen <= KEPT_OF_A_CHECK {
            self.kept.push(finding);
        }
    }

    /// Takes all that others found, with those that were only counted.
    pub fn add(&mut self, others: Self) {
        for (key, seen) in others.seen {
            *self.seen.entry(key).or_default() += seen.saturating_sub(KEPT_OF_A_CHECK);
        }
        others.kept.into_iter().for_each(|finding| self.push(finding));
    }

    /// An error at a byte.
    pub fn error(
        &mut self,
        check: &'static str,
        of: impl fmt::Display,
        at: u64,
        found: impl Into<String>,
        mend: &'static str,
    ) {
        self.say(Severity::Error, check, of, at, found, mend);
    }

    /// A warning at a byte.
    pub fn warning(
        &mut self,
        check: &'static str,
        of: impl fmt::Display,
        at: u64,
        found: impl Into<String>,
        mend: &'static str,
    ) {
        self.say(Severity::Warning, check, of, at, found, mend);
    }

    /// A note at a byte.
    pub fn note(
        &mut self,
        check: &'static str,
        of: impl fmt::Display,
        at: u64,
        found: impl Into<String>,
        mend: &'static str,
    ) {
        self.say(Severity::Note, check, of, at, found, mend);
    }

    fn say(
        &mut self,
        severity: Severity,
        check: &'static str,
        of: impl fmt::Display,
        at: u64,
        found: impl Into<String>,
        mend: &'static str,
    ) {
        let (of, found) = (of.to_string(), found.into());
        self.push(Finding { severity, check, of, at: Some(at), found, mend });
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    /// Those that were kept.
    pub fn kept(&self) -> &[Finding] {
        &self.kept
    }

    /// How many there were of a severity, kept or not.
    pub fn count(&self, severity: Severity) -> u64 {
        self.seen.iter().filter(|((_, of), _)| *of == severity).map(|(_, seen)| seen).sum()
    }

    /// How many of the errors are only that something could not be read.
    pub fn unread(&self) -> u64 {
        self.seen.get(&(UNREAD, Severity::Error)).copied().unwrap_or_default()
    }

    /// How many were only counted.
    pub fn more(&self) -> u64 {
        self.seen.values().sum::<u64>() - self.kept.len() as u64
    }

    /// Only those that are in `other` too, word for word.
    pub fn also_in(self, other: &Self) -> Self {
        let mut both = Self::default();
        for finding in self.kept.into_iter().filter(|finding| other.kept.contains(finding)) {
            both.push(finding);
        }
        both
    }

    /// The same with notes in place of errors, which say `more` and what to do instead. What could
    /// not be read stays an error.
    #[must_use]
    pub fn as_notes(self, more: &str, mend: &'static str) -> Self {
        let is_softer = |check, severity| severity == Severity::Error && check != UNREAD;
        let mut notes = Self::default();
        for ((check, severity), seen) in self.seen {
            let severity = if is_softer(check, severity) { Severity::Note } else { severity };
            *notes.seen.entry((check, severity)).or_default() += seen;
        }
        let soften = |finding: Finding| match is_softer(finding.check, finding.severity) {
            true => {
                let found = format!("{}; {more}", finding.found);
                Finding { severity: Severity::Note, found, mend, ..finding }
            }
            false => finding,
        };
        notes.kept = self.kept.into_iter().map(soften).collect();
        notes
    }

    /// All but those of a check.
    pub fn leave_out(&mut self, check: &str) {
        self.kept.retain(|finding| finding.check != check);
        self.seen.retain(|(of, _), _| *of != check);
    }

    /// The worst first, otherwise in the order in which they were found.
    pub fn sort(&mut self) {
        self.kept.sort_by_key(|finding| std::cmp::Reverse(finding.severity));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_finding_says_where_and_what() {
        let mut findings = Findings::default();
        findings.error(
            "entry",
            "topic a, log 32, entry 7",
            4096,
            "its commit word is 3",
            "copy it",
        );
        assert_eq!(
            findings.kept()[0].to_string(),
            "error    entry      topic a, log 32, entry 7 (byte 0x1000): its commit word is 3"
        );
    }

    #[test]
    fn what_is_broken_all_over_is_counted_and_not_repeated() {
        let mut findings = Findings::default();
        for index in 0..1000 {
            findings.error("entry", index, 0, "gone", "");
        }
        findings.note("ring", 1, 0, "idle", "");
        assert_eq!(findings.kept().len() as u64, KEPT_OF_A_CHECK + 1);
        assert_eq!(findings.count(Severity::Error), 1000);
        assert_eq!(findings.more(), 1000 - KEPT_OF_A_CHECK);
        let mut all = findings.clone();
        all.add(findings);
        assert_eq!((all.count(Severity::Error), all.count(Severity::Note)), (2000, 2));
    }

    #[test]
    fn what_became_a_note_is_counted_as_one_and_what_was_not_read_is_none() {
        let mut findings = Findings::default();
        for index in 0..100 {
            findings.error("row", index, 0, "a file is missing", "put it back");
        }
        findings.error(UNREAD, 1, 0, "no right", "let it read");
        findings.note("row", 1, 0, "anew", "");
        let notes = findings.as_notes("others have it", "remove it");
        let counts = [Severity::Error, Severity::Note].map(|severity| notes.count(severity));
        assert_eq!((counts, notes.unread()), ([1, 101], 1));
        let first = &notes.kept()[0];
        assert_eq!(
            (first.found.as_str(), first.mend),
            ("a file is missing; others have it", "remove it")
        );
    }

    #[test]
    fn only_what_was_seen_twice_stays() {
        let (mut first, mut second) = (Findings::default(), Findings::default());
        first.error("entry", 1, 0, "at 5", "");
        first.error("entry", 2, 0, "at 6", "");
        second.error("entry", 1, 0, "at 5", "");
        second.error("entry", 2, 0, "at 7", "");
        let both = first.also_in(&second);
        assert_eq!((both.kept().len(), both.count(Severity::Error)), (1, 1));
    }
}
