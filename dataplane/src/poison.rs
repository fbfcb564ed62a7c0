//! Segments with a page that cannot be read: told to control, and not landed in.

use landfall_layout::SegmentId;
use landfall_layout::command::Request;

use crate::broker::Broker;
use crate::cursor::Item;
use crate::env::{Env, Unfaithful};

impl Broker {
    /// Names the sessions of which batches do not hold, and has them fenced: what they can write to
    /// is taken from them.
    pub(crate) fn fence_unfaithful(&mut self) {
        let Self { env, link, replicator, .. } = self;
        let found = replicator.iter().flat_map(|replicator| replicator.take_unfaithful());
        for who in found.chain(env.take_unfaithful()) {
            env.client_error(&who.to_string());
            let Unfaithful { topic, client, epoch } = who;
            link.say(env, Request::Fence { topic, client, epoch, late: None });
        }
    }

    /// Tells control of the segments that this process met, and heeds what others did.
    pub(crate) fn look_at_losses(&mut self) {
        let Self { env, link, topics, losses_seen, .. } = self;
        for segment in topics.iter().flatten().filter_map(|topic| topic.stock.filling()) {
            if is_known(env, segment) {
                env.pool.loss().mark(segment);
            }
        }
        let loss = env.pool.loss();
        if *losses_seen == loss.count() {
            return;
        }
        *losses_seen = loss.count();
        for segment in loss.segments() {
            if !is_known(env, segment) {
                tell(env, segment);
                link.ask(env, Request::Lost { segment });
            }
        }
    }
}

/// Whether control knows that a segment is lost.
pub fn is_known(env: &Env, segment: u32) -> bool {
    env.pool.segment_header(SegmentId(segment)).is_none_or(|header| header.lost_ns != 0)
}

fn tell(env: &Env, segment: u32) {
    let from = env.pool.geometry().segment(SegmentId(segment)).unwrap_or_default();
    let page = env.pool.loss().page_between(from, from + env.pool.geometry().segment_bytes());
    let place = page.map_or_else(String::new, |page| format!(", at byte {page} of it first"));
    env.error(&format!(
        "segment {segment} is lost: the pool's memory cannot be read there{place}; nothing more \
         is landed in it"
    ));
}

/// After a system call said that it could not read these batches: they are read here, so that
/// zeros stand for what cannot be, and the call can be made again. Whether that is why it failed.
#[cold]
pub fn cover(env: &Env, items: &[Item]) -> bool {
    let batches = items.iter().filter(|item| item.bytes > 0);
    let met = batches.filter(|item| env.pool.probe(item.segment, item.offset(), item.bytes));
    met.count() > 0
}
