//! What people should know of a log that came back.

use landfall_layout::limits::SEQUENCED_LOG;

use super::plan::{Plan, Told, Unread};

/// What became of a log, a sentence each.
pub fn sentences(name: &str, log: usize, plan: &Plan, told: &Told<'_>) -> Vec<String> {
    let of = match log {
        SEQUENCED_LOG => format!("topic {name}"),
        log => format!("topic {name}, log of broker {log}"),
    };
    let holes = match plan.unwritten {
        0 => String::new(),
        unwritten => format!(", {unwritten} positions that nobody wrote"),
    };
    let mut sentences = vec![format!(
        "{of} is back: {} batches on disk from position {}{holes}; it goes on at position {}",
        plan.batches, plan.oldest, plan.position
    )];
    let is_whole = told.unread == Unread::default();
    let why = match is_whole {
        true => "no file here has them",
        false => "no file that holds has them: see what control says of files",
    };
    sentences.extend(plan.lost.iter().map(|lost| {
        format!(
            "{of}: positions {} to {} were ordered and are lost: {why}",
            lost.first,
            lost.end - 1
        )
    }));
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
