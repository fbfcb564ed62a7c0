//! What each order promises, with one broker and with several, and 1 to 16 publishers.

use landfall::Order;
use landfall_layout::frame::Reached;

use crate::flow::{Promise, Reading, Until, audit, check_sent, publish, read};
use crate::raw::Session;
use crate::{Failure, Rig, Site};

/// Publishers and how many messages each publishes.
const CROWDS: [(u64, u64); 3] = [(1, 2000), (4, 800), (16, 250)];

/// Publishers at once, two subscribers while they publish and one afterwards.
fn crowd(site: &Site, order: Order, publishers: u64, each: u64) -> Result<(), Failure> {
    let topic = site.topic(order)?;
    let brokers = site.rig.brokers;
    let total = publishers * each;
    // Batches of one publisher go through all brokers where the order still means something then.
    let spread = |who: u64| who % 2 == 1 && order != Order::Broker;
    let readings = std::thread::scope(|scope| -> Result<Vec<Reading>, Failure> {
        let subscribers: Vec<_> = [0, brokers - 1]
            .into_iter()
            .map(|broker| {
                let subscriber = site.subscriber(&topic).broker(broker as u8).build()?;
                Ok(scope.spawn(move || read(subscriber, Until::Messages(total))))
            })
            .collect::<Result<_, Failure>>()?;
        let writers: Vec<_> = (0..publishers)
            .map(|who| {
                let builder = site.publisher(&topic).client_id(who + 1).batch_bytes(2 << 10);
                let builder = if spread(who) {
                    builder.spread(true)
                } else {
                    builder.broker((who % brokers as u64) as u8)
                };
                scope.spawn(move || -> Result<(), Failure> {
                    let mut publisher = builder.build()?;
                    publish(&mut publisher, who, 0..each, 60)?;
                    Ok(publisher.close()?)
                })
            })
            .collect();
        for writer in writers {
            writer.join().map_err(|_| Failure::new("a publisher panicked"))??;
        }
        subscribers
            .into_iter()
            .map(|it| it.join().map_err(|_| Failure::new("a subscriber panicked"))?)
            .collect()
    })?;
    let late = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    audit(order, &[&readings[0], &readings[1], &late])?;
    let everyone: Vec<(u64, u64)> = (0..publishers).map(|who| (who, each)).collect();
    for reading in readings.iter().chain([&late]) {
        ensure!(reading.missed == 0, "{} messages were missed", reading.missed);
        let promise = if order == Order::Strong { Promise::InOrderOnce } else { Promise::Once };
        check_sent(reading, &everyone, promise)?;
    }
    let topic = site.client.topic(&topic.name)?;
    ensure!(topic.messages == total, "the topic counts {} of {total} messages", topic.messages);
    Ok(())
}

fn level(rig: &Rig, order: Order) -> Result<(), Failure> {
    let site = rig.start()?;
    for (publishers, each) in CROWDS {
        crowd(&site, order, publishers, each)?;
    }
    site.close()
}

/// Order `none`: everything arrives.
pub fn none_delivers_everything(rig: &Rig) -> Result<(), Failure> {
    level(rig, Order::None)
}

/// Order `broker`: each broker's log is first-in first-out.
pub fn broker_keeps_each_brokers_order(rig: &Rig) -> Result<(), Failure> {
    level(rig, Order::Broker)
}

/// Order `total`: one sequence, the same for every subscriber.
pub fn total_is_one_order_for_all(rig: &Rig) -> Result<(), Failure> {
    level(rig, Order::Total)
}

/// Order `stream`: total, and first-in first-out for each (client, broker).
pub fn stream_keeps_each_stream(rig: &Rig) -> Result<(), Failure> {
    level(rig, Order::Stream)
}

/// Order `strong`: total, and first-in first-out for each client across brokers.
pub fn strong_keeps_each_publisher(rig: &Rig) -> Result<(), Failure> {
    level(rig, Order::Strong)
}

/// One session through three connections, to different brokers where there are several; what was
/// sealed first arrives last.
pub fn batches_out_of_order_through_different_brokers(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    let first = Session::open(&site, 0, &topic, 9, 0)?;
    ensure!(first.welcome.next_seq == 0, "a new session begins at {}", first.welcome.next_seq);
    let epoch = first.welcome.session_epoch;
    let mut ways = vec![first];
    for way in 1..3 {
        let joined = Session::open(&site, way % rig.brokers, &topic, 9, epoch)?;
        ensure!(joined.welcome.session_epoch == epoch, "joined another epoch");
        ways.push(joined);
    }
    for way in (0..3).rev() {
        ways[way].send((0..90).filter(|seq| seq % 3 == way as u64))?;
        std::thread::sleep(std::time::Duration::from_millis(30));
    }
    for (way, session) in ways.iter_mut().enumerate() {
        for receipt in session.receipts(30)? {
            ensure!(receipt.reached == Reached::Ordered, "batch reached {:?}", receipt.reached);
            ensure!(receipt.batch_seq % 3 == way as u64, "batch {} here", receipt.batch_seq);
            ensure!(
                receipt.position == receipt.batch_seq,
                "batch {} is at position {}",
                receipt.batch_seq,
                receipt.position
            );
        }
    }
    for session in ways {
        session.bye()?;
    }
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &[(9, 90)], Promise::InOrderOnce)?;
    audit(Order::Strong, &[&reading])?;
    site.close()
}

/// Order `token`: one sequence, the same for every subscriber.
pub fn token_is_one_order_for_all(rig: &Rig) -> Result<(), Failure> {
    level(rig, Order::Token)
}
