//! Two lives of one publisher: the second goes on where the first ended, whatever the first had
//! not heard of, and every message stands in the order once.
//!
//! `cargo run -p landfall --example exactly_once [CONTROL]`; the address may come from
//! `LANDFALL_CONTROL` too.

use std::time::Duration;

use landfall::api::TopicSpec;
use landfall::audit::{Auditor, Seen};
use landfall::{Client, Error, Event, From, Order};

/// The same in both lives: it is what makes them one publisher.
const CLIENT_ID: u64 = 0x1dea;

fn control() -> String {
    let given = std::env::args().nth(1).or_else(|| std::env::var("LANDFALL_CONTROL").ok());
    given.unwrap_or_else(|| "http://127.0.0.1:7400".to_owned())
}

fn main() -> Result<(), Error> {
    let client = Client::new(&control())?;
    let topic = format!("once-{}", std::process::id());
    client.create_topic(&TopicSpec::new(&topic, Order::Strong))?;

    // The first life ends without a goodbye. What its receipts covered is in the order for ever.
    let mut first = client.publisher(&topic).client_id(CLIENT_ID).build()?;
    for number in 0..500 {
        first.publish(format!("{number}").as_bytes())?;
    }
    first.flush()?;
    let sent = first.acked().messages;
    drop(first);

    // The second opens the next epoch of the same session, which fences the first.
    let mut second = client.publisher(&topic).client_id(CLIENT_ID).build()?;
    println!("epoch {} goes on at batch {}", second.session_epoch(), second.next_seq());
    for number in sent..1000 {
        second.publish(format!("{number}").as_bytes())?;
    }
    second.close()?;

    let mut subscriber = client.subscriber(&topic).from(From::Earliest).build()?;
    let mut auditor = Auditor::new(Order::Strong);
    let mut next = 0;
    while next < 1000 {
        match subscriber.next(Duration::from_secs(5))? {
            Event::Batch(batch) => {
                auditor.batch(0, Seen::from(&batch));
                for message in batch.messages() {
                    assert_eq!(message.payload, next.to_string().as_bytes());
                    next += 1;
                }
            }
            Event::Idle => break,
            _ => {}
        }
    }
    println!("{next} messages, each once and in order; {}", auditor.finish());
    // A topic is gone once nobody reads it.
    drop(subscriber);
    client.delete_topic(&topic)
}
