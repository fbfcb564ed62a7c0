//! Batches of which a part comes, and then nothing.

use landfall_layout::counters::Counter;
use landfall_layout::frame::{Frame, Hello, Refusal};
use landfall_layout::topic::Order;

use crate::client::{Client, batch, publisher};
use crate::rig::Rig;

#[test]
fn what_is_begun_and_goes_no_further_is_given_up_and_sent_again() {
    let rig = Rig::new();
    let topic = rig.control().topic("half", Order::Strong, 64, 0);
    let mut whole = Client::welcomed(rig.tcp(), publisher(1), "half");
    let mut fenced = Client::welcomed(rig.tcp(), publisher(2), "half");
    let mut half = Client::welcomed(rig.tcp(), publisher(3), "half");
    let epoch = half.welcome().session_epoch;
    // Within a preamble; within what nobody wants any more; within a payload.
    let sent = batch(topic, 3, epoch, 0, &[1; 100_000]);
    let mut in_head = Client::welcomed(rig.unix(), publisher(4), "half");
    in_head.send(&sent[..30]);
    let old = fenced.welcome().session_epoch;
    rig.control().fence(topic, 2);
    fenced.send(&batch(topic, 2, old, 0, &[1; 1000])[..500]);
    assert!(matches!(fenced.frame().0, Frame::Fenced { .. }));
    half.send(&sent[..50_000]);
    for (client, said) in
        [(&mut in_head, "30 of 64 bytes"), (&mut fenced, "500 of"), (&mut half, "50000 of 100080")]
    {
        let (why, sentence) = client.refused();
        assert_eq!(why, Refusal::Busy, "who is told that comes again");
        assert!(sentence.contains(said), "{said:?} is not in {sentence:?}");
        assert!(sentence.contains("nothing for 5000 ms"), "{sentence:?}");
    }
    let hello = Hello { session_epoch: epoch, ..publisher(3) };
    let mut again = Client::welcomed(rig.tcp(), hello, "half");
    again.send(&sent);
    assert_eq!(again.receipt().batch_seq, 0);
    let entry = rig.control().entry(topic, 0).unwrap();
    assert_eq!(entry.offset, 0, "what was given up left no hole behind it");
    assert_eq!(rig.counter(Counter::ClaimsPadded), 0);
    // Who has begun nothing may be silent for as long.
    whole.publish(1, 0, b"whole");
    assert_eq!(whole.receipt().batch_seq, 0);
}
