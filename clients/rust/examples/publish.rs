//! Publishes some messages and waits for the receipt of the last.
//!
//! `cargo run -p landfall --example publish [CONTROL]`; the address may come from
//! `LANDFALL_CONTROL` too.

use landfall::api::TopicSpec;
use landfall::{Client, Error, Order};

fn control() -> String {
    let given = std::env::args().nth(1).or_else(|| std::env::var("LANDFALL_CONTROL").ok());
    given.unwrap_or_else(|| "http://127.0.0.1:7400".to_owned())
}

fn main() -> Result<(), Error> {
    let client = Client::new(&control())?;
    match client.create_topic(&TopicSpec::new("greetings", Order::Strong)) {
        Ok(_) | Err(Error::Control { status: 409, .. }) => {}
        Err(error) => return Err(error),
    }

    let mut publisher = client.publisher("greetings").build()?;
    let mut ticket = publisher.publish(b"hello")?;
    for number in 1..1000 {
        ticket = publisher.publish(format!("hello again, number {number}").as_bytes())?;
    }
    let receipt = publisher.wait(ticket)?;
    println!("the last message is {:?} at position {:?}", receipt.reached, receipt.position);
    println!("{} messages acknowledged over {}", publisher.acked().messages, publisher.transport());
    publisher.close()
}
