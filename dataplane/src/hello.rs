//! The first frame of a connection: heard whole, and judged by what it asks for.

use std::os::linux::net::SocketAddrExt;

use landfall_layout::TopicId;
use landfall_layout::frame::{
    Ack, FRAME_BYTES, Frame, FrameError, Hello, HelloTail, LogPlace, Refusal, TAIL_BYTES_MAX,
};
use landfall_layout::full::Full;
use landfall_layout::limits::TOPICS_MAX;
use landfall_layout::topic::{Order, TopicEntry, TopicState, check_name};
use landfall_pool::clock::boot_ns;
use landfall_pool::owner::check_client;
use landfall_replica::Silent;

use crate::conn::Socket;
use crate::env::Env;

/// A handshake ends within this time.
pub const HANDSHAKE_NS: u64 = 5_000_000_000;

/// A connection that is not a publisher or subscriber yet.
pub struct Greeting {
    bytes: [u8; FRAME_BYTES + TAIL_BYTES_MAX],
    have: usize,
    pub deadline_ns: u64,
    pub stage: Stage,
    /// Where a subscriber goes on.
    pub places: Vec<LogPlace>,
}

#[derive(Clone, Copy)]
pub enum Stage {
    /// Its `Hello` is not whole.
    Reading,
    /// The topic's ring at this broker is being made; the pool was last said to be full with so
    /// many segments free, of so many.
    Ring { hello: Hello, topic: TopicId, full: Option<(u32, u32)> },
    /// Its first batch is looked for in replica files.
    Files { hello: Hello, topic: TopicId },
    /// Its session is being opened.
    Session { hello: Hello, topic: TopicId, request: u64 },
}

/// What a refused client is told.
pub struct Refused {
    pub why: Refusal,
    pub sentence: String,
}

pub fn refused<T>(why: Refusal, sentence: impl Into<String>) -> Result<T, Refused> {
    Err(Refused { why, sentence: sentence.into() })
}

/// Whether the `Hello` is whole, and what it says.
pub enum Heard {
    More,
    Ended,
    Whole(Hello, String),
}

impl Greeting {
    pub fn new() -> Self {
        Self {
            bytes: [0; FRAME_BYTES + TAIL_BYTES_MAX],
            have: 0,
            deadline_ns: boot_ns() + HANDSHAKE_NS,
            stage: Stage::Reading,
            places: Vec::new(),
        }
    }

    pub fn topic(&self) -> Option<TopicId> {
        match self.stage {
            Stage::Reading => None,
            Stage::Ring { topic, .. }
            | Stage::Files { topic, .. }
            | Stage::Session { topic, .. } => Some(topic),
        }
    }

    /// Whether it waits for control, so that nothing is read from it.
    pub fn is_asking(&self) -> bool {
        !matches!(self.stage, Stage::Reading)
    }

    /// What a client is told whose handshake took too long. `silent`: this broker's own directory,
    /// where that does not answer.
    pub fn overdue(&self, silent: Option<Silent>) -> Refused {
        let seconds = HANDSHAKE_NS / 1_000_000_000;
        let (why, sentence) = match self.stage {
            Stage::Reading => (
                Refusal::Malformed,
                format!("no whole Hello came within {seconds} s: {} bytes did", self.have),
            ),
            Stage::Ring { full: Some((free, of)), .. } => (
                Refusal::NoControl,
                format!(
                    "{}, and the topic's ring at this broker needs one: delete a topic, or make \
                     the pool larger",
                    Full { free, of }
                ),
            ),
            Stage::Ring { .. } => (
                Refusal::NoControl,
                format!("control gave this broker no ring for the topic within {seconds} s"),
            ),
            Stage::Files { .. } => (
                Refusal::Busy,
                format!("the first batch was not found in replica files within {seconds} s")
                    + &silent.map_or_else(String::new, |silent| format!(": {silent}")),
            ),
            Stage::Session { .. } => {
                (Refusal::NoControl, format!("control did not open the session within {seconds} s"))
            }
        };
        Refused { why, sentence }
    }

    /// Reads exactly the frame and its tail: what is behind them belongs to the next stage.
    pub fn hear(&mut self, socket: &mut Socket) -> Result<Heard, Refused> {
        loop {
            let need = match self.have {
                0..FRAME_BYTES => FRAME_BYTES,
                _ => FRAME_BYTES + self.tail_bytes()?,
            };
            if self.have == need {
                return self.understand();
            }
            match socket.recv(&mut self.bytes[self.have..need]) {
                Ok(0) => return Ok(Heard::Ended),
                Ok(got) => self.have += got,
                Err(error) => match error.kind() {
                    std::io::ErrorKind::WouldBlock => return Ok(Heard::More),
                    std::io::ErrorKind::Interrupted => {}
                    _ => return Ok(Heard::Ended),
                },
            }
        }
    }

    fn decode(&self) -> Result<(Frame, usize), Refused> {
        let mut head = [0; FRAME_BYTES];
        head.copy_from_slice(&self.bytes[..FRAME_BYTES]);
        Frame::decode(head).or_else(|error| {
            let why = match error {
                FrameError::Version { .. } => Refusal::Version,
                _ => Refusal::Malformed,
            };
            refused(why, error.to_string())
        })
    }

    fn tail_bytes(&self) -> Result<usize, Refused> {
        self.decode().map(|(_, tail)| tail)
    }

    fn understand(&mut self) -> Result<Heard, Refused> {
        let (frame, tail) = self.decode()?;
        let Frame::Hello(hello) = frame else {
            return refused(
                Refusal::Malformed,
                format!("a connection begins with Hello; found {frame:?}"),
            );
        };
        match HelloTail::decode(&self.bytes[FRAME_BYTES..FRAME_BYTES + tail]) {
            Ok(HelloTail { topic, places }) => {
                self.places = places;
                Ok(Heard::Whole(hello, topic))
            }
            Err(error) => refused(Refusal::Malformed, error.to_string()),
        }
    }
}

/// The entry of the topic a client names, and its order. That there is none is not said by the
/// table of a leader that another has claimed the lead from: whoever asks again finds out.
pub fn find_topic(env: &Env, name: &str) -> Result<(TopicEntry, Order), Refused> {
    let epoch = env.pool.epoch_number();
    let found = find_in_table(env, name);
    let is_final = |refused: &Refused| !matches!(refused.why, Refusal::NoControl);
    if found.as_ref().is_err_and(is_final) && !env.pool.leads(epoch) {
        return refused(Refusal::NoControl, "another control is taking the lead; try again");
    }
    found
}

fn find_in_table(env: &Env, name: &str) -> Result<(TopicEntry, Order), Refused> {
    if let Err(error) = check_name(name) {
        return refused(Refusal::NoTopic, error.to_string());
    }
    let entries = || (0..TOPICS_MAX).filter_map(|slot| env.pool.topic_in_slot(slot));
    let Some(entry) =
        entries().find(|entry| entry.state() != TopicState::Absent && entry.name() == name)
    else {
        if env.pool.epoch_number() == 0 {
            // A pool that is being made may be about to get its topics back: whoever asks again
            // finds out, where one that heard of no such topic would give up.
            return refused(Refusal::NoControl, "no control has served this pool yet; try again");
        }
        let near = entries()
            .filter(|entry| entry.state() == TopicState::Live)
            .map(|entry| (distance(name, entry.name()), entry.name().to_owned()))
            .filter(|(distance, near)| *distance <= 2.max(near.len() / 3))
            .min();
        let hint = near.map_or_else(String::new, |(_, near)| format!("; did you mean {near:?}?"));
        return refused(Refusal::NoTopic, format!("there is no topic {name:?}{hint}"));
    };
    if entry.state() != TopicState::Live {
        return refused(Refusal::TopicGone, format!("topic {name:?} is being deleted"));
    }
    usable(&entry, name).map(|order| (entry, order))
}

/// The topic's order, if this broker can serve it.
pub fn usable(entry: &TopicEntry, name: &str) -> Result<Order, Refused> {
    match entry.order() {
        None => refused(
            Refusal::NotServed,
            format!("topic {name:?} has order {}, which this broker cannot serve", entry.order),
        ),
        Some(order) => Ok(order),
    }
}

/// Edit distance, for names that were mistyped.
fn distance(left: &str, right: &str) -> usize {
    let mut row: Vec<usize> = (0..=right.len()).collect();
    for (i, a) in left.bytes().enumerate() {
        let mut corner = std::mem::replace(&mut row[0], i + 1);
        for (j, b) in right.bytes().enumerate() {
            let swap = corner + usize::from(a != b);
            corner = row[j + 1];
            row[j + 1] = swap.min(row[j] + 1).min(corner + 1);
        }
    }
    row[right.len()]
}

/// A publisher's wishes that no topic can meet.
pub fn check_publisher(hello: &Hello, entry: &TopicEntry) -> Result<(), Refused> {
    if hello.client == 0 {
        return refused(Refusal::Malformed, "client id 0 names nobody; choose another");
    }
    if hello.ack == Ack::Durable && entry.disk_replicas() == 0 {
        return refused(
            Refusal::BadAck,
            format!(
                "ack durable needs a copy on a disk: create the topic with 2 replicas or more, or \
                 publish with ack ordered; topic {:?} keeps {}, in the pool",
                entry.name(),
                entry.replicas.max(1)
            ),
        );
    }
    Ok(())
}

/// Whether a connection may use the pool itself.
pub fn check_memory(socket: &Socket) -> Result<(), Refused> {
    let Socket::Unix(stream) = socket else {
        return refused(
            Refusal::NotServed,
            "the memory transport needs the broker's Unix socket; over TCP use transport tcp",
        );
    };
    let here = stream.local_addr().map(|here| match here.as_abstract_name() {
        Some(name) => format!("@{}", String::from_utf8_lossy(name)),
        None => String::new(),
    });
    here.and_then(|address| check_client(stream, &address))
        .map_err(|error| Refused { why: Refusal::NotServed, sentence: error.to_string() })
}

#[cfg(test)]
mod tests {
    use landfall_layout::pool::{LeaderLine, Term};

    use super::*;

    #[test]
    fn nothing_is_known_of_topics_before_a_control_served_the_pool() {
        let pool = crate::rig::pool();
        let me = landfall_layout::BrokerId::new(0).expect("0 is below the bound");
        let env = Env::new(pool, me, 1).expect("the pool's own file opens again");
        let why = |found: Result<_, Refused>| found.map(|_| ()).map_err(|refused| refused.why);
        assert_eq!(why(find_topic(&env, "t")), Err(Refusal::NoControl));
        let term = Term { epoch: 1, serves: false }.pack();
        let line = LeaderLine { term, pid: 1, host: 1, started_ns: 1, ..LeaderLine::default() };
        let control = || {
            let file = std::fs::File::from(env.pool.fd().try_clone_to_owned().expect("it is open"));
            let path = std::path::Path::new("the pool");
            landfall_pool::Pool::attach_file(file, path, true).expect("it is a pool")
        };
        let (leads, next) = (control(), control());
        assert!(leads.claim(0, &line) && leads.serve(1));
        assert_eq!(why(find_topic(&env, "t")), Err(Refusal::NoTopic));
        // The next leader may have a topic in its table that this one has not any more.
        let term = Term { epoch: 2, serves: false }.pack();
        assert!(next.claim(1, &LeaderLine { term, ..line }));
        assert_eq!(why(find_topic(&env, "t")), Err(Refusal::NoControl));
    }

    #[test]
    fn distances_are_edits() {
        assert_eq!(distance("orders", "orders"), 0);
        assert_eq!(distance("order", "orders"), 1);
        assert_eq!(distance("odrers", "orders"), 2);
        assert_eq!(distance("", "abc"), 3);
    }
}
