//! Naming to each new leader the sessions that publishers here are in.
//!
//! What brokers had told the leader before is in no table. A leader that does not know who is in a
//! session keeps it open for as long as anybody may be, so a broker also says when it has named
//! all. Publishers that came meanwhile were opened by that leader itself, and those whose
//! connection ended are not named: it gives them a lease of its own.

use landfall_layout::command::{JOINED_SESSIONS, Request};

use crate::broker::Broker;
use crate::conn::Kind;

/// Places in the table of connections that are looked at in one turn.
const PLACES_PER_TURN: usize = 128;

/// How far the naming is.
#[derive(Default)]
pub struct Naming {
    /// The place that is looked at next.
    next: usize,
    sessions: [(u32, u32); JOINED_SESSIONS],
    have: usize,
}

impl Broker {
    /// Names some sessions, as far as the ring has room; what was done.
    #[cold]
    pub(crate) fn name_sessions(&mut self) -> usize {
        let Some(mut naming) = self.naming.take() else { return 0 };
        for _ in 0..PLACES_PER_TURN {
            let is_over = !self.conns.slots().contains(&naming.next);
            if (naming.have == JOINED_SESSIONS || is_over) && !self.name(&mut naming) {
                self.naming = Some(naming);
                return 0;
            }
            if is_over {
                let leader = self.link.epoch();
                if !self.link.try_say(&self.env, Request::JoinedAll { leader }) {
                    self.naming = Some(naming);
                }
                return 1;
            }
            let conn = self.conns.get(naming.next);
            if let Some(Kind::Publisher(publisher)) = conn.map(|conn| &conn.kind) {
                let session = &publisher.session;
                naming.sessions[naming.have] = (session.index, session.epoch);
                naming.have += 1;
            }
            naming.next += 1;
        }
        self.naming = Some(naming);
        1
    }

    /// Names those that are noted. False when the ring is full.
    fn name(&mut self, naming: &mut Naming) -> bool {
        let (leader, sessions) = (self.link.epoch(), naming.sessions);
        let said =
            naming.have == 0 || self.link.try_say(&self.env, Request::Joined { leader, sessions });
        if said {
            (naming.sessions, naming.have) = Default::default();
        }
        said
    }
}
