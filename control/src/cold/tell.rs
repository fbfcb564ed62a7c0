//! What people should know of a log that came back.

use std::path::Path;

use landfall_layout::limits::SEQUENCED_LOG;
use landfall_replica::Damage;

use super::plan::{Plan, Told, Unread};

/// Ranges that are lost, of a log, or publishers who lost something, of a topic, that get a
/// sentence each; one more counts the rest.
pub const RANGES_TOLD: usize = 16;

fn of(name: &str, log: usize) -> String {
    match log {
        SEQUENCED_LOG => format!("topic {name}"),
        log => format!("topic {name}, log of broker {log}"),
    }
}

/// That a log is back, and with how much.
pub fn back(name: &str, log: usize, plan: &Plan) -> String {
    let holes = match plan.unwritten {
        0 => String::new(),
        unwritten => format!(", {unwritten} positions that nobody wrote"),
    };
    let retired = match plan.retired {
        0 => String::new(),
        retired => format!(", {retired} positions between them that the topic's bounds let go of"),
    };
    format!(
        "{} is back: {} batches on disk from position {}{holes}{retired}; it goes on at position \
         {}",
        of(name, log),
        plan.batches,
        plan.oldest,
        plan.position
    )
}

/// What of a log is not back, a sentence each.
pub fn sentences(name: &str, log: usize, plan: &Plan, told: &Told<'_>) -> Vec<String> {
    let of = of(name, log);
    let mut sentences = Vec::new();
    let is_whole = told.unread == Unread::default();
    let why = match is_whole {
        true => "no file here has them",
        false => "no file here that can be read has them",
    };
    sentences.extend(plan.lost.iter().take(RANGES_TOLD).map(|lost| {
        format!(
            "{of}: positions {} to {} were ordered and are lost: {why}",
            lost.first,
            lost.end - 1
        )
    }));
    let rest = plan.lost.get(RANGES_TOLD..).unwrap_or_default();
    if let (Some(first), Some(last)) = (rest.first(), rest.last()) {
        let messages: u64 = rest.iter().map(|lost| lost.end - lost.first).sum();
        sentences.push(format!(
            "{of}: {messages} more messages in {} ranges between positions {} and {} were ordered \
             and are lost: {why}; subscribers are told each range",
            rest.len(),
            first.first,
            last.end - 1
        ));
    }
    if let Some(skipped) = plan.skipped {
        sentences.push(format!(
            "{of}: no directory here says for certain where the log ended, so positions {} to {} \
             are passed over: no disk knows of a message there, and what was only in memory may \
             have been shown at some of them",
            skipped.position,
            skipped.to_position - 1
        ));
    }
    sentences
}

/// What of a file does not hold: a sentence for each of some ranges, and one for the others.
pub fn damage(path: &Path, all: &[Damage]) -> Vec<String> {
    let path = path.display();
    let mut sentences: Vec<String> =
        all.iter().take(RANGES_TOLD).map(|damage| format!("{path}: {damage}")).collect();
    let rest = all.get(RANGES_TOLD..).unwrap_or_default();
    if let Some(first) = rest.first() {
        let bytes: u64 = rest.iter().map(|damage| damage.bytes).sum();
        let entries: u64 = rest.iter().filter_map(Damage::entries).sum();
        sentences.push(format!(
            "{path}: {bytes} more bytes in {} ranges, from byte {} on, do not hold; {entries} \
             entries were there",
            rest.len(),
            first.at
        ));
    }
    sentences
}

#[cfg(test)]
mod tests {
    use landfall_layout::replica::{Place, RecordError, ReplicaHeader};

    use super::super::plan::Lost;
    use super::*;

    #[test]
    fn of_much_damage_in_a_file_some_is_named_and_the_rest_is_counted() {
        let header = ReplicaHeader::from_words([0; ReplicaHeader::WORDS]);
        let of = |n: u64| {
            let before = Place { index: n, ordinal: n, ..Place::first(&header) };
            let behind = Some(Place { index: n + 1, ordinal: n + 1, ..before });
            let why = RecordError::Magic { found: 1 };
            Damage { at: 4096 * n, bytes: 256, why, before, behind }
        };
        let all: Vec<Damage> = (0..300).map(of).collect();
        assert_eq!(damage("f".as_ref(), &all[..16]).len(), 16);
        let said = damage("f".as_ref(), &all);
        let rest =
            "f: 72704 more bytes in 284 ranges, from byte 65536 on, do not hold; 284 entries";
        assert!(said.len() == 17 && said[16].starts_with(rest), "{}", said[16]);
    }

    #[test]
    fn of_many_ranges_some_are_named_and_the_rest_is_counted() {
        let said = |ranges: u64| {
            let lost = (0..ranges).map(|n| Lost { first: 10 * n, end: 10 * n + 3 }).collect();
            let plan = Plan { lost, ..Plan::default() };
            sentences("t", SEQUENCED_LOG, &plan, &Told::default())
        };
        assert_eq!(said(16).len(), 16);
        let many = said(359);
        assert_eq!(many.len(), 17);
        let last = &many[16];
        let numbers = "1029 more messages in 343 ranges between positions 160 and 3582";
        assert!(last.contains(numbers) && many[0].contains("positions 0 to 2 "), "{last}");
    }
}
