//! Publishers that deal their batches out over all brokers.

mod common;

use std::time::Duration;

use common::{Connections, brokers, welcome};
use landfall::Transport;
use landfall_layout::frame::Frame;
use landfall_layout::topic::Order;

/// Two brokers get so many batches of one message; each those that `goes` says.
fn deal(order: Order, batches: u64, goes: fn(u64) -> u64) {
    let script = move |connections: &mut Connections| {
        let (mut peer, _) = connections.greet();
        peer.send(Frame::Welcome(welcome(order, 1, 0)));
        let sequences = peer.order_all(0);
        let here = goes(sequences[0]);
        let expected: Vec<u64> = (0..batches).filter(|seq| goes(*seq) == here).collect();
        assert_eq!(sequences, expected);
    };
    let (client, handles) = brokers(vec![Box::new(script), Box::new(script)]);
    let builder = client.publisher("topic").client_id(7).transport(Transport::Tcp).spread(true);
    let mut publisher = builder.timeout(Duration::from_secs(10)).build().unwrap();
    for _ in 0..batches {
        publisher.publish(b"x").unwrap();
        publisher.seal().unwrap();
    }
    publisher.flush().unwrap();
    publisher.close().unwrap();
    handles.into_iter().for_each(|handle| handle.join().unwrap());
}

#[test]
fn batches_are_dealt_out_over_all_brokers_in_turn() {
    deal(Order::Total, 6, |seq| seq % 2);
}

/// There a batch behind one of another broker waits for the sequencer.
#[test]
fn in_order_strong_batches_are_dealt_out_in_runs() {
    deal(Order::Strong, 160, |seq| seq / 64 % 2);
}
