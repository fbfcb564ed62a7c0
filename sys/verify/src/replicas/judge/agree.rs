//! Copies of what one broker landed that do not say the same of it.

use std::collections::HashSet;

use super::{Kept, Source, wrong};
use crate::finding::Finding;
use crate::mend;

/// Says which copies have not what another one has, though they have everything there by their own
/// word: who reads such a copy is told of less than was landed, or that it is lost.
pub fn left_out(of: &str, sources: &[&Source], kept: &mut Kept) {
    let sources: Vec<&&Source> = sources.iter().filter(|source| !source.is_strange).collect();
    for lacks in &sources {
        let has: HashSet<u64> = lacks.entries.iter().map(|seen| seen.index).collect();
        let covers = |index: u64| lacks.kept.covers.iter().find(|range| range.contains(&index));
        let others = sources.iter().filter(|it| it.kept.source == lacks.kept.source);
        for other in others {
            let left_out = other.entries.iter().map(|seen| seen.index);
            let mut left_out = left_out.filter(|index| !has.contains(index));
            let Some((first, range)) = left_out.find_map(|index| Some((index, covers(index)?)))
            else {
                continue;
            };
            let more = left_out.filter(|index| covers(*index).is_some()).count();
            let found = format!("{} has everything of", lacks.kept.path.display())
                + &format!(" broker {} from entry {}", lacks.kept.source, range.start)
                + &format!(" to {}, as it says, and not entry {first}", range.end)
                + &format!(" and {more} behind it, which {} has", other.kept.path.display());
            kept.findings.push(Finding { mend: mend::LEFT_OUT, ..wrong("agree", of, found) });
        }
    }
}
