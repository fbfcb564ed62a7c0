//! Opening libibverbs and librdmacm, once in a process.

use std::fmt;
use std::sync::OnceLock;

use crate::{Cm, Verbs};

/// Both libraries, open until the process ends.
pub struct Libraries {
    /// The functions of libibverbs.
    pub verbs: Verbs,
    /// The functions of librdmacm.
    pub cm: Cm,
}

/// Why the libraries cannot be used.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Missing {
    what: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}; install libibverbs1 ibverbs-providers librdmacm1", self.what)
    }
}

impl std::error::Error for Missing {}

/// The name of the library that exports verbs.
pub const VERBS_LIBRARY: &str = "libibverbs.so.1";
/// The name of the library that exports rdma_cm.
pub const CM_LIBRARY: &str = "librdmacm.so.1";

/// The first of the named functions that the library does not export, with what the loader says.
macro_rules! absent {
    ($library:expr, $($function:ident),+ $(,)?) => {
        [$(($library.$function.as_ref().err(), stringify!($function))),+]
            .into_iter()
            .find_map(|(error, name)| error.map(|error| format!("{name}: {error}")))
    };
}

/// The libraries, opened at the first call. Every function that `landfall-nic` calls without
/// looking is there; `ibv_query_qp_data_in_order` may be an `Err` in its slot.
pub fn libraries() -> Result<&'static Libraries, Missing> {
    static LOADED: OnceLock<Result<Libraries, Missing>> = OnceLock::new();
    LOADED.get_or_init(|| load(VERBS_LIBRARY, CM_LIBRARY)).as_ref().map_err(Clone::clone)
}

fn load(verbs: &str, cm: &str) -> Result<Libraries, Missing> {
    if !cfg!(all(target_arch = "x86_64", target_os = "linux", target_pointer_width = "64")) {
        // The structures hold the C library's locks, whose size is another elsewhere.
        let what = "the bindings are those of 64-bit Linux on x86-64; elsewhere".to_owned();
        return Err(Missing { what: format!("{what} scripts/rdma-bindings has to make others") });
    }
    let named = |name: &str, error: &dyn fmt::Display| {
        // The loader says the name itself when it does not find the file.
        let said = error.to_string();
        let what = if said.starts_with(name) { said } else { format!("{name}: {said}") };
        Missing { what }
    };
    // SAFETY: loading runs the libraries' own start-up code and nothing else. They are what the
    // system's loader finds by these names, the same code a linked program would start with.
    let verbs_functions = unsafe { Verbs::new(verbs) }.map_err(|e| named(verbs, &e))?;
    // SAFETY: as above.
    let cm_functions = unsafe { Cm::new(cm) }.map_err(|e| named(cm, &e))?;
    let libraries = Libraries { verbs: verbs_functions, cm: cm_functions };
    match missing_function(&libraries) {
        Some(what) => Err(Missing { what: format!("too old a version of rdma-core: {what}") }),
        None => Ok(libraries),
    }
}

fn missing_function(libraries: &Libraries) -> Option<String> {
    absent!(
        libraries.verbs,
        ibv_get_device_list,
        ibv_free_device_list,
        ibv_get_device_name,
        ibv_get_device_guid,
        ibv_open_device,
        ibv_close_device,
        ibv_query_device,
        ibv_query_port,
        _ibv_query_gid_ex,
        _ibv_query_gid_table,
        ibv_alloc_pd,
        ibv_dealloc_pd,
        ibv_reg_mr,
        ibv_reg_mr_iova,
        ibv_reg_mr_iova2,
        ibv_dereg_mr,
        ibv_create_comp_channel,
        ibv_destroy_comp_channel,
        ibv_create_cq,
        ibv_destroy_cq,
        ibv_get_cq_event,
        ibv_ack_cq_events,
        ibv_create_srq,
        ibv_modify_srq,
        ibv_query_srq,
        ibv_destroy_srq,
        ibv_create_qp,
        ibv_modify_qp,
        ibv_destroy_qp,
        ibv_qp_to_qp_ex,
        ibv_wc_status_str,
    )
    .or_else(|| {
        absent!(
            libraries.cm,
            rdma_create_event_channel,
            rdma_destroy_event_channel,
            rdma_create_id,
            rdma_destroy_id,
            rdma_bind_addr,
            rdma_listen,
            rdma_resolve_addr,
            rdma_resolve_route,
            rdma_connect,
            rdma_establish,
            rdma_accept,
            rdma_reject,
            rdma_disconnect,
            rdma_init_qp_attr,
            rdma_get_cm_event,
            rdma_ack_cm_event,
            rdma_event_str,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missing_library_is_named_with_what_to_install() {
        let Err(missing) = load("libno-such-verbs.so.1", CM_LIBRARY) else {
            panic!("a library of this name was loaded");
        };
        let said = missing.to_string();
        assert!(said.starts_with("libno-such-verbs.so.1: cannot open"), "{said}");
        assert!(said.ends_with("; install libibverbs1 ibverbs-providers librdmacm1"), "{said}");
    }

    #[test]
    fn a_library_without_the_functions_is_refused_by_the_function_that_it_lacks() {
        let Err(missing) = load("libc.so.6", "libc.so.6") else {
            panic!("the C library passed for verbs");
        };
        assert!(missing.to_string().contains("ibv_get_device_list"), "{missing}");
    }
}
