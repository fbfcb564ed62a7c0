//! A broker allocates nothing while batches land over verbs, whatever their size.

mod counting;

use counting::allocations;
use landfall_dataplane::rig::VerbsRig;

#[test]
fn landing_over_verbs_allocates_nothing() {
    for bytes in [4096, 64 << 10] {
        let mut rig = VerbsRig::new(bytes);
        assert!(allocations() > 0, "making a rig allocates, and nobody counted");
        // The extent is full several times over in here: whatever grows has grown.
        for _ in 0..100 {
            rig.burst(16);
        }
        let before = allocations();
        for _ in 0..100 {
            rig.burst(16);
        }
        let made = allocations() - before;
        assert_eq!(made, 0, "{made} allocations for 1600 batches of {bytes} bytes");
    }
}
