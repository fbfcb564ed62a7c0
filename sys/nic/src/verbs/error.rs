//! Errors that name the call, the object and the numbers.

use std::fmt;
use std::io;

use nix::sys::resource::{Resource, getrlimit};

/// A call that failed.
#[derive(Debug)]
pub struct NicError {
    /// The function, as its manual page is called.
    pub call: &'static str,
    /// What it was called for, with the numbers.
    pub object: String,
    /// The system's answer.
    pub source: io::Error,
}

impl NicError {
    pub(crate) fn new(call: &'static str, object: impl Into<String>, source: io::Error) -> Self {
        Self { call, object: object.into(), source }
    }

    /// The error of a call that has just set `errno`.
    pub(crate) fn last(call: &'static str, object: impl Into<String>) -> Self {
        let source = io::Error::last_os_error();
        Self::new(call, object, source)
    }

    /// The error of a call that returned the number itself.
    pub(crate) fn number(call: &'static str, object: impl Into<String>, number: i32) -> Self {
        Self::new(call, object, io::Error::from_raw_os_error(number))
    }

    /// An argument that no device could take.
    pub(crate) fn refused(
        call: &'static str,
        object: impl Into<String>,
        why: impl Into<String>,
    ) -> Self {
        Self::new(call, object, io::Error::new(io::ErrorKind::InvalidInput, why.into()))
    }

    fn advice(&self) -> Option<String> {
        match (self.call, self.source.kind()) {
            ("ibv_reg_mr", io::ErrorKind::OutOfMemory) => Some(format!(
                "raise the lock limit (ulimit -l), now {}",
                match getrlimit(Resource::RLIMIT_MEMLOCK) {
                    Ok((u64::MAX, _)) => "without bound, or the device's own number of regions \
                                          is used up"
                        .to_owned(),
                    Ok((bytes, _)) => format!("{bytes} bytes"),
                    Err(error) => format!("unknown ({error})"),
                }
            )),
            ("ibv_reg_mr", _) if self.source.raw_os_error() == Some(nix::libc::EFAULT) => {
                Some("NICs pin tmpfs, huge pages and devdax, and no file of a disk".to_owned())
            }
            (_, io::ErrorKind::PermissionDenied) => {
                Some("let this user open /dev/infiniband (group rdma)".to_owned())
            }
            _ => None,
        }
    }
}

impl fmt::Display for NicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}: {}", self.call, self.object, self.source)?;
        match self.advice() {
            Some(advice) => write!(f, "; {advice}"),
            None => Ok(()),
        }
    }
}

impl std::error::Error for NicError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// Why this machine has no RDMA.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Unavailable {
    /// A library is missing or too old.
    Library(String),
    /// The kernel's part is missing.
    Kernel(String),
    /// Both are there, and no device is.
    NoDevice,
}

impl fmt::Display for Unavailable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Library(what) | Self::Kernel(what) => write!(f, "no RDMA here: {what}"),
            Self::NoDevice => write!(
                f,
                "no RDMA here: the kernel knows no RDMA device; load the driver of the NIC, or \
                 make a soft one (rdma link add rxe0 type rxe netdev INTERFACE)"
            ),
        }
    }
}

impl std::error::Error for Unavailable {}

impl From<Unavailable> for NicError {
    fn from(reason: Unavailable) -> Self {
        Self::new("loading", "verbs", io::Error::new(io::ErrorKind::Unsupported, reason))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_says_the_call_the_object_the_answer_and_what_to_do() {
        let object = "1048576 bytes at 0x7000 on rxe0";
        let said = NicError::number("ibv_reg_mr", object, nix::libc::ENOMEM).to_string();
        assert!(said.starts_with("ibv_reg_mr of 1048576 bytes at 0x7000 on rxe0: "), "{said}");
        assert!(said.contains("; raise the lock limit (ulimit -l), now "), "{said}");
        let said = NicError::number("ibv_alloc_pd", "mlx5_0", nix::libc::ENODEV).to_string();
        assert_eq!(said, "ibv_alloc_pd of mlx5_0: No such device (os error 19)");
    }
}
