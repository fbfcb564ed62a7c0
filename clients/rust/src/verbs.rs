//! Connections over RDMA verbs: what publishers and subscribers have in common.
//!
//! | module | what |
//! |---|---|
//! | [`dial`] | a token, the knock, the greeting |
//! | [`ring`] | the memory in which a broker tells a client things |
//! | [`wire`] | the queue pair: immediates out, lines in |

pub(crate) mod dial;
pub(crate) mod ring;
pub(crate) mod wire;
