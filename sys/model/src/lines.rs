//! The lines of a world, found by their number. Nothing is allocated for a line that was touched
//! in an earlier run.

use crate::HOSTS_MAX;

/// Words in a line.
pub(crate) const WORDS: usize = 8;
/// A line's words.
pub(crate) type Words = [u64; WORDS];
/// No host has written the line, or what it wrote is all in the memory.
pub(crate) const NO_HOST: u8 = u8::MAX;

/// One line: see the module `world`.
pub(crate) struct Line {
    pub number: u64,
    run: u32,
    pub image: Words,
    pub versions: Vec<Words>,
    pub writer: u8,
    /// Words in which the latest version lacks what another host had stored, one bit each.
    pub stale: u8,
    /// Its writer lost power, and which version is left was not looked at yet.
    pub lost: bool,
    /// The processes that touched it, and those that stored to it, one bit each.
    pub users: [u16; 2],
    pub kept: u32,
    pub low: [u32; HOSTS_MAX],
}

impl Line {
    #[inline]
    pub(crate) fn latest(&self) -> u32 {
        self.versions.len() as u32 - 1
    }
}

pub(crate) struct Lines {
    lines: Vec<Line>,
    /// Line numbers' places in `lines`, plus one; open addressing, a power of two.
    table: Vec<u32>,
    run: u32,
    /// The line that was last asked for.
    last: (u64, u32),
}

/// A line number that no line has: lines begin at multiples of 64.
const NOWHERE: u64 = u64::MAX;

impl Lines {
    pub(crate) fn new() -> Self {
        Self { lines: Vec::new(), table: vec![0; 64], run: 1, last: (NOWHERE, 0) }
    }

    pub(crate) fn next_run(&mut self) {
        self.run += 1;
        self.last = (NOWHERE, 0);
    }

    /// The lines that this run has touched.
    pub(crate) fn touched(&mut self) -> impl Iterator<Item = &mut Line> {
        let run = self.run;
        self.lines.iter_mut().filter(move |line| line.run == run)
    }

    fn hash(&self, number: u64) -> usize {
        let hash = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (hash >> (64 - self.table.len().trailing_zeros())) as usize
    }

    /// Where the line is, made if it is new.
    fn find(&mut self, number: u64) -> u32 {
        let mut at = self.hash(number);
        loop {
            match self.table[at] {
                0 => break,
                slot if self.lines[slot as usize - 1].number == number => return slot - 1,
                _ => at = (at + 1) & (self.table.len() - 1),
            }
        }
        let slot = self.lines.len() as u32;
        self.lines.push(Line {
            number,
            run: 0,
            image: [0; WORDS],
            versions: Vec::new(),
            writer: NO_HOST,
            stale: 0,
            lost: false,
            users: [0; 2],
            kept: 0,
            low: [0; HOSTS_MAX],
        });
        self.table[at] = slot + 1;
        if self.lines.len() * 2 > self.table.len() {
            self.grow();
        }
        slot
    }

    fn grow(&mut self) {
        self.table = vec![0; self.table.len() * 2];
        for slot in 0..self.lines.len() {
            let mut at = self.hash(self.lines[slot].number);
            while self.table[at] != 0 {
                at = (at + 1) & (self.table.len() - 1);
            }
            self.table[at] = slot as u32 + 1;
        }
    }

    /// A word of a line's image; nothing is made for a line that is not there.
    pub(crate) fn image(&self, number: u64, word: usize) -> u64 {
        let mut at = self.hash(number);
        loop {
            match self.table[at] {
                0 => return 0,
                slot if self.lines[slot as usize - 1].number == number => {
                    return self.lines[slot as usize - 1].image[word];
                }
                _ => at = (at + 1) & (self.table.len() - 1),
            }
        }
    }

    /// The line's image, which runs start from.
    pub(crate) fn of(&mut self, number: u64) -> &mut Line {
        let slot = self.find(number);
        &mut self.lines[slot as usize]
    }

    /// The line's place, its image laid out for this run.
    #[inline]
    pub(crate) fn slot(&mut self, number: u64) -> u32 {
        if self.last.0 == number {
            return self.last.1;
        }
        let slot = self.find(number);
        let line = &mut self.lines[slot as usize];
        if line.run != self.run {
            line.run = self.run;
            line.versions.clear();
            line.versions.push(line.image);
            line.writer = NO_HOST;
            line.stale = 0;
            line.lost = false;
            line.users = [0; 2];
            line.kept = 0;
            line.low = [0; HOSTS_MAX];
        }
        self.last = (number, slot);
        slot
    }

    /// The line at a place that [`slot`](Self::slot) gave.
    #[inline]
    pub(crate) fn at(&mut self, slot: u32) -> &mut Line {
        &mut self.lines[slot as usize]
    }

    /// The line, its image laid out for this run.
    #[inline]
    pub(crate) fn touch(&mut self, number: u64) -> &mut Line {
        let slot = self.slot(number);
        self.at(slot)
    }
}
