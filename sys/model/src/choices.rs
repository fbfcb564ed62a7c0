//! The choices of a run: walked through in order, drawn from a seed, or replayed.

use std::str::FromStr;

/// One choice that was made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Choice {
    taken: u16,
    of: u16,
}

/// Where choices come from.
pub(crate) enum Source {
    /// The first that was not tried yet: depth first through all of them.
    Walk,
    /// A seed.
    Random(Random),
    /// What was recorded, then always the first.
    Replay,
}

/// The choices of one run, in order.
pub(crate) struct Choices {
    made: Vec<Choice>,
    at: usize,
    pub(crate) source: Source,
}

impl Choices {
    pub(crate) fn new() -> Self {
        Self { made: Vec::with_capacity(1024), at: 0, source: Source::Walk }
    }

    /// Before the first run of a walk.
    pub(crate) fn restart(&mut self, source: Source) {
        self.made.clear();
        self.at = 0;
        self.source = source;
    }

    /// Makes the next run of a walk the first that was not tried; false when there is none.
    pub(crate) fn advance(&mut self) -> bool {
        self.made.truncate(self.at);
        self.at = 0;
        while let Some(choice) = self.made.last_mut() {
            if choice.taken + 1 < choice.of {
                choice.taken += 1;
                return true;
            }
            self.made.pop();
        }
        false
    }

    /// Loads what is to be replayed.
    pub(crate) fn replay(&mut self, record: &Record) {
        self.restart(Source::Replay);
        for (index, taken) in &record.0 {
            self.made.resize(*index as usize + 1, Choice { taken: 0, of: 0 });
            self.made[*index as usize].taken = *taken;
        }
    }

    /// What this run chose.
    pub(crate) fn record(&self) -> Record {
        let made = self.made[..self.at].iter().enumerate();
        let chosen = made.filter(|(_, choice)| choice.taken > 0);
        Record(chosen.map(|(index, choice)| (index as u32, choice.taken)).collect())
    }

    /// One of `of` values that a load may see.
    pub(crate) fn value(&mut self, of: usize) -> usize {
        let drawn = match &mut self.source {
            Source::Random(random) => Some(random.value(of)),
            _ => None,
        };
        self.choose(of, drawn)
    }

    /// Whether a schedule goes on (0), switches to one of `switches` others, or one of `crashes`
    /// happens, in this order.
    pub(crate) fn step(&mut self, switches: usize, crashes: usize) -> usize {
        let drawn = match &mut self.source {
            Source::Random(random) => Some(random.step(switches, crashes)),
            _ => None,
        };
        self.choose(1 + switches + crashes, drawn)
    }

    /// Which of `ready` processes runs next when one stopped of its own accord, or which of
    /// `crashes` happens first.
    pub(crate) fn next(&mut self, ready: usize, crashes: usize) -> usize {
        let drawn = match &mut self.source {
            Source::Random(random) => Some(random.next(ready, crashes)),
            _ => None,
        };
        self.choose(ready + crashes, drawn)
    }

    fn choose(&mut self, of: usize, drawn: Option<usize>) -> usize {
        if of <= 1 {
            return 0;
        }
        let of = of as u16;
        let index = self.at;
        self.at += 1;
        match self.made.get_mut(index) {
            Some(choice) => {
                if choice.of == 0 {
                    choice.of = of;
                }
                assert!(
                    choice.taken < choice.of && choice.of == of,
                    "choice {index} was {} of {} and is now of {of}: the scenario is not the same \
                     program in every run",
                    choice.taken,
                    choice.of
                );
                choice.taken.into()
            }
            None => {
                let taken = drawn.unwrap_or(0) as u16;
                self.made.push(Choice { taken, of });
                taken.into()
            }
        }
    }
}

/// The choices that differ from the first possible, by their number: enough to make a run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record(Vec<(u32, u16)>);

impl std::fmt::Display for Record {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() {
            return f.write_str("-");
        }
        for (i, (index, taken)) in self.0.iter().enumerate() {
            let comma = if i == 0 { "" } else { "," };
            write!(f, "{comma}{index}:{taken}")?;
        }
        Ok(())
    }
}

/// A text that is no record of choices.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotChoices(String);

impl std::fmt::Display for NotChoices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?} is no list of choices, which looks like 3:1,17:2, or - for none", self.0)
    }
}

impl std::error::Error for NotChoices {}

impl FromStr for Record {
    type Err = NotChoices;

    fn from_str(text: &str) -> Result<Self, NotChoices> {
        if text == "-" {
            return Ok(Self(Vec::new()));
        }
        let mut pairs = Vec::new();
        for pair in text.split(',') {
            let parsed = pair.split_once(':').and_then(|(index, taken)| {
                Some((index.parse::<u32>().ok()?, taken.parse::<u16>().ok()?))
            });
            let parsed = parsed.filter(|(index, _)| {
                *index < 1 << 20 && pairs.last().is_none_or(|(before, _)| before < index)
            });
            pairs.push(parsed.ok_or_else(|| NotChoices(text.to_owned()))?);
        }
        Ok(Self(pairs))
    }
}

/// Choices drawn from a seed: few switches and one crash, each at a step drawn uniformly over the
/// length of a run. Odds by the step would make nearly every crash an early one.
pub(crate) struct Random {
    state: u64,
    /// Steps (in choices of a schedule) at which this run switches.
    switches: [u32; SWITCHES_MAX],
    crash: u32,
    steps: u32,
    /// Of 256 loads that could see something older, how many do.
    stale: u64,
}

const SWITCHES_MAX: usize = 8;

impl Random {
    /// The choices of seed `seed`, for runs of about `length` steps.
    pub(crate) fn new(seed: u64, length: u32) -> Self {
        let mut random =
            Self { state: seed, switches: [u32::MAX; 8], crash: 0, steps: 0, stale: 0 };
        let length = u64::from(length.max(1));
        let count = random.below(SWITCHES_MAX as u64 + 1) as usize;
        for i in 0..count {
            random.switches[i] = random.below(length) as u32;
        }
        random.crash = random.below(length) as u32;
        random.stale = [16, 64, 128, 240][random.below(4) as usize];
        random
    }

    /// SplitMix64: every seed gives another sequence, and near seeds nothing alike.
    fn draw(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, bound: u64) -> u64 {
        ((u128::from(self.draw()) * u128::from(bound)) >> 64) as u64
    }

    fn value(&mut self, of: usize) -> usize {
        if of <= 1 || self.below(256) >= self.stale {
            return 0;
        }
        1 + self.below(of as u64 - 1) as usize
    }

    fn step(&mut self, switches: usize, crashes: usize) -> usize {
        let now = self.steps;
        self.steps += 1;
        if crashes > 0 && now >= self.crash {
            return 1 + switches + self.below(crashes as u64) as usize;
        }
        if switches > 0 && self.switches.contains(&now) {
            return 1 + self.below(switches as u64) as usize;
        }
        0
    }

    fn next(&mut self, ready: usize, crashes: usize) -> usize {
        let now = self.steps;
        self.steps += 1;
        if crashes > 0 && (now >= self.crash || ready == 0) {
            return ready + self.below(crashes as u64) as usize;
        }
        self.below(ready as u64) as usize
    }
}
