//! Which brokers have publishers of a session, and sessions of which none has.
//!
//! A broker names its sessions to each new leader; until it has said that those are all, it may be
//! in any that was open before. A publisher that says goodbye, or is not seen again for a lease,
//! is taken leave of by its broker. Where no broker is left to do that, control gives the publisher
//! a lease to come back in, and closes the session then: what nobody ends would have its line for
//! ever. A lease is what this control has listened for itself.

use landfall_layout::BrokerId;
use landfall_layout::session::{SessionState, Standing};

use super::sessions::{Session, SessionTable};

impl SessionTable {
    /// A publisher is with a broker, which says so to this control by itself.
    pub fn named(&mut self, index: u32, epoch: u32, broker: BrokerId) {
        if let Some(Some(session)) = self.lines.get_mut(index as usize)
            && session.standing.epoch == epoch
        {
            session.joined |= 1 << broker.index();
            (session.is_left, session.left_ns) = (false, None);
        }
    }

    /// A broker has named every session that it is in.
    pub fn said_all(&mut self, broker: BrokerId) {
        self.untold &= !(1 << broker.index());
    }

    /// A publisher is with a broker no more. The session is closed when that is so with every
    /// broker that it was with: until then the others may have batches of it that are not ordered.
    /// One that a broker was in which is gone itself has its lease first.
    pub fn close(&mut self, index: u32, epoch: u32, broker: BrokerId) -> Option<&Session> {
        let session = self.lines.get_mut(index as usize)?.as_mut()?;
        if session.standing != (Standing { epoch, state: SessionState::Active }) {
            return None;
        }
        let bit = 1 << broker.index();
        session.joined &= !bit;
        if session.is_left || present(session, self.untold & !bit) != 0 {
            return None;
        }
        session.standing.state = SessionState::Closed;
        Some(session)
    }

    /// A broker's process is gone, and so is every connection it had.
    pub fn broker_gone(&mut self, broker: BrokerId) {
        let bit = 1 << broker.index();
        for session in self.lines.iter_mut().flatten() {
            session.is_left |= present(session, self.untold) & bit != 0;
            session.joined &= !bit;
        }
        self.untold &= !bit;
    }

    /// Looks at the next line, having listened for `heard_ns` so far: the session that is closed
    /// because no broker was in it for more than `lease_ns`.
    pub fn look_at_next(&mut self, heard_ns: u64, lease_ns: u64) -> Option<(u32, &Session)> {
        let index = self.next_look;
        self.next_look = (index + 1) % self.lines.len().max(1);
        let untold = self.untold;
        let session = self.lines.get_mut(index)?.as_mut()?;
        if session.standing.state != SessionState::Active || present(session, untold) != 0 {
            session.left_ns = None;
            return None;
        }
        let since_ns = *session.left_ns.get_or_insert(heard_ns);
        if heard_ns.saturating_sub(since_ns) <= lease_ns {
            return None;
        }
        session.standing.state = SessionState::Closed;
        session.left_ns = None;
        Some((index as u32, session))
    }

    /// Lines there are.
    pub fn lines(&self) -> usize {
        self.lines.len()
    }
}

/// Brokers that are in a session or may be, a bit each.
fn present(session: &Session, untold: u32) -> u32 {
    session.joined | if session.is_restored { untold } else { 0 }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::messages::OpenSession;
    use landfall_layout::TopicId;

    const LEASE: u64 = 100;
    const NOBODY: [u32; 0] = [];

    fn broker(number: usize) -> BrokerId {
        BrokerId::new(number).unwrap()
    }

    fn ask(client: u64, epoch: u32, number: usize) -> OpenSession {
        let topic = TopicId(256);
        OpenSession {
            broker: broker(number),
            request: 0,
            topic,
            client,
            epoch,
            life: 0,
            comes_back: false,
        }
    }

    /// A table of two sessions, 0 and 1, each opened through the broker of its number.
    fn two() -> SessionTable {
        let mut table = SessionTable::new(2);
        for number in [0, 1] {
            table.open(&ask(7 + number as u64, 0, number), 1).unwrap();
        }
        table
    }

    /// The same after another control took over, with the brokers that may be there.
    fn restored(untold: u32) -> SessionTable {
        let table = two();
        let found = [0, 1].map(|index| (index, table.get(index).unwrap().line(None)));
        SessionTable::restored(2, found, untold)
    }

    /// Looks at every line once: what was closed.
    fn look(table: &mut SessionTable, heard_ns: u64) -> Vec<u32> {
        (0..table.lines())
            .filter_map(|_| table.look_at_next(heard_ns, LEASE).map(|(index, _)| index))
            .collect()
    }

    #[test]
    fn a_session_whose_last_broker_died_is_closed_after_a_lease_and_others_are_not() {
        let mut table = two();
        assert_eq!(look(&mut table, 5), NOBODY);
        table.broker_gone(broker(0));
        assert_eq!(look(&mut table, 1_000), NOBODY, "the lease begins when it is seen");
        assert_eq!(look(&mut table, 1_000 + LEASE), NOBODY);
        assert_eq!(look(&mut table, 1_001 + LEASE), [0]);
        assert_eq!(look(&mut table, 9_000), NOBODY, "once, and the other has its broker");
        assert_eq!(table.get(1).unwrap().standing.state, SessionState::Active);
        assert_eq!(table.open(&ask(7, 1, 1), 1).unwrap().epoch, 1, "it may still come back");
    }

    #[test]
    fn who_comes_back_as_the_lease_ends_has_the_next_one_whole() {
        let mut table = two();
        table.broker_gone(broker(0));
        look(&mut table, 1_000);
        table.open(&ask(7, 1, 1), 1).unwrap();
        assert_eq!(look(&mut table, 1_001 + LEASE), NOBODY);
        table.broker_gone(broker(1));
        assert_eq!(look(&mut table, 2_000), NOBODY);
        assert_eq!(look(&mut table, 2_000 + LEASE), NOBODY);
        assert_eq!(look(&mut table, 2_001 + LEASE), [0, 1]);
    }

    #[test]
    fn a_broker_that_has_not_said_all_may_be_in_any_session_that_was_open_before() {
        let mut table = restored(0b11);
        table.named(0, 1, broker(0));
        table.said_all(broker(0));
        assert_eq!(look(&mut table, 1_000), NOBODY);
        assert_eq!(look(&mut table, 9_000), NOBODY, "broker 1 is slow to say it, or frozen");
        table.said_all(broker(1));
        assert_eq!(look(&mut table, 10_000), NOBODY);
        assert_eq!(look(&mut table, 10_001 + LEASE), [1], "nobody is in it");
        assert!(table.close(0, 1, broker(0)).is_some(), "who says goodbye is let go at once");
    }

    #[test]
    fn a_goodbye_to_the_last_broker_is_no_goodbye_to_one_that_died_meanwhile() {
        let mut table = two();
        table.open(&ask(7, 1, 1), 1).unwrap();
        table.broker_gone(broker(0));
        // The lease of a connection that was lost before the other one was.
        assert!(table.close(0, 1, broker(1)).is_none());
        assert_eq!(look(&mut table, 1_000), NOBODY);
        assert_eq!(look(&mut table, 1_001 + LEASE), [0]);
    }

    #[test]
    fn what_was_open_before_with_no_broker_left_is_closed_too() {
        let mut table = restored(0b10);
        assert!(table.close(0, 1, broker(0)).is_none(), "its lease is what this control saw");
        table.broker_gone(broker(1));
        assert_eq!(look(&mut table, 1_000), NOBODY);
        assert_eq!(look(&mut table, 1_001 + LEASE), [0, 1]);
    }

    #[test]
    fn a_later_epoch_waits_for_no_broker_of_the_one_before() {
        let mut table = restored(0b11);
        let next = table.open(&ask(7, 0, 0), 1).unwrap().epoch;
        table.named(0, 1, broker(1));
        assert!(table.close(0, next, broker(0)).is_some());
    }
}
