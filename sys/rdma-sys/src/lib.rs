//! Bindings to verbs and rdma_cm, as the C libraries state them. Empty so far.
//!
//! It will hold the types, constants and function tables of libibverbs and librdmacm, generated
//! once and committed, and a loader that opens both libraries at run time. A build therefore needs
//! neither the libraries nor their headers, and a machine without them can still run everything
//! else. Calling them safely is `landfall-nic`'s part.
