//! A broker: lands batches, delivers them, reports what happened to them.
