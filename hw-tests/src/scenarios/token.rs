//! Order `token`: positions first, batches after, and holes where nothing came.

use std::time::Duration;

use landfall::api::Topic;
use landfall::{Order, Publisher, Reached};
use landfall_layout::frame::Frame;

use crate::flow::{Promise, Reading, Until, audit, check_sent, message, name_of, publish, read};
use crate::raw::Session;
use crate::rig::patience;
use crate::{Failure, Rig, Site};

/// A lease that scenarios can wait for.
const LEASE_MS: u64 = 700;

/// A topic whose sessions do not wait for long.
fn short_lease(site: &Site) -> Result<Topic, Failure> {
    site.topic_with(Order::Token, |spec| spec.session_lease_ms = Some(LEASE_MS))
}

/// A reader at every broker, up to `end`, and what each is told of positions that nothing was
/// written to.
fn read_everywhere(
    site: &Site,
    topic: &Topic,
    end: u64,
    holes: &[(u64, u64)],
) -> Result<Reading, Failure> {
    let mut readings = Vec::new();
    for broker in 0..site.rig.brokers {
        let subscriber = site.subscriber(topic).broker(broker as u8).build()?;
        let reading = read(subscriber, Until::Messages(end))?;
        ensure!(reading.unwritten == holes, "told of {:?}, not {holes:?}", reading.unwritten);
        readings.push(reading);
    }
    audit(Order::Token, &readings.iter().collect::<Vec<_>>())?;
    let first = readings.swap_remove(0);
    ensure!(readings.iter().all(|reading| reading.messages == first.messages), "orders differ");
    Ok(first)
}

/// Asks for positions over a raw connection, and gets them.
fn reserve(session: &mut Session, count: u32, whole: bool) -> Result<u64, Failure> {
    session.raw.send_frame(Frame::Reserve { request: 5, count, whole }, b"")?;
    match session.raw.expect()? {
        (Frame::Reserved { request: 5, first, count: granted }, _) if granted == count => Ok(first),
        other => Err(Failure::new(format!("{count} positions were answered by {other:?}"))),
    }
}

/// Publishes `count` messages, and their receipts.
fn fill(publisher: &mut Publisher, who: u64, from: u64, count: u64) -> Result<Vec<u64>, Failure> {
    let tickets: Vec<_> = (from..from + count)
        .map(|n| publisher.publish(&message(who, n, 60)))
        .collect::<Result<_, _>>()?;
    tickets
        .into_iter()
        .map(|ticket| {
            let receipt = publisher.wait(ticket)?;
            ensure!(receipt.reached == Reached::Ordered, "reached {:?}", receipt.reached);
            receipt.position.ok_or_else(|| Failure::new("a receipt without a position"))
        })
        .collect()
}

/// Two clients reserve in turns, and the one whose positions come later writes first, each through
/// another broker where there are several.
pub fn reserved_in_turns_and_written_in_reverse(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Token)?;
    let mut ways = Vec::new();
    for who in 0..2 {
        let broker = (who * (rig.brokers as u64 - 1)) as u8;
        ways.push(site.publisher(&topic).client_id(who + 1).broker(broker).build()?);
    }
    let mut firsts = Vec::new();
    for turn in 0..6 {
        let reserved = ways[turn % 2].reserve_positions(4)?;
        ensure!(reserved.count == 4, "{} of 4 positions", reserved.count);
        firsts.push(reserved.first);
    }
    ensure!(firsts == [0, 4, 8, 12, 16, 20], "reserved from {firsts:?}");
    for n in 0..12 {
        ways[1].publish(&message(1, n, 60))?;
    }
    ways[1].seal()?;
    std::thread::sleep(Duration::from_millis(30));
    let early = site.client.topic(&topic.name)?.messages;
    ensure!(early == 0, "{early} messages are ordered before the first is there");
    let mine = fill(&mut ways[0], 0, 0, 12)?;
    ensure!(mine == [0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19], "filled {mine:?}");
    for publisher in ways {
        publisher.close()?;
    }
    let reading = read_everywhere(&site, &topic, 24, &[])?;
    check_sent(&reading, &[(0, 12), (1, 12)], Promise::InOrderOnce)?;
    let owners = reading.messages.iter().filter_map(|read| name_of(&read.payload));
    let turns: Vec<u64> = owners.map(|(who, _)| who).step_by(4).collect();
    ensure!(turns == [0, 1, 0, 1, 0, 1], "the positions are of {turns:?}");
    site.close()
}

/// Batches of one session through several connections, the last position first.
pub fn batches_go_to_their_positions_from_anywhere(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Token)?;
    let mut first = Session::open(&site, 0, &topic, 9, 0)?;
    let epoch = first.welcome.session_epoch;
    ensure!(reserve(&mut first, 60, false)? == 0, "the first position is not 0");
    let mut ways = vec![first];
    for way in 1..3 {
        ways.push(Session::open(&site, way % rig.brokers, &topic, 9, epoch)?);
    }
    for way in (0..3).rev() {
        ways[way].send((0..60).rev().filter(|position| position % 3 == way as u64))?;
        std::thread::sleep(Duration::from_millis(20));
    }
    for session in &mut ways {
        for receipt in session.receipts(20)? {
            ensure!(receipt.position == receipt.batch_seq, "{receipt:?}");
        }
    }
    // What is there already is a duplicate, and what nobody reserved ends the session.
    ways[0].send([7])?;
    let again = ways[0].receipt()?;
    ensure!(again.reached == Reached::Duplicate, "a copy reached {:?}", again.reached);
    ways[1].send([1000])?;
    ways[1].fenced(&mut Vec::new())?;
    drop(ways);
    let reading = read_everywhere(&site, &topic, 60, &[])?;
    check_sent(&reading, &[(9, 60)], Promise::InOrderOnce)?;
    site.close()
}

/// A client that reserved and died leaves a hole, which holds others up for its lease and no
/// longer, and which every reader is told of in the same way.
pub fn a_dead_clients_positions_are_a_hole_for_everyone(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = short_lease(&site)?;
    let mut publisher = site.publisher(&topic).client_id(1).build()?;
    ensure!(fill(&mut publisher, 1, 0, 3)? == [0, 1, 2], "not the first positions");
    let mut early = site.subscriber(&topic).build()?;
    let mut dead = Session::open(&site, rig.brokers - 1, &topic, 9, 0)?;
    ensure!(reserve(&mut dead, 5, false)? == 3, "others' positions");
    ensure!(reserve(&mut dead, 2, true)? == 8, "others' positions");
    // In the middle of what it reserved: acknowledged to nobody.
    dead.send([5])?;
    drop(dead);
    let mine = fill(&mut publisher, 1, 3, 4)?;
    ensure!(mine == [10, 11, 12, 13], "filled {mine:?}");
    publisher.close()?;
    let reading = read_everywhere(&site, &topic, 14, &[(3, 7)])?;
    check_sent(&reading, &[(1, 7)], Promise::InOrderOnce)?;
    let mut live = Reading::default();
    live.read(&mut early, Until::Messages(14))?;
    ensure!(live.unwritten == [(3, 7)], "who was there is told of {:?}", live.unwritten);
    let topic_name = &topic.name;
    let from = site.client.subscriber(topic_name).transport(rig.transport).timeout(patience());
    let from = from.one_sided(rig.one_sided).from(landfall::Start::Position(5));
    let middle = read(from.build()?, Until::Messages(9))?;
    ensure!(middle.unwritten == [(5, 5)], "from its middle: {:?}", middle.unwritten);
    site.close()
}

/// A client that stalls over what it reserved is fenced, and what it has left goes elsewhere.
pub fn a_client_that_stalls_is_fenced_and_goes_on(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = short_lease(&site)?;
    let mut publisher = site.publisher(&topic).client_id(1).spread(true).build()?;
    let epoch = publisher.session_epoch();
    publisher.reserve_positions(6)?;
    ensure!(fill(&mut publisher, 1, 0, 2)? == [0, 1], "not the first positions");
    std::thread::sleep(Duration::from_millis(2 * LEASE_MS));
    let mine = fill(&mut publisher, 1, 2, 3)?;
    ensure!(mine == [6, 7, 8], "filled {mine:?}");
    ensure!(publisher.session_epoch() > epoch, "it was not fenced");
    // What is left at a goodbye is a hole at once.
    publisher.reserve_positions(2)?;
    publisher.close()?;
    let mut other = site.publisher(&topic).client_id(2).build()?;
    ensure!(fill(&mut other, 2, 0, 1)? == [11], "not behind them");
    other.close()?;
    let reading = read_everywhere(&site, &topic, 12, &[(2, 4), (9, 2)])?;
    check_sent(&reading, &[(1, 5), (2, 1)], Promise::InOrderOnce)?;
    site.close()
}

/// Control dies between reserving and writing: no position has two owners, and everybody goes on.
pub fn control_dies_between_reserving_and_writing(rig: &Rig) -> Result<(), Failure> {
    let mut site = rig.start()?;
    let topic = site.topic(Order::Token)?;
    let mut early = site.subscriber(&topic).build()?;
    let mut one = site.publisher(&topic).client_id(1).spread(true).build()?;
    let mut two = site.publisher(&topic).client_id(2).build()?;
    for round in 0..3 {
        one.reserve_positions(5)?;
        two.reserve_positions(5)?;
        publish(&mut one, 1, round * 5..round * 5 + 2, 60)?;
        publish(&mut two, 2, round * 5..round * 5 + 5, 60)?;
        one.seal()?;
        two.seal()?;
        site.system.kill_control();
        std::thread::sleep(Duration::from_millis(50));
        site.system.start_control()?;
        publish(&mut one, 1, round * 5 + 2..round * 5 + 5, 60)?;
        one.flush()?;
        two.flush()?;
    }
    let (mut one, mut two) = (one, two);
    fill(&mut one, 1, 15, 1)?;
    fill(&mut two, 2, 15, 1)?;
    one.close()?;
    two.close()?;
    let end = site.client.topic(&topic.name)?.next_position;
    let late = read_everywhere(&site, &topic, end, &[])?;
    let mut live = Reading::default();
    live.read(&mut early, Until::Messages(end))?;
    audit(Order::Token, &[&live, &late])?;
    check_sent(&late, &[(1, 16), (2, 16)], Promise::AtLeastOnce)?;
    site.close()
}
