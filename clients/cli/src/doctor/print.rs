//! The findings for people and for programs.

use serde::Serialize;

use super::facts::Facts;
use super::judge::{Finding, Status};

/// What `-o json` prints behind its schema version.
#[derive(Serialize)]
pub struct Document<'a> {
    /// The worst of all.
    status: Status,
    /// The pool that was named.
    pool: Option<&'a str>,
    /// The address that was named.
    verbs: Option<String>,
    findings: &'a [Finding],
}

impl<'a> Document<'a> {
    /// The document of these findings.
    pub fn new(facts: &'a Facts, findings: &'a [Finding]) -> Self {
        Self {
            status: worst(findings),
            pool: facts.pool.as_ref().map(|pool| pool.path.as_str()),
            verbs: facts.verbs.map(|address| address.to_string()),
            findings,
        }
    }
}

fn worst(findings: &[Finding]) -> Status {
    findings.iter().map(|finding| finding.status).max().unwrap_or(Status::Ok)
}

/// A line for each finding, its mends indented below, and a line of counts.
pub fn text(findings: &[Finding]) -> String {
    let width = |of: fn(&Finding) -> usize| findings.iter().map(of).max().unwrap_or(0);
    let status_width = width(|finding| finding.status.word().len());
    let name_width = width(|finding| finding.name.len());
    let mut text = String::new();
    for finding in findings {
        let Finding { name, of, status, found, why, mend, .. } = finding;
        // A sentence that begins with the object names it already.
        let named = of.is_empty() || found.starts_with(of.as_str());
        let of = if named { String::new() } else { format!("{of}: ") };
        let word = status.word();
        text.push_str(&format!("{word:status_width$}  {name:name_width$}  {of}{found} - {why}\n"));
        for command in mend {
            text.push_str(&format!("{:indent$}$ {command}\n", "", indent = status_width + 4));
        }
    }
    let all = [Status::Ok, Status::Unknown, Status::Warn, Status::Fail];
    let counts = all.map(|status| {
        let count = findings.iter().filter(|finding| finding.status == status).count();
        format!("{count} {}", status.word())
    });
    text.push_str(&format!("\n{}\n", counts.join(", ")));
    text
}
