//! For benchmarks: landing alone, on a pool in this process's own memory.

use landfall_layout::batch::BatchPreamble;
use landfall_layout::slot::RingLine;
use landfall_layout::topic::{Order, TopicEntry};
use landfall_layout::{BrokerId, TopicId};
use landfall_pool::slot_ring::SlotReader;
use landfall_pool::{Memory, Pool};

use crate::conns::Token;
use crate::env::Env;
use crate::land::{Placed, Session, land};
use crate::segments::Granted;
use crate::topics::Topic;

/// One topic of one broker, with a session that stands; nobody orders what is landed.
pub struct LandRig {
    env: Env,
    topic: Topic,
    session: Session,
    reader: SlotReader,
    batch: Placed,
}

impl LandRig {
    /// A rig on a fresh pool. The ring of (topic, broker 0) is put into segment 0.
    pub fn new(pool: Pool, entry: &TopicEntry, session_index: u32, epoch: u32) -> Self {
        let me = BrokerId::new(0).expect("0 is below the bound");
        let id = TopicId(entry.id);
        pool.set_ring(
            id.slot(),
            me,
            &RingLine {
                topic: entry.id.into(),
                segment: 0,
                slots: entry.ring_slots,
                ..RingLine::default()
            },
        );
        let reader = SlotReader::new(pool.slot_ring(id, me).expect("the line was just written"));
        let env = Env::new(pool, me, 1).expect("the pool's own file can be opened again");
        let mut topic = Topic::new(&env, entry, Order::Total);
        topic.stock.grant(Granted { segment: 1, generation: 1 });
        let session = Session { client: 1, epoch, index: session_index, last_seq: None };
        let claim = topic.stock.claim(&env, 4096, 4096).expect("a segment was granted");
        let preamble = BatchPreamble {
            topic: entry.id,
            client: 1,
            session_epoch: epoch,
            payload_bytes: 4096 - 64,
            count: 3,
            ..BatchPreamble::default()
        };
        let batch = Placed {
            preamble: preamble.seal(),
            segment: claim.segment,
            generation: claim.generation,
            offset: claim.offset,
        };
        topic.stock.done(claim);
        Self { env, topic, session, reader, batch }
    }

    /// Lands a burst of batches, moves the frontier, and takes the slots back.
    pub fn burst(&mut self, batches: u64) {
        let Self { env, topic, session, reader, batch } = self;
        for _ in 0..batches {
            let landed = land(env, topic, session, Token(0), batch);
            assert!(landed.is_ok(), "{landed:?}");
        }
        topic.publish_frontier(env, 1);
        reader.release(&env.pool, topic.next_index());
        while topic.in_flight.pop().is_some() {}
        env.pool.full_fence();
    }
}
