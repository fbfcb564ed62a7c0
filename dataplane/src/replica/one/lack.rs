//! What this broker's directory says that it lacks of a source, until a copy has it all.

use std::path::Path;

use landfall_layout::BrokerId;
use landfall_layout::replica::ReplicaState;
use landfall_replica::TopicFile;
use landfall_replica::there::Lack;

use super::Replica;
use crate::replica::duties::Duty;

/// Log index that the copy has to reach for what the topic's directory lacks of its source; `None`:
/// nothing is lacking, or no line of this copy can tell.
pub fn open_lack(topic: &Path, me: BrokerId, duty: Duty) -> Option<u64> {
    if duty.stand_in.is_some() {
        return None;
    }
    let lacks = TopicFile::read(topic).ok()?.places.lacks;
    let mine = || lacks.iter().filter(|lack| is_of(lack, me, duty.source));
    if mine().any(|lack| lack.is_torn) {
        return None;
    }
    mine().map(|lack| lack.below).max()
}

fn is_of(lack: &Lack, me: BrokerId, source: BrokerId) -> bool {
    (lack.keeper, lack.source) == (me.raw(), source.raw())
}

impl Replica {
    /// Strikes the word on what is lacking once all of it is stable here, or marks it where the
    /// files went on without some of it: a later process of this broker, which finds them as they
    /// are, cannot tell. What cannot be said is counted at a cold start.
    #[cold]
    pub(super) fn settle_lack(&mut self, below: u64) {
        let is_whole = self.state() == ReplicaState::Well
            && self.line.errno == 0
            && self.line.durable >= below;
        if !self.lacks && !is_whole {
            return;
        }
        let (is_torn, me, source) = (self.lacks, self.me, self.duty.source);
        self.open_lack = None;
        let topic = self.files.directory().parent().unwrap_or(self.files.directory());
        let said = TopicFile::change(topic, |file| {
            let said = file.map(|mut file| {
                let lacks = std::mem::take(&mut file.places.lacks).into_iter();
                let lacks = lacks.filter(|lack| !is_of(lack, me, source) || is_torn);
                let mark = |lack: Lack| match is_of(&lack, me, source) {
                    true => Lack { is_torn: true, ..lack },
                    false => lack,
                };
                file.places.lacks = lacks.map(mark).collect();
                file
            });
            (said, ())
        });
        if let Err(error) = said {
            eprintln!("{self}: {error}; a cold start counts what was lacking here");
        }
    }
}
