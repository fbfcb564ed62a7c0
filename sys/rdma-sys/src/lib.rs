//! Bindings to verbs and rdma_cm, as the C libraries state them.
//!
//! A build needs neither the libraries nor their headers: the bindings are generated once by
//! `scripts/rdma-bindings` and committed, and [`libraries`] opens both libraries when the program
//! runs. A machine without them can still run everything else, and is told what is missing.
//! Calling them safely is `landfall-nic`'s part.
//!
//! | module | what |
//! |---|---|
//! | [`types`] | structures and constants of both headers |
//! | [`verbs`], [`cma`] | the exported functions, one table each |
//! | [`inlines`] | what the headers define as `static inline` or as a macro |
//! | [`load`] | opening the libraries |

mod bindings {
    #[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
    #[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
    pub mod cma;
    #[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
    #[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
    pub mod types;
    #[allow(missing_docs, non_camel_case_types, non_snake_case, non_upper_case_globals)]
    #[allow(clippy::all, clippy::undocumented_unsafe_blocks)]
    pub mod verbs;
}

pub mod inlines;
pub mod load;

pub use bindings::{cma, types, verbs};
pub use cma::Cm;
pub use load::{Libraries, Missing, libraries};
pub use verbs::Verbs;
