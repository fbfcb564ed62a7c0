//! Scenarios run against every transport and rig.
