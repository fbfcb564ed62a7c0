//! Subscriptions that begin before what memory has: where they begin is looked for on disk, and
//! they are welcomed when it is found.

use landfall_layout::TopicId;
use landfall_layout::frame::{From, Hello, Refusal};
use landfall_layout::limits::{BROKERS_MAX, SEQUENCED_LOG};
use landfall_layout::topic::{Order, TopicEntry};

use landfall_replica::Silent;

use super::{Disk, Looked, Lookup, STARTS_MAX, Task};
use crate::broker::Broker;
use crate::conn::Kind;
use crate::conns::Token;
use crate::hello::{Refused, Stage, refused};

impl Broker {
    /// Has the beginning of a subscription looked for, if that may be on disk alone and was not
    /// looked for yet; whether it is. The logs have been begun in memory by now: what leaves it
    /// from here on they find out themselves.
    pub(crate) fn look_for_start(
        &mut self,
        slot: usize,
        hello: Hello,
        entry: &TopicEntry,
        order: Order,
        looked: &Looked,
    ) -> Result<bool, Refused> {
        let Self { env, conns, catch_up, .. } = self;
        let topic = TopicId(entry.id);
        let (Some(catch_up), Some(disk)) = (catch_up, Disk::of(entry)) else { return Ok(false) };
        // Where the subscriber says where it is, nothing has to be looked for.
        let places = match conns.get(slot).map(|conn| &conn.kind) {
            Some(Kind::Greeting(greeting)) if !order.is_sequenced() => &greeting.places[..],
            _ => &[],
        };
        let is_before = |log: usize| {
            if places.iter().any(|place| usize::from(place.log) == log) {
                return None;
            }
            let chain = env.pool.chain(topic, log)?;
            let wanted = match hello.from {
                From::Latest => false,
                From::Position(position) => position < chain.oldest_position,
                From::Earliest | From::Time(_) => true,
            };
            let oldest = chain.oldest_index;
            (wanted && oldest > 0 && looked.lacks(log, oldest)).then_some(oldest)
        };
        let all =
            if order.is_sequenced() { SEQUENCED_LOG..SEQUENCED_LOG + 1 } else { 0..BROKERS_MAX };
        let logs: Vec<Lookup> = all
            .filter_map(|log| {
                let until = is_before(log)?;
                Some(disk.lookup(env, catch_up, topic, (log, until)))
            })
            .collect();
        if logs.is_empty() {
            return Ok(false);
        }
        if catch_up.starts() >= STARTS_MAX {
            let text = format!("{STARTS_MAX} subscribers wait for their first batch; try again");
            return refused(Refusal::Busy, text);
        }
        let Some(conn) = conns.get(slot) else { return Ok(true) };
        conn.was_topic = Some(topic);
        let token = conn.token;
        if let Kind::Greeting(greeting) = &mut conn.kind {
            greeting.stage = Stage::Files { hello, topic };
        }
        catch_up.submit(Task::Start { token, from: hello.from, logs });
        self.want_read(slot, false);
        Ok(true)
    }

    /// The beginning of a subscription was found, or was not: then memory has the first batch.
    pub(crate) fn start_found(&mut self, token: Token, looked: &Result<Looked, Silent>) {
        let slot = token.slot();
        let Some(conn) = self.conns.by_token(token) else { return };
        let Kind::Greeting(greeting) = &conn.kind else { return };
        let Stage::Files { hello, topic } = greeting.stage else { return };
        self.want_read(slot, true);
        let looked = match looked {
            Ok(looked) => looked,
            Err(silent) => {
                let text =
                    format!("the first batch may be where nothing can be read now: {silent}");
                return self.refuse(slot, Refusal::Busy, &text);
            }
        };
        let epoch = self.env.pool.epoch_number();
        let entry = self.env.pool.topic(topic);
        let order = entry.as_ref().and_then(TopicEntry::order);
        let (Some(entry), Some(order)) = (entry, order) else {
            // The next leader may have it.
            if !self.env.pool.leads(epoch) {
                let text = "another control is taking the lead; try again";
                return self.refuse(slot, Refusal::NoControl, text);
            }
            return self.refuse(slot, Refusal::TopicGone, "the topic was deleted");
        };
        let welcomed = self.welcome_subscriber(slot, hello, &entry, order, looked);
        if let Err(Refused { why, sentence }) = welcomed {
            self.refuse(slot, why, &sentence);
        }
    }
}
