//! The table of connections.

use crate::conn::Conn;

/// Names one connection for as long as it lives; a slot that is used again has another token.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Token(pub u64);

impl Token {
    pub fn new(slot: usize, generation: u32) -> Self {
        Self(slot as u64 | u64::from(generation) << 32)
    }

    pub fn slot(self) -> usize {
        (self.0 & 0xffff_ffff) as usize
    }
}

/// A session that was found to be over.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Over {
    /// The connection that publishes in it.
    pub owner: Token,
    /// Its epoch.
    pub epoch: u32,
    /// Sequence of the first batch of its next epoch.
    pub next_seq: u64,
}

/// All connections, and the lists of those that want something in each turn.
pub struct Conns {
    slots: Vec<Option<Box<Conn>>>,
    generations: Vec<u32>,
    free: Vec<usize>,
    live: usize,
    /// Memory publishers: their channels are looked at in each turn.
    pub channels: Vec<usize>,
    /// Memory subscribers.
    pub readers: Vec<usize>,
    /// Stream subscribers.
    pub deliveries: Vec<usize>,
    /// Clients over verbs: their queues are looked at in each turn.
    pub queues: Vec<usize>,
    /// Publishers that wait for room.
    pub waiting: Vec<usize>,
    /// Connections with something to send.
    pub touched: Vec<usize>,
    /// Publishers whose session was found to be over and who are still to be fenced.
    pub over: Vec<Over>,
}

impl Conns {
    pub fn new() -> Self {
        let list = || Vec::with_capacity(1024);
        Self {
            slots: Vec::new(),
            generations: Vec::new(),
            free: Vec::new(),
            live: 0,
            channels: list(),
            readers: list(),
            deliveries: list(),
            queues: list(),
            waiting: list(),
            touched: list(),
            over: Vec::new(),
        }
    }

    /// Connections there are.
    pub fn live(&self) -> usize {
        self.live
    }

    /// Adds the connection that `make` builds for its token.
    pub fn add(&mut self, make: impl FnOnce(Token) -> Conn) -> usize {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.generations.push(0);
            self.slots.len() - 1
        });
        self.generations[slot] = self.generations[slot].wrapping_add(1) & 0x7fff_ffff;
        let token = Token::new(slot, self.generations[slot]);
        self.slots[slot] = Some(Box::new(make(token)));
        self.live += 1;
        slot
    }

    /// Takes a connection out of the table and of every list.
    pub fn remove(&mut self, slot: usize) -> Option<Box<Conn>> {
        let conn = self.slots.get_mut(slot)?.take()?;
        self.free.push(slot);
        self.live -= 1;
        let Self { channels, readers, deliveries, queues, waiting, touched, .. } = self;
        for list in [channels, readers, deliveries, queues, waiting, touched] {
            list.retain(|other| *other != slot);
        }
        Some(conn)
    }

    #[inline]
    pub fn get(&mut self, slot: usize) -> Option<&mut Conn> {
        self.slots.get_mut(slot)?.as_deref_mut()
    }

    /// The connection of that token, if it is still there.
    #[inline]
    pub fn by_token(&mut self, token: Token) -> Option<&mut Conn> {
        let conn = self.get(token.slot())?;
        (conn.token == token).then_some(conn)
    }

    /// Slots that may hold a connection.
    pub fn slots(&self) -> std::ops::Range<usize> {
        0..self.slots.len()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Conn> {
        self.slots.iter().filter_map(|slot| slot.as_deref())
    }

    pub fn iter_mut(&mut self) -> impl Iterator<Item = &mut Conn> {
        self.slots.iter_mut().filter_map(|slot| slot.as_deref_mut())
    }

    /// Notes that a connection has something to send at the end of the turn.
    pub fn touch(&mut self, slot: usize) {
        let Some(conn) = self.slots.get_mut(slot).and_then(|conn| conn.as_deref_mut()) else {
            return;
        };
        if !conn.touched {
            conn.touched = true;
            self.touched.push(slot);
        }
    }
}
