//! Clients over verbs that take what they do not need: they are held back or let go, and nobody
//! else notices.

use std::time::Duration;

use landfall::Order;
use landfall_layout::frame::{Frame, Refusal};
use landfall_layout::limits::{IN_FLIGHT_BATCHES_MAX, RING_SLOTS_MIN};
use landfall_layout::verbs::{EXTENT_SLOTS, GrantMode, RECEIVES, Said};

use super::hostile::Witness;
use crate::flow::{Promise, Until, check_sent, message, publish, read};
use crate::raw_verbs::{Knocked, RawVerbs, knock};
use crate::{Failure, Rig};

/// In grant mode `pull`, a publisher that fills its ring behind a batch that it leaves out, and
/// announces without end: what the broker notes of it has a bound, and it gets no receives back.
pub fn announcements_without_end_are_held_back(rig: &Rig) -> Result<(), Failure> {
    const MOST: u32 = RING_SLOTS_MIN + IN_FLIGHT_BATCHES_MAX as u32 + 2 * RECEIVES;
    let site = rig.start()?;
    let mut witness = Witness::new(&site)?;
    let topic = site.topic_with(Order::Strong, |spec| spec.ring_slots = Some(RING_SLOTS_MIN))?;
    let pulled = knock(&site, &topic, 9, |knock| knock.grant = GrantMode::Pull)?;
    let Knocked::In(mut raw) = pulled else {
        return Err(Failure::new("a pull was refused"));
    };
    let bytes = raw.batch(1, &message(9, 1, 100)).bytes();
    raw.put(4096, &bytes);
    let mut said = 0;
    while said <= MOST && raw.try_say(Said::Ready { line: 64 }, Duration::from_secs(1))? {
        said += 1;
        if said % 64 == 0 {
            witness.goes_on()?;
        }
    }
    ensure!(said > RECEIVES && said <= MOST, "{said} announcements were taken; {MOST} may be");
    drop(raw);
    witness.close(&site, &[])?;
    site.close()
}

/// In grant mode `pull`, a publisher that announces one large batch after the other behind one that
/// does not come: what is pulled and waits for its turn has a bound in bytes.
pub fn batches_that_are_pulled_out_of_turn_have_a_bound(rig: &Rig) -> Result<(), Failure> {
    const BYTES: usize = 900_000;
    const ANNOUNCED: u32 = 64;
    // 16 MiB of batches, and one segment for what does not fit where another batch ends.
    const MOST: u64 = 16 + 1;
    let site = rig.start_with(|config| config.pool_bytes = 192 << 20)?;
    let mut witness = Witness::new(&site)?;
    let topic = site.topic(Order::Strong)?;
    let pulled = knock(&site, &topic, 9, |knock| knock.grant = GrantMode::Pull)?;
    let Knocked::In(mut raw) = pulled else {
        return Err(Failure::new("a pull was refused"));
    };
    witness.goes_on()?;
    let free = |site: &crate::Site| Ok::<_, Failure>(site.client.cluster()?.pool.segments_free);
    let before = free(&site)?;
    let bytes = raw.batch(1, &message(9, 1, BYTES)).bytes();
    raw.put(4096, &bytes);
    for _ in 0..ANNOUNCED {
        ensure!(
            raw.try_say(Said::Ready { line: 64 }, Duration::from_secs(1))?,
            "{ANNOUNCED} announcements were not taken"
        );
    }
    // It pulls as much as it may, and goes no further.
    site.wait_until("that batches are pulled", |_| Ok(free(&site)? + 4 < before))?;
    for _ in 0..20 {
        witness.goes_on()?;
        std::thread::sleep(Duration::from_millis(100));
        let taken = before.saturating_sub(free(&site)?);
        ensure!(taken <= MOST, "{taken} segments hold what was pulled; {MOST} may");
    }
    drop(raw);
    witness.close(&site, &[])?;
    site.close()
}

/// Publishers that ask for all extents that one may have and put nothing into them, and a pool that
/// is too small for that: whoever publishes goes on.
pub fn extents_that_nothing_is_put_into_are_taken_back(rig: &Rig) -> Result<(), Failure> {
    const MESSAGES: u64 = 100;
    // All but one batch of a segment.
    const WANTED: u32 = 1_900_000 / 64;
    let site = rig.start_with(|config| config.pool_bytes = 56 << 20)?;
    let mut witness = Witness::new(&site)?;
    let topic = site.topic_with(Order::Total, |spec| spec.keep = Some(true))?;
    let mut greedy = Vec::new();
    for client in 0..3 {
        let mut raw = RawVerbs::open(&site, &topic, 9 + client)?;
        for _ in 0..EXTENT_SLOTS {
            raw.say(Said::Wanted { lines: WANTED })?;
        }
        greedy.push(raw);
    }
    let mut honest = site.publisher(&topic).client_id(1).build()?;
    for sent in (0..MESSAGES).step_by(20) {
        publish(&mut honest, 1, sent..sent + 20, 200_000)?;
        honest.flush()?;
        witness.goes_on()?;
    }
    honest.close()?;
    let mut told = 0;
    for raw in &mut greedy {
        while let Some((frame, _)) = raw.hear(Duration::from_secs(1))? {
            told += u32::from(frame == Frame::Refused(Refusal::Busy));
        }
    }
    ensure!(told > 0, "nobody was told to give back what it holds");
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(1, MESSAGES)], Promise::Once)?;
    witness.close_after_reconnects(&site, &[])?;
    site.close()
}
