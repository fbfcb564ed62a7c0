//! Connecting, and what a lost connection or a fenced session costs: everything without a receipt
//! is gathered, a new epoch is opened, and the rest is sealed and sent again in order.

use std::cell::Cell;
use std::sync::Arc;
use std::time::{Duration, Instant};

use landfall_layout::batch::{MESSAGE_HEADER_BYTES, PREAMBLE_BYTES, crc32c};
use landfall_layout::frame::{Ack, From, Hello, Reached, Role, Welcome};
use landfall_layout::session::is_same_life;
use landfall_layout::topic::Order;
use landfall_layout::verbs::{FRAME_RING_LINES, Intent};
use landfall_pool::Pool;

use super::batch::Filler;
use super::drive::Trouble;
use super::link::{Link, Purpose};
use super::memory::read_back;
use super::receipts::LANES;
use super::session::{Bytes, Location};
use super::{Dealt, Publisher};
use crate::error::Error;
use crate::route::{Opened, is_final, may_pass};
use crate::verbs::dial::Wants;

/// What could not be read back.
#[derive(Default)]
struct Losses {
    batches: u64,
    messages: u64,
    first_seq: Option<u64>,
    why: String,
}

impl Losses {
    fn add(&mut self, messages: u64, seq: Option<u64>, why: String) {
        self.batches += 1;
        self.messages += messages;
        self.first_seq = self.first_seq.or(seq);
        self.why = why;
    }
}

impl Publisher {
    /// The first connection. A broker that is just dying or not quite there is tried again for
    /// as long as the timeout allows; what will not change fails at once.
    pub(super) fn connect_first(&mut self) -> Result<(), Error> {
        let deadline = Instant::now() + self.setup.timeout;
        loop {
            let error = match self.dial() {
                Ok(welcome) => {
                    self.session.go_on_at(welcome.next_seq);
                    self.began_at = welcome.next_seq;
                    return Ok(());
                }
                Err(error) => error,
            };
            let delay = self.reconnects.next_delay();
            if !may_pass(&error) || Instant::now() + delay >= deadline {
                return Err(error);
            }
            std::thread::sleep(delay);
        }
    }

    /// Deals with trouble: an error only when nothing helps.
    pub(super) fn suffer(&mut self, trouble: Trouble) -> Result<(), Error> {
        let result = match trouble {
            Trouble::Fatal(error) => Err(error),
            Trouble::Lost(error) => self.lose(error.to_string()),
            Trouble::Fenced => {
                let now = self.links.iter().find_map(|link| link.memory()?.session_epoch_now());
                match now {
                    // A hello that nobody answered may be heard late, by a broker that was stopped.
                    Some(now)
                        if is_same_life(self.epoch, now)
                            && now > self.epoch.saturating_add(self.hellos) =>
                    {
                        Err(self.superseded(self.epoch, now))
                    }
                    _ => self.lose(format!("session epoch {} was fenced", self.epoch)),
                }
            }
        };
        result.map_err(|error| self.fail(error))
    }

    fn superseded(&self, epoch: u32, now: u32) -> Error {
        Error::Superseded { client: self.setup.client_id, epoch, now }
    }

    /// Nothing more is taken after this.
    pub(super) fn fail(&mut self, error: Error) -> Error {
        self.failed = Some(error.to_string());
        self.links.clear();
        error
    }

    pub(super) fn check_failed(&self) -> Result<(), Error> {
        match &self.failed {
            None => Ok(()),
            Some(why) => Err(Error::Failed { why: why.clone() }),
        }
    }

    /// Brings everything without a receipt into private memory and lets go of the connections.
    fn lose(&mut self, why: String) -> Result<(), Error> {
        let mut losses = Losses::default();
        let pool = self.links.iter().find_map(|link| Some(Arc::clone(&link.memory()?.pool)));
        if let Some(pool) = pool {
            self.gather_sealed(&pool, &mut losses);
            self.gather_filled(&pool, &mut losses);
            self.gather_open(&pool, &mut losses);
        }
        self.lost_broker = self.links.first().map(|link| link.broker);
        self.links.clear();
        self.session.nothing_is_sent();
        self.forget_positions();
        self.session.resend();
        self.retry_at = Instant::now() + self.reconnects.next_delay();
        if losses.batches > 0 {
            let Losses { batches, messages, first_seq, why: lost } = losses;
            return Err(Error::Lost {
                batches,
                messages,
                first_seq,
                why: format!("{why}; {lost}"),
            });
        }
        self.down_why = Some(why);
        Ok(())
    }

    fn gather_sealed(&mut self, pool: &Pool, losses: &mut Losses) {
        let seqs: Vec<u64> = self.session.unsettled().collect();
        for seq in seqs {
            let Some(batch) = self.session.get_mut(seq) else { continue };
            let filled = &mut batch.filled;
            if let Bytes::Extent(location) = filled.bytes {
                match recover(pool, location, filled.payload_bytes, filled.payload_crc) {
                    Ok(buffer) => filled.bytes = Bytes::Buffer(buffer),
                    Err(why) => losses.add(filled.count.into(), Some(seq), why),
                }
            }
        }
    }

    fn gather_filled(&mut self, pool: &Pool, losses: &mut Losses) {
        for filled in self.lanes.iter_mut().flat_map(|lane| &mut lane.filled) {
            if let Bytes::Extent(location) = filled.bytes {
                match recover(pool, location, filled.payload_bytes, filled.payload_crc) {
                    Ok(buffer) => filled.bytes = Bytes::Buffer(buffer),
                    Err(why) => losses.add(filled.count.into(), None, why),
                }
            }
        }
    }

    /// Open batches stay open, in private memory from now on.
    fn gather_open(&mut self, pool: &Pool, losses: &mut Losses) {
        for lane in 0..LANES {
            // It would keep the pool mapped.
            self.lanes[lane].spare_filler = None;
            let Some(mut open) = self.lanes[lane].open.take() else { continue };
            let (placed, filler) = match open.filler {
                Filler::Streamed(streamed) => (Some(streamed.finish()), None),
                Filler::Extent(mut filler) => (Some(filler.finish()), None),
                own @ (Filler::Buffer(_) | Filler::Slab(_)) => (None, Some(own)),
            };
            open.filler = filler.unwrap_or(Filler::Buffer(Vec::new()));
            if let Some((crc, spot)) = placed {
                match recover(pool, spot.location, open.payload_bytes as u32, crc) {
                    Ok(buffer) => open.filler = Filler::Buffer(buffer),
                    Err(why) => {
                        losses.add(open.count.into(), None, why);
                        continue;
                    }
                }
            }
            self.lanes[lane].open = Some(open);
        }
    }

    /// Time until the next attempt to connect.
    pub(super) fn until_retry(&self) -> Duration {
        self.retry_at.saturating_duration_since(Instant::now())
    }

    /// One attempt, if its time has come. Whether there is a connection now.
    pub(super) fn reconnect_if_due(&mut self) -> Result<bool, Error> {
        if !self.until_retry().is_zero() {
            return Ok(false);
        }
        let (before, pool) = (self.epoch, self.pool_uuid.clone());
        match self.dial() {
            Ok(welcome) => {
                let is_same_pool = self.pool_uuid == pool;
                self.resume(before, is_same_pool, &welcome).map_err(|e| self.fail(e))?;
            }
            Err(error) if is_final(&error) => {
                let error = self.named(error);
                return Err(self.fail(error));
            }
            Err(error) => {
                self.down_why = Some(error.to_string());
                self.retry_at = Instant::now() + self.reconnects.next_delay();
                return Ok(false);
            }
        }
        self.reconnects.reset();
        self.stats.reconnects += 1;
        self.down_why = None;
        self.moves += 1;
        Ok(true)
    }

    /// Where the session goes on after a reconnect. `before` is the epoch that it had.
    fn resume(&mut self, before: u32, is_same_pool: bool, welcome: &Welcome) -> Result<(), Error> {
        // Each hello that opens an epoch makes one; more were made by somebody else. A line that
        // went to another client and came back says nothing of that.
        if is_same_life(before, welcome.session_epoch) {
            if welcome.session_epoch > before.saturating_add(self.hellos) {
                return Err(self.superseded(before, welcome.session_epoch));
            }
            self.hellos -= welcome.session_epoch.saturating_sub(before);
        } else {
            self.hellos = self.hellos.saturating_sub(1);
        }
        let is_checked = matches!(self.order, Order::Strong | Order::Stream);
        if is_checked && welcome.next_seq > self.session.next_seq() {
            return Err(self.superseded(before, welcome.session_epoch));
        }
        if is_checked && is_same_pool && is_forgotten(before, welcome) {
            self.check_nothing_sent()?;
        }
        if is_checked && !is_same_pool && !welcome.is_own {
            self.begin_anew(before, welcome)?;
        }
        // Only `strong` says with a sequence that all below it are ordered. In `stream` a batch of
        // another broker may be missing there: what has no receipt is sent again, and the
        // sequencer knows of each whether it is in the log. So it is in `strong` where ordered is
        // less than was asked for: the broker says of the copy when the one before it is durable.
        if self.order == Order::Strong {
            let end = if self.setup.ack == Ack::Durable { 0 } else { welcome.next_seq };
            let done: Vec<u64> = self.session.unsettled().take_while(|seq| *seq < end).collect();
            for seq in done {
                self.settle(seq, Reached::Ordered, None, 0);
            }
            // Settled ones from there on did not arrive where no receipts were asked for, or went
            // with the pool: what comes next takes their place, or it would wait for them for ever.
            self.session.go_on_at(welcome.next_seq);
        }
        self.session.resend();
        Ok(())
    }

    /// The pool is another one, and what came last of this client id on any disk is another
    /// publisher's, or nothing. So nothing of this one is in the log, and what has no receipt is
    /// sent again: where sequences say so, and nothing let go of what was there.
    fn begin_anew(&mut self, before: u32, welcome: &Welcome) -> Result<(), Error> {
        // Whoever had the client id before it landed nothing from its first sequence on.
        let is_behind = welcome.next_seq > self.began_at;
        // A line that another client had in this pool has forgotten what the disks had.
        let is_new = welcome.next_seq > 0 || is_same_life(welcome.session_epoch, 1);
        if is_behind || welcome.has_bounds || !is_new {
            self.check_nothing_sent()?;
        }
        if is_behind {
            return Err(self.superseded(before, welcome.session_epoch));
        }
        self.began_at = welcome.next_seq;
        Ok(())
    }

    /// What has no receipt may be in the log, and would be ordered once more.
    fn check_nothing_sent(&self) -> Result<(), Error> {
        let sent: Vec<u64> = self.session.unsettled().collect();
        let (Some(first), Some(last)) = (sent.first(), sent.last()) else { return Ok(()) };
        let (first_seq, last_seq) = (*first, *last);
        let count = |seq| self.session.get(seq).map_or(0, |batch| batch.filled.count.into());
        Err(Error::Doubtful {
            client: self.setup.client_id,
            batches: sent.len() as u64,
            messages: sent.iter().map(|seq| count(*seq)).sum::<u64>(),
            first_seq,
            last_seq,
        })
    }

    /// The topic that is there is another one: what has no receipt is not in it.
    fn made_again(&self) -> Error {
        let sealed = self.session.unsettled().filter_map(|seq| self.session.get(seq));
        let filled = self.lanes.iter().flat_map(|lane| &lane.filled);
        let counts = sealed.map(|batch| &batch.filled).chain(filled).map(|it| it.count.into());
        let open = self.lanes.iter().filter_map(|lane| lane.open.as_ref());
        let counts: Vec<u64> = counts.chain(open.map(|it| it.count.into())).collect();
        Error::MadeAgain {
            topic: self.setup.topic.clone(),
            batches: counts.len() as u64,
            messages: counts.iter().sum(),
        }
    }

    /// Opens connections: one, or one to each live broker.
    fn dial(&mut self) -> Result<Welcome, Error> {
        self.route.refresh(self.setup.timeout)?;
        let turn = self.setup.client_id.wrapping_add(self.reconnects.attempts().into());
        let candidates = self.route.candidates(turn, self.lost_broker);
        let mut links: Vec<Link> = Vec::new();
        let mut first: Option<Welcome> = None;
        let mut attempts = Vec::new();
        let hellos = Cell::new(self.hellos);
        for broker in &candidates {
            let epoch = first.map_or(0, |welcome| welcome.session_epoch);
            let hello = |carrier| Hello {
                role: Role::Publish,
                carrier,
                ack: self.setup.ack,
                client: self.setup.client_id,
                session_epoch: epoch,
                life: self.life,
                comes_back: self.topic.is_some(),
                from: From::Earliest,
                checked: false,
            };
            // Whoever heard it may have opened an epoch, whatever became of the connection.
            let said = || hellos.set(hellos.get() + u32::from(epoch == 0));
            let known = links.iter().find_map(|link| Some(Arc::clone(&link.memory()?.pool)));
            let wants = Wants {
                places: &[],
                intent: Intent::Publish,
                grant: self.setup.grant,
                ring_lines: FRAME_RING_LINES,
                arena: Some(&self.store.arena),
                landing: None,
            };
            let opened =
                self.route.open(broker, hello, said, &wants, self.setup.timeout, |accepted| {
                    let welcome = accepted.welcome;
                    if self.topic.is_some() && self.made_ns != welcome.created_ns {
                        return Err(self.made_again());
                    }
                    check_welcome(broker.broker, &welcome, self.setup.ack)?;
                    let purpose = Purpose {
                        ack: self.setup.ack,
                        known: known.as_ref(),
                        store: &self.store,
                        batch_bytes: self.setup.batch_bytes,
                    };
                    Ok((Link::new(broker.broker, accepted, purpose)?, welcome))
                });
            match opened {
                Ok(Opened::Yes((link, welcome))) => {
                    first.get_or_insert(welcome);
                    links.push(link);
                    if !self.setup.spread {
                        break;
                    }
                }
                Ok(Opened::Fenced(now)) if epoch == 0 => {
                    return Err(self.superseded(self.epoch, now));
                }
                Ok(Opened::Fenced(_)) => attempts.push(Error::Unexpected {
                    broker: broker.broker,
                    what: format!("session epoch {epoch} is over already"),
                }),
                Err(error) if is_final(&error) => {
                    self.hellos = hellos.get();
                    return Err(error);
                }
                Err(error) => attempts.push(error),
            }
        }
        self.hellos = hellos.get();
        let Some(welcome) = first else { return Err(self.route.nobody(attempts)) };
        self.adopt(&welcome)?;
        self.links = links;
        (self.next_link, self.dealt) = (0, Dealt::default());
        Ok(welcome)
    }

    /// Takes over what the broker said of topic and session.
    fn adopt(&mut self, welcome: &Welcome) -> Result<(), Error> {
        let order = Order::from_raw(welcome.order).expect("the welcome was checked");
        if self.setup.batch_bytes > welcome.batch_bytes_max {
            let why = format!(
                "{} bytes; this pool takes at most {}",
                self.setup.batch_bytes, welcome.batch_bytes_max
            );
            return Err(Error::Setting { setting: "batch_bytes", why });
        }
        if self.topic.is_none() {
            // Whatever the epoch was before, one hello made this one.
            self.hellos = self.hellos.saturating_sub(1);
        }
        (self.topic, self.made_ns) = (Some(welcome.topic), welcome.created_ns);
        self.pool_uuid.clone_from(&self.route.pool_uuid);
        self.order = order;
        self.epoch = welcome.session_epoch;
        self.batch_bytes_max = welcome.batch_bytes_max;
        Ok(())
    }
}

/// Whether the line that the session has now knows nothing of what was ordered of it before: it is
/// another line, or the same one after another client had it.
fn is_forgotten(before: u32, welcome: &Welcome) -> bool {
    let now = welcome.session_epoch;
    // A line that is given to a client begins a life; so no line goes on at or below an epoch of
    // its own.
    !is_same_life(before, now) || (now <= before && welcome.next_seq == 0)
}

fn check_welcome(broker: u8, welcome: &Welcome, ack: Ack) -> Result<(), Error> {
    let least = PREAMBLE_BYTES + MESSAGE_HEADER_BYTES as u32;
    let what = if Order::from_raw(welcome.order).is_none() {
        format!("its topic has order {}, which this program does not know", welcome.order)
    } else if welcome.batch_bytes_max < least {
        format!("takes batches of {} bytes; a message needs {least}", welcome.batch_bytes_max)
    } else if welcome.in_flight_max == 0 && ack != Ack::None {
        "takes no batch before it has sent the receipt for it".to_owned()
    } else {
        return Ok(());
    };
    Err(Error::Unexpected { broker, what })
}

/// Reads a payload back and makes sure that it is what was written.
fn recover(
    pool: &Pool,
    location: Location,
    payload_bytes: u32,
    payload_crc: u32,
) -> Result<Vec<u8>, String> {
    let buffer = read_back(pool, location, payload_bytes)?;
    let found = crc32c(&buffer[PREAMBLE_BYTES as usize..]);
    if found == payload_crc {
        Ok(buffer)
    } else {
        let Location { segment, offset, .. } = location;
        Err(format!(
            "{payload_bytes} bytes at {offset} of segment {segment} have checksum {found:#010x} \
             and had {payload_crc:#010x}"
        ))
    }
}
