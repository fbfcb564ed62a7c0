//! As many connections as there may be, and one more.

use std::io::{Read, Write};

use landfall_dataplane::Idle;
use landfall_layout::frame::{FRAME_BYTES, Frame, From, Refusal};
use landfall_layout::topic::Order;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::client::{Client, publisher, subscriber};
use crate::rig::{Rig, until};

/// A broker that is let have so many descriptors; this process has as many as before.
fn with_descriptors(count: u64) -> Rig {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, count, hard).unwrap();
    let rig = Rig::with(1, Idle::Backoff);
    setrlimit(Resource::RLIMIT_NOFILE, soft, hard).unwrap();
    rig
}

/// A publisher that is let in. Who finds no room may be told, or not even that.
fn let_in(address: &str, number: u64) -> Option<Client> {
    let mut client = Client::raw(address);
    client.wire.write_all(&Frame::Hello(publisher(number)).encode(4)).ok()?;
    client.wire.write_all(b"room").ok()?;
    let mut head = [0; FRAME_BYTES];
    client.wire.read_exact(&mut head).ok()?;
    matches!(Frame::decode(head), Ok((Frame::Welcome(_), _))).then_some(client)
}

#[test]
fn who_says_nothing_makes_room_and_who_publishes_and_reads_does_not() {
    let rig = with_descriptors(128);
    rig.control().topic("room", Order::Total, 64, 0);
    let mut publish = Client::welcomed(rig.tcp(), publisher(1), "room");
    let mut read = Client::welcomed(rig.unix(), subscriber(From::Earliest), "room");
    assert_eq!(read.frame().0, Frame::CaughtUp);
    let mut silent: Vec<Client> = (0..200).map(|_| Client::raw(rig.tcp())).collect();
    for seq in 0..3 {
        let mut found = None;
        until("there is room for one more", || {
            silent.push(Client::raw(rig.unix()));
            found = let_in(rig.tcp(), 2 + seq);
            found.is_some()
        });
        publish.publish(1, seq, b"still here");
        assert_eq!(publish.receipt().batch_seq, seq);
        assert_eq!(read.delivery().0.index, seq);
    }
    let made_room = silent.iter_mut().filter_map(Client::last_word).filter(|(why, sentence)| {
        assert!(sentence.contains("64 connections"), "{sentence}");
        *why == Refusal::Busy && sentence.contains("rests")
    });
    assert!(made_room.count() > 0);
}
