//! The client library: publishers, subscribers, the order auditor.
