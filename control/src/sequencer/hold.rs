//! Order `token`: batches whose positions are not the log's next ones yet.
//!
//! A held batch keeps its ring slot, so it is kept under that slot's place: there is room for
//! every slot of every ring, and a hold can never fail. What bounds the buffer is the rings.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;

use landfall_layout::BrokerId;
use landfall_layout::limits::{BROKERS_MAX, RING_SLOTS_MAX};

/// A ring slot's place: the broker above, the slot's place in its ring below.
pub(super) type Place = u32;

/// No place.
pub(super) const NOWHERE: Place = u32::MAX;

const SLOT_BITS: u32 = RING_SLOTS_MAX.trailing_zeros();
const SLOT_MASK: u32 = RING_SLOTS_MAX - 1;

const _: () = {
    assert!(RING_SLOTS_MAX.is_power_of_two());
    assert!((BROKERS_MAX as u64) << SLOT_BITS < NOWHERE as u64, "places and `NOWHERE` differ");
};

/// One held batch: what its entry will need, and its neighbours in the session's list.
#[derive(Clone, Copy, Default)]
#[repr(align(64))]
pub(super) struct Held {
    pub batch_seq: u64,
    pub landed_ns: u64,
    /// Absolute index in the ring.
    pub index: u64,
    pub session: u32,
    pub checksum: u32,
    pub segment: u32,
    pub offset: u32,
    pub bytes: u32,
    pub count: u16,
    /// The same batch was held already when this copy came.
    pub is_copy: bool,
    /// Neighbours in the session's list; [`Holds::insert`] sets these three.
    pub before: Place,
    pub after: Place,
}

const _: () = assert!(size_of::<Held>() == 64, "a held batch is one line");

/// The hold buffer: a cell for every ring slot, and a hash table from (session, sequence).
///
/// The table is open addressing with linear probing, at most half full; a removal closes the gap,
/// so there are no tombstones and the table never has to be cleaned.
pub(super) struct Holds {
    cells: [Box<[Held]>; BROKERS_MAX],
    /// Hash above, place + 1 below; 0 is empty.
    table: Box<[u64]>,
    /// Nobody outside this process knows them: sequences that share a hash cannot be chosen.
    keys: RandomState,
    slots: usize,
    held: usize,
    copies: usize,
}

impl Holds {
    pub fn new() -> Self {
        Self {
            cells: std::array::from_fn(|_| Box::default()),
            table: Box::default(),
            keys: RandomState::new(),
            slots: 0,
            held: 0,
            copies: 0,
        }
    }

    /// Makes room for every slot of one more ring.
    pub fn open(&mut self, broker: BrokerId, slots: u32) {
        self.cells[broker.index()] = vec![Held::default(); slots as usize].into_boxed_slice();
        self.slots += slots as usize;
        let cells = (2 * self.slots).next_power_of_two();
        if cells > self.table.len() {
            let old = std::mem::replace(&mut self.table, vec![0; cells].into_boxed_slice());
            for cell in old.into_iter().filter(|cell| *cell != 0) {
                self.settle(cell);
            }
        }
    }

    /// Held batches of all sessions.
    pub fn len(&self) -> usize {
        self.held
    }

    /// Whether of any batch more than one copy is held.
    pub fn has_copies(&self) -> bool {
        self.copies > 0
    }

    pub fn broker_of(place: Place) -> usize {
        (place >> SLOT_BITS) as usize
    }

    /// The place of a ring's slot.
    pub fn place(&self, broker: BrokerId, index: u64) -> Place {
        let slot = index as u32 & (self.cells[broker.index()].len() as u32 - 1);
        (broker.index() as u32) << SLOT_BITS | slot
    }

    pub fn get(&self, place: Place) -> &Held {
        &self.cells[Self::broker_of(place)][(place & SLOT_MASK) as usize]
    }

    fn get_mut(&mut self, place: Place) -> &mut Held {
        &mut self.cells[Self::broker_of(place)][(place & SLOT_MASK) as usize]
    }

    /// Holds a batch at the head of its session's list. Copies of one batch are taken out in the
    /// order in which they came.
    pub fn insert(&mut self, broker: BrokerId, first: &mut Place, held: Held) {
        let is_copy = self.find(held.session, held.batch_seq).is_some();
        self.copies += usize::from(is_copy);
        let place = self.place(broker, held.index);
        let after = *first;
        *self.get_mut(place) = Held { is_copy, before: NOWHERE, after, ..held };
        if after != NOWHERE {
            self.get_mut(after).before = place;
        }
        *first = place;
        self.settle(
            u64::from(self.hash(held.session, held.batch_seq)) << 32 | u64::from(place + 1),
        );
        self.held += 1;
    }

    /// Whether the batch of that sequence is held.
    pub fn has(&self, session: u32, batch_seq: u64) -> bool {
        self.find(session, batch_seq).is_some()
    }

    /// Takes the batch of that sequence out, if it is held.
    pub fn take(&mut self, session: u32, batch_seq: u64, first: &mut Place) -> Option<Place> {
        let cell = self.find(session, batch_seq)?;
        Some(self.remove(cell, first))
    }

    /// Takes any one batch of the session out.
    pub fn take_any(&mut self, first: &mut Place) -> Option<Place> {
        if *first == NOWHERE {
            return None;
        }
        let Held { session, batch_seq, .. } = *self.get(*first);
        self.take(session, batch_seq, first)
    }

    fn remove(&mut self, cell: usize, first: &mut Place) -> Place {
        let place = self.table[cell] as u32 - 1;
        let Held { is_copy, before, after, .. } = *self.get(place);
        self.copies -= usize::from(is_copy);
        match before {
            NOWHERE => *first = after,
            before => self.get_mut(before).after = after,
        }
        if after != NOWHERE {
            self.get_mut(after).before = before;
        }
        self.close_gap(cell);
        self.held -= 1;
        place
    }

    fn find(&self, session: u32, batch_seq: u64) -> Option<usize> {
        let hash = self.hash(session, batch_seq);
        let mut at = self.home(hash);
        loop {
            let cell = *self.table.get(at)?;
            if cell == 0 {
                return None;
            }
            if (cell >> 32) as u32 == hash {
                let held = self.get(cell as u32 - 1);
                if held.batch_seq == batch_seq && held.session == session {
                    return Some(at);
                }
            }
            at = (at + 1) & (self.table.len() - 1);
        }
    }

    fn settle(&mut self, cell: u64) {
        let mut at = self.home((cell >> 32) as u32);
        while self.table[at] != 0 {
            at = (at + 1) & (self.table.len() - 1);
        }
        self.table[at] = cell;
    }

    /// Moves back what probing had pushed past the cell that becomes empty.
    fn close_gap(&mut self, mut gap: usize) {
        let mask = self.table.len() - 1;
        let mut at = gap;
        loop {
            at = (at + 1) & mask;
            let cell = self.table[at];
            if cell == 0 {
                break;
            }
            let home = self.home((cell >> 32) as u32);
            if at.wrapping_sub(home) & mask >= at.wrapping_sub(gap) & mask {
                self.table[gap] = cell;
                gap = at;
            }
        }
        self.table[gap] = 0;
    }

    /// Eight sequences of a session share a line of the table: what is held of a session is mostly
    /// a run, and it is released as a run.
    fn hash(&self, session: u32, batch_seq: u64) -> u32 {
        let mixed = self.keys.hash_one((session, batch_seq / 8));
        (mixed as u32 & !7) | (batch_seq % 8) as u32
    }

    fn home(&self, hash: u32) -> usize {
        hash as usize & self.table.len().wrapping_sub(1)
    }
}
