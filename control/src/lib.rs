//! The control process: topics, segments, sessions and the sequencer.
