//! Brokers that are started together with control come a moment after it.

use crate::answers::Problem;

/// Code of the refusal of a topic for want of brokers with disks.
pub(super) const FEW_DISKS: &str = "few_disks";

/// Time after which brokers that are started with a control have come, nanoseconds.
const COME_NS: u64 = 10_000_000_000;

/// The refusal of a topic by a control that has led for `leads_ns`: where brokers are missing that
/// may just be starting, whoever asks hears that it may ask again.
pub(super) fn if_brokers_come(problem: Problem, leads_ns: u64) -> Problem {
    if problem.code != FEW_DISKS || leads_ns >= COME_NS {
        return problem;
    }
    let (why, ms) = (problem.message, leads_ns / 1_000_000);
    let message = format!("{why}; control began {ms} ms ago, and brokers may still come");
    Problem::full("brokers_coming", message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn while_brokers_may_still_come_a_client_hears_that_it_may_ask_again() {
        let short = || Problem::conflict(FEW_DISKS, "0 live brokers have a disk");
        let told = if_brokers_come(short(), 40_000_000);
        assert_eq!((told.status, told.code), (503, "brokers_coming"));
        let says =
            "0 live brokers have a disk; control began 40 ms ago, and brokers may still come";
        assert_eq!(told.message, says);
        assert_eq!(if_brokers_come(short(), COME_NS).code, FEW_DISKS);
        assert_eq!(if_brokers_come(Problem::bad("0 replicas"), 0).code, "bad_request");
    }
}
