//! Order `token`: wishes for positions, and holes in the log.

use landfall_layout::frame::{Frame, From, GapReason, Reached, Refusal};
use landfall_layout::limits::{RESERVATIONS_MAX, SEQUENCED_LOG};
use landfall_layout::topic::Order;

use crate::client::{Client, Member, publisher, subscriber};
use crate::rig::{Rig, until};

#[test]
fn wishes_are_answered_under_the_publishers_own_number() {
    let rig = Rig::new();
    let topic = rig.control().topic("token", Order::Token, 64, 0);
    let mut stream = Client::welcomed(rig.tcp(), publisher(7), "token");
    let mut member = Member::new(rig.unix(), publisher(8), "token");
    stream.send(&Frame::Reserve { request: 3, count: 5, whole: true }.encode(0));
    assert_eq!(stream.frame().0, Frame::Reserved { request: 3, first: 0, count: 5 });
    member.say(Frame::Reserve { request: 3, count: 2, whole: false });
    assert_eq!(member.hear(), Frame::Reserved { request: 3, first: 5, count: 2 });
    // Between batches, and in any order with them.
    stream.publish(7, 0, b"x");
    stream.send(&Frame::Reserve { request: 4, count: 1, whole: true }.encode(0));
    stream.publish(7, 7, b"y");
    let mut heard: Vec<Frame> = (0..3).map(|_| stream.frame().0).collect();
    heard.retain(|frame| !matches!(frame, Frame::Receipt(_)));
    assert_eq!(heard, [Frame::Reserved { request: 4, first: 7, count: 1 }]);
    rig.control().fence(topic, 7);
    stream.send(&Frame::Reserve { request: 5, count: 1, whole: true }.encode(0));
    assert!(matches!(stream.frame().0, Frame::Fenced { session_epoch: 1, .. }));
}

#[test]
fn wishes_that_make_no_sense_are_refused() {
    let rig = Rig::new();
    rig.control().topic("token", Order::Token, 64, 0);
    rig.control().topic("strong", Order::Strong, 64, 0);
    let wish = |request, count, whole| Frame::Reserve { request, count, whole };
    let wrong = [
        ("strong", vec![wish(0, 1, true)]),
        ("token", vec![wish(0, 0, false)]),
        ("token", vec![wish(0, 65_536, true)]),
    ];
    for (topic, frames) in wrong {
        let mut client = Client::welcomed(rig.tcp(), publisher(7), topic);
        frames.iter().for_each(|frame| client.send(&frame.encode(0)));
        assert_eq!(client.refused().0, Refusal::Malformed);
    }
    let mut client = Client::welcomed(rig.tcp(), publisher(9), "token");
    rig.control().silent = true;
    for request in 0..=RESERVATIONS_MAX {
        client.send(&wish(request, 1, true).encode(0));
    }
    assert_eq!(client.refused().0, Refusal::Malformed);
}

#[test]
fn holes_are_gaps_and_those_that_follow_each_other_are_one() {
    let rig = Rig::new();
    rig.control().topic("token", Order::Token, 64, 0);
    rig.control().hole_seqs.extend([1, 2, 4]);
    let mut publish = Client::welcomed(rig.tcp(), publisher(7), "token");
    (0..6).for_each(|seq| publish.publish(7, seq, b"x"));
    let mut ordered = 0;
    until("the batches are ordered", || {
        let receipt = publish.receipt();
        ordered += u32::from(receipt.reached == Reached::Ordered);
        assert!(receipt.reached == Reached::Ordered || [1, 2, 4].contains(&receipt.batch_seq));
        ordered == 3
    });
    let log = SEQUENCED_LOG as u8;
    let gap = |missed, resume| Frame::Gap { log, reason: GapReason::Unwritten, missed, resume };
    let mut read = Client::welcomed(rig.tcp(), subscriber(From::Earliest), "token");
    assert_eq!(read.delivery().0.first_position, 0);
    assert_eq!(read.frame().0, gap(2, 3));
    assert_eq!(read.delivery().0.first_position, 3);
    assert_eq!(read.frame().0, gap(1, 5));
    let (delivery, _) = read.delivery();
    assert_eq!((delivery.first_position, delivery.index), (5, 5));
    let mut middle = Client::welcomed(rig.tcp(), subscriber(From::Position(4)), "token");
    assert_eq!(middle.welcome().start, 4);
    assert_eq!(middle.frame().0, gap(1, 5));
}
