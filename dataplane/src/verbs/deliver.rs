//! Subscribers over verbs that the broker writes to: one write for each batch, out of its segment.

use landfall_layout::limits::LINE_BYTES;
use landfall_pool::clock::wall_ns;

use super::link::Link;
use crate::cursor::Item;
use crate::deliver_tcp::{BATCHES_PER_SEND, Delivering};
use crate::env::Env;

impl Delivering {
    /// Writes what there is, as far as the client's ring and the queue take it; how many items
    /// that was.
    pub fn write_on(&mut self, env: &Env, link: &mut Link) -> usize {
        let mut items = [Item::NONE; BATCHES_PER_SEND];
        let count = self.gather(env, &mut items);
        let now = wall_ns();
        let mut written = 0;
        for item in &items[..count] {
            let bytes = item.bytes.next_multiple_of(LINE_BYTES as u32);
            let at = env.pool.at(item.segment, item.offset(), bytes).unwrap_or(0);
            let took = if item.bytes == 0 {
                link.send_lines(item.head()) == 1
            } else {
                link.deliver(item.head(), item.segment, at, bytes)
            };
            if !took {
                break;
            }
            self.account(env, item, now);
            written += 1;
        }
        self.put_back(&items[written..count]);
        written
    }
}
