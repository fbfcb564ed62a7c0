//! Tokens: what a client shows a broker to connect over verbs, once.

use landfall_layout::BrokerId;
use landfall_layout::command::Command;
use landfall_layout::limits::TOKEN_LEASE_NS;
use landfall_pool::bell::Role;

use super::Keeper;
use crate::answers::{Problem, SCHEMA_VERSION, Token, TokenSpec};
use crate::life::Life;
use crate::random::random_uuid;

impl Keeper {
    /// Makes a token and puts it where the broker sees it before the client can show it.
    pub(super) fn issue_token(&mut self, name: &str, spec: TokenSpec) -> Result<Token, Problem> {
        let topic = self.usable_topic(name)?.id;
        let TokenSpec { broker: number } = spec;
        let known = BrokerId::new(number.into())
            .filter(|id| self.brokers[id.index()].life == Life::Live)
            .ok_or_else(|| Problem::missing(format!("no broker {number} serves")))?;
        let verbs = self.pool.broker_address(known).verbs().to_owned();
        if verbs.is_empty() {
            let text = format!("broker {number} has no RDMA; use transport tcp");
            return Err(Problem::conflict("no_rdma", text));
        }
        let random = random_uuid().map_err(|error| {
            Problem::full("no_random", format!("draw a token from /dev/urandom: {error}"))
        })?;
        let token = u128::from_le_bytes(random);
        let outbox = &mut self.brokers[known.index()].outbox;
        outbox.send(Command::Expect { topic, token, lease_ns: TOKEN_LEASE_NS });
        outbox.flush(&self.pool);
        if !outbox.is_empty() {
            let text = format!("broker {number} does not take its commands; try again");
            return Err(Problem::full("broker_behind", text));
        }
        self.ringer.ring(&self.pool, Role::Broker(known));
        Ok(Token {
            schema_version: SCHEMA_VERSION,
            topic: topic.0,
            broker: number,
            token: format!("{token:032x}"),
            verbs,
            expires_ms: TOKEN_LEASE_NS / 1_000_000,
        })
    }
}
