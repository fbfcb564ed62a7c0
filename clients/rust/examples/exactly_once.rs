//! Two lives of one publisher. The first dies before it has flushed, so that nobody knows how much
//! of what it had sent came to be ordered. The second goes on all the same, and every message
//! stands in the order once.
//!
//! `cargo run -p landfall --example exactly_once [CONTROL]`; the address may come from
//! `LANDFALL_CONTROL` too.

use std::process::Command;
use std::time::Duration;

use landfall::api::TopicSpec;
use landfall::audit::{Auditor, Seen};
use landfall::{Client, Error, Event, Order, Start};

/// The same in both lives: it is what makes them one publisher.
const CLIENT_ID: u64 = 0x1dea;
const MESSAGES: u64 = 100_000;
/// Names the topic to a process that is to be the first life.
const FIRST_LIFE: &str = "FIRST_LIFE_OF";

fn control() -> String {
    let given = std::env::args().nth(1).or_else(|| std::env::var("LANDFALL_CONTROL").ok());
    given.unwrap_or_else(|| "http://127.0.0.1:7400".to_owned())
}

fn main() -> Result<(), Error> {
    let client = Client::new(&control())?;
    if let Ok(topic) = std::env::var(FIRST_LIFE) {
        return first_life(&client, &topic);
    }
    let topic = format!("once-{}", std::process::id());
    client.create_topic(&TopicSpec::new(&topic, Order::Strong))?;
    let program = std::env::current_exe().expect("this program is a file");
    let first = Command::new(program).arg(control()).env(FIRST_LIFE, &topic).status();
    println!("the first life ended: {}", first.expect("this program can be started"));

    // First the next epoch is opened: that fences the one before, so that nothing more of it is
    // ordered. Only then is it certain how far it came, and the log says it.
    let mut second = client.publisher(&topic).client_id(CLIENT_ID).build()?;
    let ordered = own_messages(&client, &topic)?;
    println!("epoch {} goes on at message {ordered}", second.session_epoch());
    for number in ordered..MESSAGES {
        second.publish(number.to_string().as_bytes())?;
    }
    second.close()?;

    check(&client, &topic)?;
    client.delete_topic(&topic)
}

/// Publishes, and dies with messages in every state: acknowledged, on the way, and not yet sent.
fn first_life(client: &Client, topic: &str) -> Result<(), Error> {
    let mut first = client.publisher(topic).client_id(CLIENT_ID).batch_bytes(1024).build()?;
    for number in 0..MESSAGES {
        first.publish(number.to_string().as_bytes())?;
        let acknowledged = first.acked().messages;
        if acknowledged > MESSAGES / 10 {
            println!("{} were published, {acknowledged} of them are acknowledged", number + 1);
            std::process::abort();
        }
        if number % 100 == 0 {
            first.poll()?;
        }
    }
    // So slow that all are published: most are on the way, or not sent yet.
    std::process::abort();
}

/// Messages of this publisher in the log, up to its end. One that keeps a note of how far it came,
/// as with [`Subscriber::mark`](landfall::Subscriber::mark), needs to read no more than what is
/// behind that.
fn own_messages(client: &Client, topic: &str) -> Result<u64, Error> {
    let mut subscriber = client.subscriber(topic).from(Start::Earliest).build()?;
    let mut own = 0;
    loop {
        match subscriber.next(Duration::from_secs(5))? {
            Event::Batch(batch) if batch.client() == CLIENT_ID => own += u64::from(batch.count()),
            Event::CaughtUp => return Ok(own),
            _ => {}
        }
    }
}

fn check(client: &Client, topic: &str) -> Result<(), Error> {
    let mut subscriber = client.subscriber(topic).from(Start::Earliest).build()?;
    let mut auditor = Auditor::new(Order::Strong);
    let mut next = 0;
    while next < MESSAGES {
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
    assert_eq!(next, MESSAGES);
    println!("{next} messages, each once and in order; {}", auditor.finish());
    // A topic is gone once nobody reads it: the subscriber ends here.
    Ok(())
}
