//! Memory subscribers: they read the pool by themselves; the broker only wakes them.

use landfall_layout::TopicId;
use landfall_layout::channel::CLIENT_PARKED_AT;
use landfall_layout::limits::{BROKERS_MAX, SEQUENCED_LOG};
use landfall_pool::Memory;

use crate::conn::{Conn, Kind};
use crate::env::Env;

/// Rings a memory subscriber that sleeps while its topic's frontier moved. False when its
/// connection is broken.
#[inline]
pub fn wake(env: &Env, conn: &mut Conn) -> bool {
    let (Some(channel), Kind::Reader(reader)) = (&conn.channel, &mut conn.kind) else {
        return true;
    };
    // EDGE channel-parked, acquire half: no fence here, since the loop comes back until it has
    // seen both the word and the frontier.
    if channel.mapping.load(CLIENT_PARKED_AT) == 0 {
        return true;
    }
    let reached = reach(env, reader.topic, reader.sequenced);
    if reached == reader.rung_at {
        return true;
    }
    reader.rung_at = reached;
    conn.ring().is_ok()
}

/// Entries of all logs of a topic.
fn reach(env: &Env, topic: TopicId, sequenced: bool) -> u64 {
    if sequenced {
        return env.pool.frontier(topic, SEQUENCED_LOG).entries;
    }
    (0..BROKERS_MAX).map(|log| env.pool.frontier(topic, log).entries).sum()
}
