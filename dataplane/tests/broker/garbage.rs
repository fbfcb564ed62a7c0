//! Bytes that make no sense: every one of them gets an answer or a closed door, and nobody else
//! notices.

use std::io::Write;

use landfall_layout::frame::{FRAME_BYTES, Frame, Refusal};
use landfall_layout::topic::Order;
use landfall_pool::counters::ErrorLog;

use crate::client::{Client, batch, publisher};
use crate::rig::{Rig, until};

/// A small generator (xorshift), so that a failure can be repeated.
struct Dice(u64);

impl Dice {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn bytes(&mut self, count: usize) -> Vec<u8> {
        (0..count).map(|_| self.next() as u8).collect()
    }
}

#[test]
fn garbage_at_the_door_disturbs_nobody() {
    let rig = Rig::new();
    rig.control().topic("calm", Order::Strong, 64, 0);
    let mut calm = Client::welcomed(rig.tcp(), publisher(1), "calm");
    let mut dice = Dice(0x1234_5678_9abc_def1);
    for seq in 0..200 {
        let count = 1 + dice.next() as usize % 700;
        let mut bytes = dice.bytes(count);
        if seq % 2 == 0 && count >= FRAME_BYTES {
            // Half of them begin like a Hello.
            bytes[..FRAME_BYTES].copy_from_slice(&Frame::Hello(publisher(2)).encode(4));
            bytes[dice.next() as usize % FRAME_BYTES] ^= 1 << (dice.next() % 8);
        }
        let address = if seq % 3 == 0 { rig.unix() } else { rig.tcp() };
        let mut noisy = Client::raw(address);
        let _ = noisy.wire.write_all(&bytes);
        drop(noisy);
        calm.publish(1, seq, b"calm");
        assert_eq!(calm.receipt().batch_seq, seq);
    }
}

#[test]
fn garbage_behind_a_good_batch_is_refused_and_the_batch_stays() {
    let rig = Rig::new();
    let topic = rig.control().topic("calm", Order::Strong, 64, 0);
    let mut calm = Client::welcomed(rig.tcp(), publisher(1), "calm");
    let mut dice = Dice(0xfeed_beef_0000_0001);
    for seq in 0..100 {
        let mut noisy = Client::welcomed(rig.tcp(), publisher(100 + seq), "calm");
        let epoch = noisy.welcome().session_epoch;
        let mut bytes = batch(topic, 100 + seq, epoch, 0, b"good");
        let mut spoilt = batch(topic, 100 + seq, epoch, 1, &dice.bytes(64));
        spoilt[dice.next() as usize % 56] ^= 1 << (dice.next() % 8);
        bytes.extend(spoilt);
        noisy.send(&bytes);
        let mut refused = None;
        for _ in 0..2 {
            match noisy.frame().0 {
                Frame::Receipt(receipt) => assert_eq!(receipt.batch_seq, 0),
                Frame::Refused(why) => refused = Some(why),
                other => panic!("{other:?}"),
            }
            if refused.is_some() {
                break;
            }
        }
        assert!(
            matches!(refused, Some(Refusal::Malformed | Refusal::BadBatch | Refusal::Version)),
            "{refused:?}"
        );
        calm.publish(1, seq, b"calm");
        assert_eq!(calm.receipt().batch_seq, seq);
    }
}

#[test]
fn refusals_push_no_error_out() {
    let rig = Rig::new();
    ErrorLog::new(&rig.pool, 0).note(&rig.pool, 1, "the disk hangs");
    for number in 0..100 {
        let (_, frame, _) = Client::hello(rig.tcp(), publisher(1), &format!("no-{number}"));
        assert_eq!(frame, Frame::Refused(Refusal::NoTopic));
    }
    let errors = rig.errors();
    assert!(errors.contains(&"the disk hangs".to_owned()), "{errors:?}");
    assert!(errors.iter().any(|text| text.contains("no-99")), "{errors:?}");
}

#[test]
fn a_handshake_that_never_ends_is_ended() {
    let rig = Rig::new();
    let mut slow = Client::raw(rig.tcp());
    slow.send(&Frame::Hello(publisher(1)).encode(4)[..40]);
    let (why, sentence) = slow.refused();
    assert_eq!(why, Refusal::Malformed);
    assert!(sentence.contains("40 bytes"), "{sentence}");
    slow.assert_closed();
}

#[test]
fn a_control_that_does_not_answer_is_named() {
    let rig = Rig::new();
    rig.control().topic("mute", Order::Total, 64, 0);
    rig.control().silent = true;
    let (_, frame, sentence) = Client::hello(rig.tcp(), publisher(1), "mute");
    assert_eq!(frame, Frame::Refused(Refusal::NoControl), "{sentence}");
    rig.control().silent = false;
    let mut late = Client::welcomed(rig.tcp(), publisher(1), "mute");
    late.publish(1, 0, b"m");
    assert_eq!(late.receipt().position, 0);
    until("the requests were repeated", || {
        rig.counter(landfall_layout::counters::Counter::RequestsRepeated) > 0
    });
}
