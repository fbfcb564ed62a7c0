//! A run, and what has to hold in it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{Duration, Instant};

use landfall::api::{Replica, TopicSpec};
use landfall::{Ack, Event, GapReason, Start, Transport};
use landfall_layout::replica::ReplicaState;
use landfall_verify::Severity;

use super::DISKS;
use super::plan::{Harm, Life, Plan};
use super::truth::Truth;
use super::world::{World, patience};
use crate::Failure;
use crate::device::slow;
use crate::flow::{message, name_of};
use crate::sweep::client::patiently;

const TOPIC: &str = "t";
/// Whose all messages are.
const PUBLISHER: u64 = 7;
const BYTES: usize = 100;
/// States that last so long are taken for those that stay, where copies may lack something.
const STAYS: Duration = Duration::from_secs(2);
/// The few files of a run have been read through so long after a start.
const READ_THROUGH: Duration = Duration::from_secs(6);

/// What a run did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Messages that were acknowledged.
    pub messages: u64,
    /// Harms to disks.
    pub harms: u64,
    /// Starts that were refused, and were not with the disks as they had been.
    pub refused: u64,
    /// Lives in which a copy lacked something to the end.
    pub lacking: u64,
}

/// Runs a plan with the programs in a folder.
pub fn run(plan: &Plan, programs: &Path) -> Result<Outcome, Failure> {
    let mut world = World::new(programs, plan)?;
    let mut run = Run::of(plan);
    let result = run.lives(&mut world);
    result.map_err(|failure| {
        world.keep = std::env::var_os("LANDFALL_SWEEP_KEEP").is_some();
        let story: Vec<String> = run.story.iter().map(|line| format!("\n    {line}")).collect();
        let files = match world.keep {
            true => format!("\n  its files are in {}", world.folder().display()),
            false => String::new(),
        };
        failure.with(&format!("\n  what happened:{}{files}", story.concat()))
    })
}

struct Run<'a> {
    plan: &'a Plan,
    outcome: Outcome,
    /// Acknowledged messages, and the number of the next one.
    acked: BTreeSet<u64>,
    next: u64,
    /// Which message each position had.
    places: BTreeMap<(u8, u64), u64>,
    /// A message is on no disk that is here: the pool was kept, and the start was not refused.
    misses: bool,
    /// A disk was away in the life that ended last.
    was_away: bool,
    /// Every copy was well at the end of the life before, and nothing was done to one since.
    was_well: bool,
    story: Vec<String>,
}

/// How copies are, once nothing changes any more.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Settled {
    Well,
    Lacking,
}

impl<'a> Run<'a> {
    fn of(plan: &'a Plan) -> Self {
        Self {
            plan,
            outcome: Outcome::default(),
            acked: BTreeSet::new(),
            next: 0,
            places: BTreeMap::new(),
            misses: false,
            was_away: false,
            was_well: true,
            story: Vec::new(),
        }
    }

    fn lives(&mut self, world: &mut World) -> Result<Outcome, Failure> {
        ensure!(world.start()?.is_none(), "a system with empty disks does not start");
        let spec = TopicSpec { replicas: Some(self.plan.replicas), ..self.spec() };
        let client = world.client()?;
        patiently(|| client.create_topic(&spec))?;
        let all_on = (0..self.plan.brokers).collect::<Vec<_>>();
        for (number, life) in self.plan.lives.iter().enumerate() {
            self.tell(format!("life {number}"));
            self.live(world, life)?;
            self.end(world, life)?;
            let missing = self.harm(world, life)?;
            self.start(world, life, missing)?;
        }
        // The last word: everything as it should be, for ever.
        if world.on() != all_on {
            world.end(super::plan::End::Stop, false)?;
            world.mount()?;
            self.tell("all are back");
            self.misses = false;
            let refused = world.start()?;
            ensure!(refused.is_none(), "the last start is refused: {refused:?}");
        }
        self.settle(world)?;
        self.read(world)?;
        world.end(super::plan::End::Stop, false)?;
        Ok(Outcome { messages: self.acked.len() as u64, ..self.outcome })
    }

    fn spec(&self) -> TopicSpec {
        let mut spec = TopicSpec::new(TOPIC, self.plan.order);
        spec.keep = Some(true);
        spec
    }

    fn tell(&mut self, what: impl Into<String>) {
        self.story.push(what.into());
    }

    /// A life, up to its end.
    fn live(&mut self, world: &mut World, life: &Life) -> Result<(), Failure> {
        let mut settled = self.settle(world)?;
        self.read(world)?;
        for (broker, count) in &life.bursts {
            self.publish(world, *broker, *count)?;
        }
        if let Some((broker, count)) = life.dead.filter(|(broker, _)| world.on().contains(broker)) {
            self.tell(format!("broker {broker} is killed"));
            world.kill(broker);
            self.settle(world)?;
            let through = world.on().first().copied();
            if let Some(through) = through {
                self.publish(world, through, count)?;
            }
        }
        if !life.bursts.is_empty() || life.dead.is_some() {
            settled = self.settle(world)?;
        }
        self.outcome.lacking += u64::from(settled == Settled::Lacking);
        let all_on = world.on().len() == usize::from(self.plan.brokers);
        self.was_well = settled == Settled::Well && all_on;
        Ok(())
    }

    /// Whether each copy has a broker that can keep it.
    fn can_keep(&self, world: &World) -> bool {
        let on = world.on().len();
        // A home that is away is stood in for by who keeps no other copy of the same batches.
        on == usize::from(self.plan.brokers) || on > self.plan.copies()
    }

    fn publish(&mut self, world: &World, broker: u8, count: u64) -> Result<(), Failure> {
        let on = world.on();
        if !self.can_keep(world) {
            return Ok(());
        }
        let broker = if on.contains(&broker) { broker } else { on[0] };
        let client = world.client()?;
        let mut publisher = patiently(|| {
            let builder = client.publisher(TOPIC).transport(Transport::Tcp).broker(broker);
            builder.ack(Ack::Durable).timeout(patience()).batch_bytes(4096).build()
        })?;
        let first = self.next;
        for n in first..first + count {
            publisher.publish(&message(PUBLISHER, n, BYTES))?;
        }
        publisher.flush()?;
        publisher.close()?;
        self.next += count;
        self.acked.extend(first..self.next);
        self.tell(format!("messages {first} to {} through broker {broker}", self.next - 1));
        Ok(())
    }

    /// Waits until copies are well, or stay as they are where they may lack something; where they
    /// are called well, they are.
    fn settle(&mut self, world: &World) -> Result<Settled, Failure> {
        let deadline = Instant::now() + patience();
        let on = world.on();
        let all_on = on.len() == usize::from(self.plan.brokers);
        let must_be_well = self.plan.reads && all_on;
        let client = world.client()?;
        let (mut before, mut since, mut short_since) = (Vec::new(), Instant::now(), None);
        loop {
            let lines = patiently(|| client.topic(TOPIC))?.replicas_state;
            // Of who is down nothing comes: nobody stands in where all of it is on its own disk.
            let counts = |line: &Replica| {
                on.contains(&line.broker) || self.can_keep(world) && on.contains(&line.source)
            };
            let lines: Vec<Replica> = lines.into_iter().filter(counts).collect();
            let is_kept = |line: &Replica| on.contains(&line.broker);
            let is_good = |state: &str| state == ReplicaState::Well.name() || state == "moved";
            let well = |line: &Replica| is_kept(line) && is_good(&line.state);
            let is_well = lines.iter().all(well);
            match if is_well { self.check_well(world) } else { Ok(()) } {
                Ok(()) if is_well => return Ok(Settled::Well),
                Ok(()) => short_since = None,
                // Its files may not have been read through yet, as they are after each start.
                Err(failure) => {
                    let since = short_since.get_or_insert_with(Instant::now);
                    if since.elapsed() > slow(READ_THROUGH) {
                        return Err(failure);
                    }
                }
            }
            let states: Vec<_> =
                lines.iter().map(|it| (it.source, it.broker, it.state.clone())).collect();
            if states != before {
                (before, since) = (states, Instant::now());
            }
            let stays = |line: &Replica| well(line) || is_kept(line) && line.state == "incomplete";
            if !must_be_well && lines.iter().all(stays) && since.elapsed() > STAYS {
                self.tell(format!("not well: {before:?}"));
                return Ok(Settled::Lacking);
            }
            if Instant::now() >= deadline {
                let said = patiently(|| client.errors())?;
                let said: Vec<String> = said.into_iter().map(|error| error.text).collect();
                return Err(Failure::new(format!("copies stay {before:?}: {said:#?}")));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// All copies are called well: each message lies on as many disks as there are copies.
    fn check_well(&self, world: &World) -> Result<(), Failure> {
        if !self.can_keep(world) {
            return self.check_verified(world);
        }
        let truth = Truth::read(self.plan.brokers, |disk| world.really(disk))?;
        let short = |n: &&u64| truth.copies(**n, |_| false) < self.plan.copies();
        let short: Vec<_> = self.acked.iter().filter(short).collect();
        ensure!(
            short.is_empty(),
            "all copies are called well, and {} messages, {:?} to {:?}, lie on fewer than {} disks",
            short.len(),
            short.first(),
            short.last(),
            self.plan.copies()
        );
        self.check_verified(world)
    }

    /// Nothing is damaged of what a disk has. What a broker had to keep before disks changed places
    /// nobody looks after any more.
    fn check_verified(&self, world: &World) -> Result<(), Failure> {
        let kept = landfall_verify::replicas::look(&world.folder().join(DISKS))?;
        let errors = kept.findings.kept().iter().filter(|it| it.severity == Severity::Error);
        let errors: Vec<String> = errors.map(ToString::to_string).collect();
        let is_left = |error: &&String| {
            let keeps = |source: u8, copy: u8| (source + copy) % self.plan.brokers;
            let copies = 0..self.plan.copies() as u8;
            let mut sources = 0..self.plan.brokers;
            sources.any(|source| {
                let of = |keeper: u8| error.contains(&format!("/broker-{keeper}/"));
                let is_kept = copies.clone().any(|copy| of(keeps(source, copy)));
                error.contains(&format!("/b{source}/")) && !is_kept
            })
        };
        let errors: Vec<_> = errors.iter().filter(|error| !is_left(error)).collect();
        ensure!(errors.is_empty(), "copies were well, and verify finds {errors:#?}");
        Ok(())
    }

    /// Reads everything through each broker that runs.
    fn read(&mut self, world: &World) -> Result<(), Failure> {
        if self.misses {
            // Readers wait for that disk.
            return Ok(());
        }
        let on = world.on();
        let all_on = on.len() == usize::from(self.plan.brokers);
        let mut seen = BTreeSet::new();
        for broker in &on {
            let shown = self.read_at(world, *broker)?;
            if self.plan.reads && all_on {
                let missing: Vec<_> = self.acked.difference(&shown).collect();
                ensure!(
                    missing.is_empty(),
                    "a reader at broker {broker} does not see {} messages, {:?} to {:?}",
                    missing.len(),
                    missing.first(),
                    missing.last()
                );
            }
            seen.extend(shown);
        }
        // What only the disk of a broker has that is down, others cannot read perhaps.
        let may_miss =
            !self.plan.reads && on.len() + world.away.len() < usize::from(self.plan.brokers);
        let missing: Vec<_> = self.acked.difference(&seen).collect();
        ensure!(
            may_miss || missing.is_empty(),
            "no reader sees {} messages, {:?} to {:?}",
            missing.len(),
            missing.first(),
            missing.last()
        );
        Ok(())
    }

    fn read_at(&mut self, world: &World, broker: u8) -> Result<BTreeSet<u64>, Failure> {
        let client = world.client()?;
        let mut subscriber = patiently(|| {
            let builder = client.subscriber(TOPIC).from(Start::Earliest).broker(broker);
            builder.transport(Transport::Tcp).timeout(patience()).build()
        })?;
        let (mut shown, mut last) = (BTreeSet::new(), BTreeMap::new());
        let (mut moved, mut lost) = (Instant::now(), 0);
        loop {
            match subscriber.next(Duration::from_millis(20))? {
                Event::Batch(batch) => {
                    moved = Instant::now();
                    let log = batch.log();
                    let positions = batch.first_position()..;
                    for (message, position) in batch.messages().zip(positions) {
                        let n = name_of(message.payload).filter(|(who, _)| *who == PUBLISHER);
                        let Some((_, n)) = n else {
                            return Err(Failure::new(format!("strange bytes at {position}")));
                        };
                        let had = *self.places.entry((log, position)).or_insert(n);
                        ensure!(had == n, "position {position} of log {log} was {had}, and is {n}");
                        let before = last.insert(log, n);
                        ensure!(before < Some(n), "log {log}: {n} comes behind {before:?}");
                        shown.insert(n);
                    }
                }
                Event::Gap { reason: GapReason::Lost, missed, .. } => lost += missed,
                Event::Gap { .. } => {}
                Event::CaughtUp => break,
                Event::Idle => ensure!(
                    moved.elapsed() < patience(),
                    "a reader at broker {broker} is not told that it has caught up"
                ),
                other => return Err(Failure::new(format!("a reader is told {other:?}"))),
            }
        }
        let is_all = self.plan.reads && world.away.is_empty();
        ensure!(
            !is_all || lost == 0,
            "a reader at broker {broker} is told of {lost} lost messages"
        );
        Ok(shown)
    }

    fn end(&mut self, world: &mut World, life: &Life) -> Result<(), Failure> {
        let (end, keeps_pool) = (life.end, life.keeps_pool);
        self.tell(format!("{end:?}, pool {}", if keeps_pool { "kept" } else { "lost" }));
        self.was_away = !world.away.is_empty();
        world.end(end, keeps_pool)?;
        world.mount()?;
        if self.was_well {
            self.check_verified(world)?;
        }
        Ok(())
    }

    /// Does the harm, if nothing that was acknowledged is lost by it for good. Whether a message is
    /// on no disk that is here.
    fn harm(&mut self, world: &mut World, life: &Life) -> Result<bool, Failure> {
        world.copy()?;
        // A disk that was away has not heard yet what the others were told meanwhile: two of them
        // away in turn go on apart, and a copy from before of the others forgets it.
        if self.was_away {
            return Ok(false);
        }
        let truth = Truth::read(self.plan.brokers, |disk| world.disk(disk))?;
        let taken = life.harm.takes_from();
        let is_last = |n: &u64| truth.copies(*n, |disk| Some(disk) == taken) == 0;
        if taken.is_some() && self.acked.iter().any(is_last) {
            return Ok(false);
        }
        let Some(what) = world.harm(life.harm)? else { return Ok(false) };
        self.tell(what);
        self.outcome.harms += 1;
        let away = |disk| world.away.contains(&disk);
        Ok(self.acked.iter().any(|n| truth.copies(*n, away) == 0))
    }

    fn start(&mut self, world: &mut World, life: &Life, missing: bool) -> Result<(), Failure> {
        self.misses = missing;
        let Some(why) = world.start()? else {
            ensure!(
                !missing || life.keeps_pool,
                "it started without the only disk that has acknowledged messages"
            );
            return Ok(());
        };
        let why = why.lines().last().unwrap_or_default().to_owned();
        self.tell(format!("refused: {why}"));
        // With the pool, all directories are asked for that say where logs ended.
        // Nor does anybody else know how much the only disk had that is away.
        let is_only = matches!(life.harm, Harm::Away(_)) && self.plan.copies() == 1;
        let may = missing || is_only || life.keeps_pool || !self.was_well;
        let may = may && !matches!(life.harm, Harm::None | Harm::Swap(..));
        ensure!(may, "a start is refused, and every message is on a disk that is here: {why}");
        self.outcome.refused += 1;
        self.misses = false;
        if !life.keeps_pool {
            // What it made before it ended.
            let _ = std::fs::remove_file(world.folder().join("pool"));
        }
        world.undo()?;
        let again = world.start()?;
        ensure!(again.is_none(), "with the disks as they were it is refused, too: {again:?}");
        Ok(())
    }
}
