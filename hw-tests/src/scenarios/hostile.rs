//! Bad input: each a clear sentence, and nobody else is disturbed.

use std::time::Duration;

use landfall::api::{Topic, TopicSpec};
use landfall::{Ack, Error, Order};
use landfall_layout::batch::{BATCH_VERSION, BatchPreamble, PADDING_MAGIC};
use landfall_layout::frame::{Carrier, FRAME_BYTES, Frame, GapReason, Hello, Refusal, Role};

use crate::flow::{Promise, Random, Until, audit, check_sent, publish, read};
use crate::raw::{Batch, Heard, Raw, Session, publisher};
use crate::{Failure, Rig, Site};

/// A publisher that behaves, before and after every bad one.
pub(super) struct Witness {
    publisher: landfall::Publisher,
    topic: Topic,
    sent: u64,
}

impl Witness {
    pub(super) fn new(site: &Site) -> Result<Self, Failure> {
        let topic = site.topic_with(Order::Strong, |spec| spec.check_ingest = Some(true))?;
        let publisher = site.publisher(&topic).broker(0).build()?;
        Ok(Self { publisher, topic, sent: 0 })
    }

    pub(super) fn goes_on(&mut self) -> Result<(), Failure> {
        publish(&mut self.publisher, 1, self.sent..self.sent + 10, 100)?;
        self.sent += 10;
        Ok(self.publisher.flush()?)
    }

    pub(super) fn topic(&self) -> &Topic {
        &self.topic
    }

    pub(super) fn close(self, site: &Site, others: &[(u64, u64)]) -> Result<(), Failure> {
        let stats = self.publisher.stats();
        ensure!(stats.reconnects == 0, "the witness lost its connection: {stats:?}");
        self.close_after_reconnects(site, others)
    }

    pub(super) fn close_after_reconnects(
        self,
        site: &Site,
        others: &[(u64, u64)],
    ) -> Result<(), Failure> {
        self.publisher.close()?;
        let reading = read(site.subscriber(&self.topic).build()?, Until::CaughtUp)?;
        let mut sent = vec![(1, self.sent)];
        sent.extend_from_slice(others);
        check_sent(&reading, &sent, Promise::InOrderOnce)?;
        audit(Order::Strong, &[&reading])?;
        Ok(())
    }
}

/// First bytes of a connection that are no greeting, with the reason expected.
fn bad_greetings() -> Vec<(Vec<u8>, Refusal)> {
    let hello = Frame::Hello(publisher(7, 0)).encode(1);
    let with = |at: usize, value: u8| {
        let mut bytes = hello.to_vec();
        bytes[at] = value;
        bytes.push(b'x');
        bytes
    };
    let client0 = Frame::Hello(publisher(0, 0)).encode(0).to_vec();
    let mut not_text = Frame::Hello(publisher(7, 0)).encode(2).to_vec();
    not_text.extend_from_slice(b"\xff\xfe");
    vec![
        (Random::new(1).bytes(FRAME_BYTES), Refusal::Malformed),
        (vec![0; FRAME_BYTES], Refusal::Malformed),
        (
            b"GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: somebody/1.0 (lost)\r\n\r\n"
                .to_vec(),
            Refusal::Malformed,
        ),
        (with(4, 9), Refusal::Version),
        (with(5, 200), Refusal::Malformed),
        (with(7, 0xff), Refusal::Malformed),
        (with(8, 7), Refusal::Malformed),
        (with(9, 7), Refusal::Malformed),
        (with(10, 7), Refusal::Malformed),
        (with(11, 7), Refusal::Malformed),
        (not_text, Refusal::Malformed),
        (client0, Refusal::NoTopic),
        (Frame::Bye.encode(0).to_vec(), Refusal::Malformed),
        (Frame::CaughtUp.encode(0).to_vec(), Refusal::Malformed),
    ]
}

/// Greetings and frames that make no sense, at every stage of a connection.
pub fn malformed_frames_are_refused_and_nobody_is_disturbed(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let mut witness = Witness::new(&site)?;
    let address = site.address(0)?;
    for (number, (bytes, expected)) in bad_greetings().into_iter().enumerate() {
        let mut raw = Raw::connect(&address)?;
        raw.send(&bytes)?;
        let (why, sentence) = raw.expect_refusal()?;
        ensure!(why == expected, "greeting {number}: {why:?} ({sentence})");
        witness.goes_on()?;
    }
    // Ended in the middle of a greeting, and at once.
    for bytes in 0..FRAME_BYTES {
        let mut raw = Raw::connect(&address)?;
        raw.send(&Frame::Hello(publisher(7, 0)).encode(5)[..bytes])?;
    }
    witness.goes_on()?;
    let frames = [
        Frame::Hello(publisher(7, 0)),
        Frame::CaughtUp,
        Frame::Gap { log: 0, reason: GapReason::Retention, missed: 1, resume: 2 },
        Frame::Reserve { request: 0, count: 1, whole: true },
        Frame::Reserved { request: 0, first: 0, count: 1 },
        Frame::Written { extent: 1, offset: 0, bytes: u32::MAX, batch_seq: 0 },
    ];
    for (number, frame) in frames.into_iter().enumerate() {
        let mut session = Session::open(&site, 0, &witness.topic, 20 + number as u64, 0)?;
        session.raw.send_frame(frame, b"")?;
        let (why, sentence) = session.raw.expect_refusal()?;
        ensure!(why == Refusal::Malformed, "{frame:?}: {why:?} ({sentence})");
        witness.goes_on()?;
    }
    let mut session = Session::open(&site, 0, &witness.topic, 30, 0)?;
    session.raw.send(&Random::new(2).bytes(500))?;
    session.raw.expect_refusal()?;

    // A subscriber that talks.
    let mut raw = Raw::connect(&address)?;
    let hello = Hello { role: Role::Subscribe, ..publisher(0, 0) };
    raw.send_frame(Frame::Hello(hello), witness.topic.name.as_bytes())?;
    raw.send(&Random::new(3).bytes(FRAME_BYTES))?;
    witness.goes_on()?;
    drop(raw);

    // The pool itself is not for those who come over TCP.
    if rig.transport == landfall::Transport::Tcp {
        let mut raw = Raw::connect(&address)?;
        let hello = Hello { carrier: Carrier::Memory, ..publisher(7, 0) };
        raw.send_frame(Frame::Hello(hello), witness.topic.name.as_bytes())?;
        let (why, _) = raw.expect_refusal()?;
        ensure!(why == Refusal::NotServed, "memory over TCP: {why:?}");
    }
    witness.goes_on()?;
    ensure!(site.counter("refused_total")? >= 14, "what was refused is not counted");
    let errors = site.client.errors()?;
    ensure!(!errors.is_empty(), "nothing that was refused is among the errors that are shown");
    witness.close(&site, &[])?;
    site.close()
}

/// Batches with something wrong in them: refused with the reason, padding left behind, nothing
/// delivered.
pub fn spoiled_batches_are_refused_and_nobody_is_disturbed(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let mut witness = Witness::new(&site)?;
    type Spoil = fn(Batch) -> Batch;
    let spoils: [(Spoil, Refusal, &str); 9] = [
        (|it| it.with(|p| p.magic = PADDING_MAGIC), Refusal::Malformed, "starts with"),
        (|it| it.with(|p| p.version = BATCH_VERSION + 1), Refusal::Version, "version"),
        (|it| it.with(|p| p.encoding = 1), Refusal::BadBatch, "encoding"),
        (|it| it.with(|p| p.codec = 2), Refusal::BadBatch, "codec"),
        (|it| it.with(|p| p.count = 0), Refusal::BadBatch, "no messages"),
        (|it| it.with(|p| p.count = u16::MAX), Refusal::BadBatch, "65535"),
        (|it| it.with(|p| p.payload_bytes = u32::MAX), Refusal::BadBatch, "4294967359"),
        (
            |it| Batch { preamble: BatchPreamble { header_crc: 1, ..it.preamble }, ..it },
            Refusal::BadBatch,
            "checksum",
        ),
        (|it| it.with(|p| p.payload_crc ^= 1), Refusal::BadBatch, "payload checksum"),
    ];
    let mut others = Vec::new();
    for (number, (spoil, expected, part)) in spoils.into_iter().enumerate() {
        let client = 40 + number as u64;
        let mut session = Session::open(&site, 0, &witness.topic, client, 0)?;
        session.send(0..2)?;
        session.receipts(2)?;
        let batch = session.batch(2, &crate::flow::message(client, 2, 5_000));
        session.raw.send(&spoil(batch).bytes())?;
        let (why, sentence) = session.raw.expect_refusal()?;
        ensure!(why == expected, "batch {number}: {why:?} ({sentence})");
        ensure!(sentence.contains(part), "batch {number}: {part:?} is not in {sentence:?}");
        witness.goes_on()?;
        // The session is none the worse for it.
        let epoch = session.welcome.session_epoch;
        let mut again = Session::open(&site, 0, &witness.topic, client, epoch)?;
        ensure!(again.welcome.next_seq == 2, "next is {}", again.welcome.next_seq);
        again.send([2])?;
        again.receipt()?;
        others.push((client, 3));
    }
    // A sequence that goes back on one connection.
    let mut session = Session::open(&site, 0, &witness.topic, 60, 0)?;
    session.send([0, 1, 1])?;
    let (why, _) = session.raw.expect_refusal()?;
    ensure!(why == Refusal::BadBatch, "a sequence that goes back: {why:?}");
    // No receipt says when the two before it are ordered: what the same broker lands later is.
    witness.goes_on()?;
    others.push((60, 2));
    ensure!(site.counter("crc_errors_total")? >= 2, "checksums that fail are not counted");
    witness.close(&site, &others)?;
    site.close()
}

/// Names and settings of topics that cannot be, over HTTP and on the wire.
pub fn odd_topics_are_refused_with_a_sentence(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let good = site.topic(Order::Strong)?;
    let create = |spec: &TopicSpec, status_wanted: u16, part: &str| -> Result<(), Failure> {
        match site.client.create_topic(spec) {
            Err(Error::Control { status, message, .. }) => {
                ensure!(status == status_wanted, "{spec:?}: status {status} ({message})");
                ensure!(message.contains(part), "{spec:?}: {part:?} is not in {message:?}");
                Ok(())
            }
            other => Err(Failure::new(format!("{spec:?}: {other:?}"))),
        }
    };
    let long = "n".repeat(121);
    for (name, part) in [
        ("", "at least one"),
        ("a b", "' '"),
        ("a/b", "'/'"),
        ("..\u{0}", "'\\0'"),
        ("für", "'ü'"),
        ("\u{1f980}", "\u{1f980}"),
        (long.as_str(), "121"),
    ] {
        create(&TopicSpec::new(name, Order::Total), 400, part)?;
    }
    let spec = TopicSpec::new("x", Order::Total);
    create(&TopicSpec { order: "sideways".into(), ..spec.clone() }, 400, "sideways")?;
    create(&TopicSpec { order: "Strong".into(), ..spec.clone() }, 400, "Strong")?;
    create(&TopicSpec { ring_slots: Some(17), ..spec.clone() }, 400, "17")?;
    create(&TopicSpec { ring_slots: Some(1 << 20), ..spec }, 400, "1048576")?;
    create(&TopicSpec::new(good.name.clone(), Order::Strong), 409, &good.name)?;
    ensure!(site.client.topics()?.len() == 1, "something was created");
    for missing in ["nobody", "a%20b", "..", &long] {
        for result in [site.client.topic(missing).map(|_| ()), site.client.delete_topic(missing)] {
            match result {
                Err(Error::Control { status: 400, message, .. }) => {
                    ensure!(!message.is_empty(), "{missing:?}: no sentence");
                }
                Err(Error::NoTopic { topic }) if topic == missing => {}
                other => return Err(Failure::new(format!("{missing:?}: {other:?}"))),
            }
        }
    }
    // A zero byte ends the name: what is behind it says where a subscriber is, and has to be that.
    let nowhere = format!("{}\0somewhere", good.name);
    let (no_topic, malformed) = (Refusal::NoTopic, Refusal::Malformed);
    for (name, refusal) in [
        ("", no_topic),
        ("nobody", no_topic),
        ("a b", no_topic),
        ("\u{0}", malformed),
        (&nowhere, malformed),
        (&long, no_topic),
    ] {
        let mut raw = Raw::connect(&site.address(0)?)?;
        raw.send_frame(Frame::Hello(publisher(3, 0)), name.as_bytes())?;
        let (why, sentence) = raw.expect_refusal()?;
        ensure!(why == refusal, "{name:?}: {why:?} ({sentence})");
    }
    let builder = site.client.publisher("nobody").transport(rig.transport);
    match builder.build() {
        Err(error) => ensure!(error.to_string().contains("nobody"), "{error}"),
        Ok(_) => return Err(Failure::new("a publisher of a topic that is not there")),
    }
    let builder = site.client.subscriber("nobody").transport(rig.transport);
    match builder.build() {
        Err(error) => ensure!(error.to_string().contains("nobody"), "{error}"),
        Ok(_) => return Err(Failure::new("a subscriber of a topic that is not there")),
    }
    // A topic that is deleted while it is used says so to both sides.
    let mut publisher = site.publisher(&good).build()?;
    let mut subscriber = site.subscriber(&good).build()?;
    publish(&mut publisher, 1, 0..10, 100)?;
    publisher.flush()?;
    site.client.delete_topic(&good.name)?;
    let failed = (0..1000).any(|n| {
        std::thread::sleep(Duration::from_millis(5));
        publisher.publish(&crate::flow::message(1, n, 100)).is_err() || publisher.poll().is_err()
    });
    ensure!(failed, "publishing to a deleted topic goes on");
    let deadline = std::time::Instant::now() + crate::rig::patience();
    let told = loop {
        match subscriber.next(Duration::from_millis(50)) {
            Ok(landfall::Event::TopicGone) => break true,
            Err(_) => break true,
            Ok(_) if std::time::Instant::now() > deadline => break false,
            Ok(_) => {}
        }
    };
    ensure!(told, "a subscriber of a deleted topic was told nothing");
    drop((publisher, subscriber));
    site.close()
}

/// Acknowledgement that cannot be given is refused, never weakened.
pub fn levels_that_cannot_be_reached_are_refused(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let topic = site.topic(Order::Strong)?;
    match site.publisher(&topic).ack(Ack::Durable).build() {
        Err(error) => {
            let sentence = error.to_string();
            ensure!(sentence.contains("durable"), "no word of durable in {sentence:?}");
        }
        Ok(_) => return Err(Failure::new("ack durable was accepted without a replica")),
    }
    let mut raw = Raw::connect(&site.address(0)?)?;
    let hello = Hello { ack: Ack::Durable, ..publisher(3, 0) };
    raw.send_frame(Frame::Hello(hello), topic.name.as_bytes())?;
    let (why, sentence) = raw.expect_refusal()?;
    ensure!(why == Refusal::BadAck, "{why:?} ({sentence})");

    // Without receipts nothing is waited for, and everything still arrives.
    let mut publisher = site.publisher(&topic).ack(Ack::None).build()?;
    let ticket = publisher.publish(&crate::flow::message(1, 0, 100))?;
    ensure!(publisher.wait(ticket).is_err(), "a receipt of a publisher that asked for none");
    publish(&mut publisher, 1, 1..300, 100)?;
    publisher.close()?;
    let reading = read(site.subscriber(&topic).build()?, Until::Messages(300))?;
    check_sent(&reading, &[(1, 300)], Promise::InOrderOnce)?;
    match Raw::connect(&site.address(0)?)?.hear(Duration::from_millis(200))? {
        Heard::Nothing => {}
        other => return Err(Failure::new(format!("a silent connection was told {other:?}"))),
    }
    site.close()
}

/// Clients that begin large batches and send no more of them: they hold a part of the pool and are
/// given up in turn, told with numbers, while somebody who publishes and reads notices nothing.
pub fn half_batches_hold_a_part_and_nobody_is_disturbed(rig: &Rig) -> Result<(), Failure> {
    let site = rig.start()?;
    let mut witness = Witness::new(&site)?;
    let topic = site.topic(Order::Total)?;
    let first = Session::open(&site, 0, &topic, 9, 0)?;
    let epoch = first.welcome.session_epoch;
    // More together than the pool has.
    let begun = first.batch(0, &vec![0; 1_900_000]).preamble.to_bytes();
    let mut halves = vec![first];
    for _ in 1..80 {
        halves.push(Session::open(&site, 0, &topic, 9, epoch)?);
    }
    for half in &mut halves {
        half.raw.send(&begun)?;
    }
    let mut others = Vec::new();
    for client in 40..44 {
        witness.goes_on()?;
        let mut publisher = site.publisher(&topic).client_id(client).build()?;
        publish(&mut publisher, client, 0..40, 50_000)?;
        publisher.close()?;
        others.push((client, 40));
    }
    for half in halves.iter_mut().take(3) {
        let (why, sentence) = half.raw.expect_refusal()?;
        ensure!(why == Refusal::Busy && sentence.contains("64 of 19"), "{why:?} ({sentence})");
    }
    drop(halves);
    let reading = read(site.subscriber(&topic).build()?, Until::CaughtUp)?;
    check_sent(&reading, &others, Promise::Once)?;
    witness.close(&site, &[])?;
    site.close()
}
