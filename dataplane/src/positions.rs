//! Order `token`: publishers ask for positions, and control hands them out.

use landfall_layout::TopicId;
use landfall_layout::command::Request;
use landfall_layout::frame::{Frame, Refusal};
use landfall_layout::limits::{BATCH_MESSAGES_MAX, RESERVATIONS_MAX};
use landfall_layout::topic::Order;

use crate::broker::Broker;
use crate::conn::{Conn, Kind};
use crate::conns::{Over, Token};

/// What a publisher asked for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Asked {
    /// Its number for it.
    pub request: u32,
    pub count: u32,
    /// One batch will fill them all.
    pub whole: bool,
}

/// Who waits for an answer.
#[derive(Clone, Copy, Debug)]
pub struct Reserving {
    pub topic: TopicId,
    owner: Token,
    request: u32,
}

/// What is wrong with a wish, if anything is.
fn check(order: Order, wishes: u32, asked: Asked) -> Result<(), String> {
    let Asked { count, whole, .. } = asked;
    if order != Order::Token {
        return Err(format!("positions are reserved in topics of order token; this is {order}"));
    }
    if count == 0 || (whole && count > BATCH_MESSAGES_MAX) {
        return Err(format!(
            "{count} positions cannot be reserved; say 1 to {BATCH_MESSAGES_MAX} for one batch"
        ));
    }
    if wishes >= RESERVATIONS_MAX {
        return Err(format!("{wishes} reservations are not answered yet, which is the bound"));
    }
    Ok(())
}

impl Broker {
    /// A publisher wants positions.
    pub(crate) fn ask_positions(&mut self, slot: usize, asked: Asked) {
        let Self { env, topics, link, conns, reserving, .. } = self;
        let Some(conn) = conns.get(slot) else { return };
        let owner = conn.token;
        let Kind::Publisher(publisher) = &mut conn.kind else { return };
        let topic = publisher.topic;
        let Some(order) = topics[topic.slot()].as_ref().map(|topic| topic.order) else { return };
        // It was told, and will ask in its next epoch.
        if publisher.fenced {
            return;
        }
        if let Err(sentence) = check(order, publisher.wishes, asked) {
            return self.refuse(slot, Refusal::Malformed, &sentence);
        }
        publisher.wishes += 1;
        let request = link.number();
        reserving.insert(request, Reserving { topic, owner, request: asked.request });
        let (session, epoch) = (publisher.session.index, publisher.session.epoch);
        let Asked { count, whole, .. } = asked;
        link.ask(env, Request::Reserve { request, topic, session, epoch, count, whole });
    }

    /// Who asked, if somebody did under that number and is still to be told.
    fn asker(&mut self, request: u64) -> Option<Reserving> {
        let number = request;
        self.link.answered(
            |open| matches!(open, Request::Reserve { request, .. } if *request == number),
        );
        self.reserving.remove(&request)
    }

    pub(crate) fn positions_granted(&mut self, request: u64, first: u64, count: u32) {
        let Some(Reserving { owner, request, .. }) = self.asker(request) else { return };
        let Some(conn) = self.conns.by_token(owner) else { return };
        let Kind::Publisher(publisher) = &mut conn.kind else { return };
        publisher.wishes = publisher.wishes.saturating_sub(1);
        conn.tell(Frame::Reserved { request, first, count });
        self.conns.touch(owner.slot());
    }

    /// The session of who asked is over. False: nobody asked under that number.
    pub(crate) fn positions_denied(&mut self, request: u64, next_seq: u64) -> bool {
        let Some(Reserving { owner, .. }) = self.asker(request) else { return false };
        let Some(conn) = self.conns.by_token(owner) else { return true };
        let Conn { kind: Kind::Publisher(publisher), .. } = conn else { return true };
        let epoch = publisher.session.epoch;
        self.fence(Over { owner, epoch, next_seq });
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wish_that_makes_no_sense_is_named() {
        let asked = |count, whole| Asked { request: 0, count, whole };
        assert_eq!(check(Order::Token, 0, asked(1, true)), Ok(()));
        assert_eq!(check(Order::Token, 0, asked(BATCH_MESSAGES_MAX + 1, false)), Ok(()));
        let wrong = |order, wishes, asked| check(order, wishes, asked).unwrap_err();
        assert!(wrong(Order::Strong, 0, asked(1, true)).contains("strong"));
        assert!(wrong(Order::Token, 0, asked(0, false)).contains("0 positions"));
        assert!(wrong(Order::Token, 0, asked(BATCH_MESSAGES_MAX + 1, true)).contains("65536"));
        assert!(wrong(Order::Token, RESERVATIONS_MAX, asked(1, true)).contains("bound"));
    }
}
