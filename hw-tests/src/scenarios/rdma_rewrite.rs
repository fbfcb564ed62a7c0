//! What a NIC of a publisher can still reach after its batches were acknowledged, and after its
//! session is over.

use std::time::Duration;

use landfall::{Order, Transport};
use landfall_layout::frame::{Frame, Reached};
use landfall_layout::verbs::{GrantMode, Said};
use landfall_nic::Remote;
use landfall_pool::Pool;

use super::rdma::refused_by_the_nic;
use super::rewrite::{Anew, is_named_and_fenced, story};
use crate::flow::{message, publish};
use crate::raw_verbs::{Knocked, RawVerbs, Room, knock};
use crate::{Failure, Rig, Site};

/// Who rewrites, and who does not.
const ROGUE: u64 = 0xbad;
const HONEST: u64 = 0x600d;
/// Batches of the one who rewrites, a kilobyte apart.
const BATCHES: u64 = 6;
const APART: u32 = 1024 / 64;

fn at(room: Room, line: u32) -> Remote {
    Remote { at: room.at + u64::from(line) * 64, key: room.key }
}

fn rewritten_under(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let pool = Pool::attach(site.system.pool())?;
    for order in [Order::Strong, Order::Broker] {
        let topic = site.topic(order)?;
        let knocked = knock(&site, &topic, ROGUE, |knock| knock.grant = rig.grant)?;
        let Knocked::In(mut rogue) = knocked else {
            return Err(Failure::new("a publisher in good standing was not let in"));
        };
        let mut honest = site.publisher(&topic).client_id(HONEST).broker(0).build()?;
        let room = rogue.room(4096)?;
        let (mut places, mut wanted) = (Vec::new(), Vec::new());
        for seq in 0..BATCHES {
            let receipt = rogue.publish(room, seq as u32 * APART, seq)?;
            ensure!(matches!(receipt.reached, Reached::Ordered | Reached::Landed), "{receipt:?}");
            places.push(receipt.position);
            publish(&mut honest, HONEST, seq..seq + 1, 100)?;
            honest.flush()?;
        }
        // Its session stands and its extent is its own: the NIC takes every one of these.
        for (seq, how) in (1..).zip(Anew::ALL) {
            let mut bytes = rogue.batch(seq, &message(ROGUE, seq, 100)).bytes();
            how.change(&mut bytes);
            let verdict = rogue.write(&bytes, at(room, seq as u32 * APART), None)?;
            ensure!(verdict.is_none(), "{how:?}: the NIC refused what is the publisher's own");
            wanted.push((places[seq as usize], places[seq as usize] + 1));
        }
        let mut stories = Vec::new();
        for (transport, one_sided) in [
            (Transport::Tcp, false),
            (Transport::Memory, false),
            (Transport::Verbs, false),
            (Transport::Verbs, true),
        ] {
            let subscriber = site.subscriber(&topic).transport(transport).one_sided(one_sided);
            let (told, shown) = story(subscriber.build()?)?;
            ensure!(told == wanted, "{order}, {transport}: {told:?} and not {wanted:?}");
            let others = shown.iter().filter(|(position, _)| !places.contains(position));
            ensure!(others.count() == BATCHES as usize, "the honest one's are not all there");
            stories.push((told, shown));
        }
        let differ = stories.iter().any(|story| *story != stories[0]);
        ensure!(!differ, "{order}: two readers saw different bytes");
        is_named_and_fenced(&site, &pool, &topic)?;
        match rogue.expect()? {
            (Frame::Fenced { .. }, _) => {}
            other => return Err(Failure::new(format!("Fenced was expected, not {other:?}"))),
        }
        // Under `open` the key is a whole segment's, and stays: PROTOCOL says who may have it.
        if rig.grant == GrantMode::Window {
            std::thread::sleep(Duration::from_millis(50));
            refused_by_the_nic(rogue.write(&[0xee; 256], at(room, APART), None)?)?;
        }
        publish(&mut honest, HONEST, BATCHES..BATCHES + 5, 100)?;
        honest.close()?;
        drop(rogue);
    }
    site.close()
}

/// A NIC whose window is still bound writes acknowledged batches anew, with good checksums: every
/// kind of reader is told of the same gaps, the publisher is named, and its window is taken.
pub fn what_a_nic_rewrites_is_the_same_gap_for_all(rig: &Rig) -> Result<(), Failure> {
    for grant in [GrantMode::Window, GrantMode::Open] {
        rewritten_under(&Rig { grant, ..*rig })?;
    }
    Ok(())
}

/// A session is fenced while a batch of it waits behind a missing one: whoever finds it out first,
/// its NIC writes nothing more, and it is given no more room.
pub fn a_session_fenced_with_a_gap_in_flight_writes_nothing_more(rig: &Rig) -> Result<(), Failure> {
    let site: Site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    for round in 0..8 {
        let client = ROGUE + round;
        let mut old = RawVerbs::open(&site, &topic, client)?;
        let room = old.room(4096)?;
        let receipt = old.publish(room, 0, 0)?;
        ensure!(receipt.reached == Reached::Ordered, "{receipt:?}");
        // Batch 1 never comes, so batch 2 waits for it.
        let bytes = old.batch(2, &message(client, 2, 100)).bytes();
        let said = Said::Batch { slot: room.slot, line: APART };
        let verdict = old.write(&bytes, at(room, APART), Some(said))?;
        ensure!(verdict.is_none(), "{verdict:?}");
        let new = RawVerbs::open(&site, &topic, client)?;
        ensure!(new.welcome.session_epoch > old.welcome.session_epoch, "no later epoch");
        match old.expect()? {
            (Frame::Fenced { .. }, _) => {}
            other => return Err(Failure::new(format!("Fenced was expected, not {other:?}"))),
        }
        // The rest of a second for the broker to order the window's end from its own NIC.
        old.say(Said::Wanted { lines: 64 })?;
        if let Some(given) = old.hear(Duration::from_millis(500))? {
            return Err(Failure::new(format!("a session that is over was given {given:?}")));
        }
        refused_by_the_nic(old.write(&bytes, at(room, 0), None)?)?;
    }
    site.close()
}
