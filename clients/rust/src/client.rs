//! The door: control's HTTP API, and builders for publishers and subscribers.

use std::time::Duration;

use serde::Deserialize;

use crate::api;
use crate::error::Error;
use crate::http::{Door, Method};
use crate::publisher::PublisherBuilder;
use crate::subscriber::SubscriberBuilder;

/// Talks to control. Cheap to clone; nothing is sent before a method that needs an answer.
#[derive(Clone, Debug)]
pub struct Client {
    door: Door,
}

#[derive(Deserialize)]
struct Topics {
    topics: Vec<api::Topic>,
}

#[derive(Deserialize)]
struct Processes {
    processes: Vec<api::ProcessCounters>,
}

#[derive(Deserialize)]
struct Errors {
    errors: Vec<api::ProcessError>,
}

#[derive(Deserialize)]
struct Deleted {
    #[allow(dead_code, reason = "its presence is what is checked")]
    deleted: String,
}

#[derive(Deserialize)]
struct Forgotten {
    #[allow(dead_code, reason = "its presence is what is checked")]
    forgotten: u8,
}

impl Client {
    /// A client of the control at `http://HOST:PORT`, `HOST:PORT`, `unix:PATH` or `unix:@NAME`, or
    /// at several of these with commas between them: whichever leads is asked. One that stands by
    /// says who leads, if it knows, and is followed. Only the addresses are checked; nothing is
    /// sent.
    pub fn new(control: &str) -> Result<Self, Error> {
        Ok(Self { door: Door::new(control, Duration::from_secs(30))? })
    }

    /// The address, as it was given.
    pub fn address(&self) -> &str {
        self.door.address()
    }

    /// The same, which waits no longer than `timeout` for control's answers.
    pub(crate) fn within(&self, timeout: Duration) -> Self {
        Self { door: self.door.within(timeout) }
    }

    /// Whether control serves.
    pub fn health(&self) -> Result<api::Health, Error> {
        self.door.ask(Method::Get, "/v1/health", None)
    }

    /// The same, asked for so long at most.
    pub fn health_within(&self, timeout: Duration) -> Result<api::Health, Error> {
        self.within(timeout).health()
    }

    /// The pool and its brokers.
    pub fn cluster(&self) -> Result<api::Cluster, Error> {
        self.door.ask(Method::Get, "/v1/cluster", None)
    }

    /// Makes a topic.
    pub fn create_topic(&self, spec: &api::TopicSpec) -> Result<api::Topic, Error> {
        let body =
            serde_json::to_vec(spec).expect("a struct of strings and numbers always becomes JSON");
        self.door.ask(Method::Post, "/v1/topics", Some(&body))
    }

    /// All topics.
    pub fn topics(&self) -> Result<Vec<api::Topic>, Error> {
        Ok(self.door.ask::<Topics>(Method::Get, "/v1/topics", None)?.topics)
    }

    /// One topic.
    pub fn topic(&self, name: &str) -> Result<api::Topic, Error> {
        let topic = self.door.ask(Method::Get, &topic_path(name), None);
        topic.map_err(|error: Error| error.of_topic(name))
    }

    /// Deletes a topic; comes back once nothing of it is left.
    pub fn delete_topic(&self, name: &str) -> Result<(), Error> {
        let deleted = self.door.ask::<Deleted>(Method::Delete, &topic_path(name), None);
        deleted.map(drop).map_err(|error| error.of_topic(name))
    }

    /// Forgets a broker that died and that nothing of the pool is on.
    pub fn forget_broker(&self, number: u8) -> Result<(), Error> {
        self.door.ask::<Forgotten>(Method::Delete, &format!("/v1/brokers/{number}"), None)?;
        Ok(())
    }

    /// The right to open one connection over verbs, for `topic`, to `broker`.
    pub fn token(&self, topic: &str, broker: u8) -> Result<api::Token, Error> {
        let path = format!("{}/tokens", topic_path(topic));
        let body = format!("{{\"broker\":{broker}}}");
        self.door.ask(Method::Post, &path, Some(body.as_bytes()))
    }

    /// Counters and latencies of every process.
    pub fn counters(&self) -> Result<Vec<api::ProcessCounters>, Error> {
        Ok(self.door.ask::<Processes>(Method::Get, "/v1/counters", None)?.processes)
    }

    /// Distinct errors of every process.
    pub fn errors(&self) -> Result<Vec<api::ProcessError>, Error> {
        Ok(self.door.ask::<Errors>(Method::Get, "/v1/errors", None)?.errors)
    }

    /// A publisher for `topic`, to be set up and built.
    pub fn publisher(&self, topic: &str) -> PublisherBuilder {
        PublisherBuilder::new(self.clone(), topic)
    }

    /// A subscriber of `topic`, to be set up and built.
    pub fn subscriber(&self, topic: &str) -> SubscriberBuilder {
        SubscriberBuilder::new(self.clone(), topic)
    }
}

/// The path of a topic, its name escaped: what it may be is control's to judge.
fn topic_path(name: &str) -> String {
    let mut path = String::from("/v1/topics/");
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            path.push(byte.into());
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_path() {
        assert_eq!(topic_path("a.b-c_9"), "/v1/topics/a.b-c_9");
        assert_eq!(topic_path("a/../b?c d"), "/v1/topics/a%2F..%2Fb%3Fc%20d");
    }
}
