//! Tokens: what a client shows a broker to connect over verbs, once.

use std::collections::VecDeque;
use std::net::IpAddr;

use landfall_layout::BrokerId;
use landfall_layout::command::Command;
use landfall_layout::limits::{TOKEN_LEASE_NS, TOKENS_MAX};
use landfall_pool::bell::Role;

use super::Keeper;
use crate::answers::{Problem, SCHEMA_VERSION, Token, TokenSpec};
use crate::life::Life;
use crate::random::random_uuid;

/// A broker keeps a token for as long behind its lease as before.
const KEPT_NS: u64 = 2 * TOKEN_LEASE_NS;
/// Of the tokens that a broker keeps, those that one host may have.
const TOKENS_OF_ONE: usize = TOKENS_MAX / 2;

/// The tokens that brokers keep, whether they were shown or not: what is issued beyond what a
/// broker keeps would open nothing for those who asked before.
#[derive(Debug, Default)]
pub(super) struct Issued(VecDeque<Of>);

#[derive(Clone, Copy, Debug)]
struct Of {
    broker: BrokerId,
    /// Who asked; nothing of those on this host who come by a socket's path.
    host: Option<IpAddr>,
    until_ns: u64,
}

impl Issued {
    /// Takes note of one more.
    ///
    /// # Errors
    ///
    /// How many there are, and may be: of that host's, or of all.
    fn add(
        &mut self,
        broker: BrokerId,
        host: Option<IpAddr>,
        now_ns: u64,
    ) -> Result<(), (usize, usize)> {
        while self.0.pop_front_if(|first| first.until_ns < now_ns).is_some() {}
        let here = self.0.iter().filter(|of| of.broker == broker);
        let (all, own) =
            here.fold((0, 0), |(all, own), of| (all + 1, own + usize::from(of.host == host)));
        if all >= TOKENS_MAX || own >= TOKENS_OF_ONE {
            return Err(if own >= TOKENS_OF_ONE {
                (own, TOKENS_OF_ONE)
            } else {
                (all, TOKENS_MAX)
            });
        }
        self.0.push_back(Of { broker, host, until_ns: now_ns.saturating_add(KEPT_NS) });
        Ok(())
    }
}

impl Keeper {
    /// Makes a token for a client on `host` and puts it where the broker sees it before the client
    /// can show it.
    pub(super) fn issue_token(
        &mut self,
        name: &str,
        spec: TokenSpec,
        host: Option<IpAddr>,
    ) -> Result<Token, Problem> {
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
        let now_ns = self.clock_ns();
        self.tokens.add(known, host, now_ns).map_err(|(are, may)| {
            Problem::full(
                "many_tokens",
                format!(
                    "{are} tokens were issued for broker {number} within {} s, and {may} may be, \
                     {TOKENS_OF_ONE} of them to one host; try again in a moment",
                    KEPT_NS / 1_000_000_000
                ),
            )
        })?;
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

#[cfg(test)]
mod tests {
    use super::*;

    fn host(last: u8) -> Option<IpAddr> {
        Some(IpAddr::from([10, 0, 0, last]))
    }

    #[test]
    fn one_host_takes_half_and_all_take_what_a_broker_keeps() {
        let [one, two] = [0, 1].map(|broker| BrokerId::new(broker).unwrap());
        let mut issued = Issued::default();
        for _ in 0..TOKENS_OF_ONE {
            issued.add(one, host(1), 5).unwrap();
        }
        assert_eq!(issued.add(one, host(1), 5), Err((TOKENS_OF_ONE, TOKENS_OF_ONE)));
        issued.add(two, host(1), 5).unwrap();
        for at in 0..TOKENS_MAX - TOKENS_OF_ONE {
            issued.add(one, host(2 + (at % 8) as u8), 6).unwrap();
        }
        assert_eq!(issued.add(one, None, 6), Err((TOKENS_MAX, TOKENS_MAX)));
        assert_eq!(issued.add(one, None, 5 + KEPT_NS), Err((TOKENS_MAX, TOKENS_MAX)));
        issued.add(one, None, 6 + KEPT_NS).unwrap();
        issued.add(one, host(1), 6 + KEPT_NS).unwrap();
    }
}
