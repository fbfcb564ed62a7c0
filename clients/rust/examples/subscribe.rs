//! Reads a topic from its oldest message to what is there now.
//!
//! `cargo run -p landfall --example subscribe [CONTROL]`; the address may come from
//! `LANDFALL_CONTROL` too. Run the example `publish` before it.

use std::time::Duration;

use landfall::{Client, Error, Event, Start};

fn control() -> String {
    let given = std::env::args().nth(1).or_else(|| std::env::var("LANDFALL_CONTROL").ok());
    given.unwrap_or_else(|| "http://127.0.0.1:7400".to_owned())
}

fn main() -> Result<(), Error> {
    let client = Client::new(&control())?;
    let mut subscriber = client.subscriber("greetings").from(Start::Earliest).build()?;
    let mut messages = 0;
    loop {
        match subscriber.next(Duration::from_secs(1))? {
            Event::Batch(batch) => {
                for (position, message) in (batch.first_position()..).zip(batch.messages()) {
                    if messages < 3 {
                        println!("{position}: {}", String::from_utf8_lossy(message.payload));
                    }
                    messages += 1;
                }
            }
            Event::Gap { missed, resume, .. } => {
                println!("{missed} messages are gone; it goes on at position {resume}");
            }
            Event::CaughtUp | Event::TopicGone => break,
            _ => {}
        }
    }
    println!("{messages} messages read over {}", subscriber.transport());
    Ok(())
}
