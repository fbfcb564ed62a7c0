//! Socket addresses, between Rust's form and the one that rdma_cm holds.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};

use nix::libc::{AF_INET, AF_INET6};
use rdma_sys::types::{rdma_addr__bindgen_ty_1, sockaddr, sockaddr_in, sockaddr_in6};

/// An address in C's form. It begins like a `sockaddr` and has room for every kind.
pub(crate) struct Raw(rdma_addr__bindgen_ty_1);

impl Raw {
    pub(crate) fn as_mut_ptr(&mut self) -> *mut sockaddr {
        (&raw mut self.0).cast()
    }
}

impl From<SocketAddr> for Raw {
    fn from(address: SocketAddr) -> Self {
        // SAFETY: all of its members are integers and arrays of them, for which zeros are values.
        let mut raw: rdma_addr__bindgen_ty_1 = unsafe { std::mem::zeroed() };
        match address {
            SocketAddr::V4(v4) => {
                // SAFETY: as above.
                let mut to: sockaddr_in = unsafe { std::mem::zeroed() };
                to.sin_family = AF_INET as u16;
                to.sin_port = v4.port().to_be();
                to.sin_addr.s_addr = u32::from_ne_bytes(v4.ip().octets());
                raw.src_sin = to;
            }
            SocketAddr::V6(v6) => {
                // SAFETY: as above.
                let mut to: sockaddr_in6 = unsafe { std::mem::zeroed() };
                to.sin6_family = AF_INET6 as u16;
                to.sin6_port = v6.port().to_be();
                to.sin6_addr.__in6_u.__u6_addr8 = v6.ip().octets();
                to.sin6_scope_id = v6.scope_id();
                raw.src_sin6 = to;
            }
        }
        Self(raw)
    }
}

/// The address at `from`, if it is one of IP.
///
/// # Safety
/// `from` points to an address with room for what its family says.
pub(crate) unsafe fn read(from: *const sockaddr) -> Option<SocketAddr> {
    // SAFETY: the caller vouches for the family and for what follows it. The structures hold
    // integers only, and may lie at any address.
    unsafe {
        match i32::from((*from).sa_family) {
            AF_INET => {
                let v4 = from.cast::<sockaddr_in>().read_unaligned();
                let ip = Ipv4Addr::from(v4.sin_addr.s_addr.to_ne_bytes());
                Some(SocketAddr::from((ip, u16::from_be(v4.sin_port))))
            }
            AF_INET6 => {
                let v6 = from.cast::<sockaddr_in6>().read_unaligned();
                let ip = Ipv6Addr::from(v6.sin6_addr.__in6_u.__u6_addr8);
                let port = u16::from_be(v6.sin6_port);
                Some(SocketAddr::V6(SocketAddrV6::new(ip, port, 0, v6.sin6_scope_id)))
            }
            _ => None,
        }
    }
}

/// An address that stands for "none", where a value has to be.
pub(crate) fn unknown() -> SocketAddr {
    SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_comes_back_as_it_went() {
        for text in ["10.0.0.1:7001", "[fe80::1%3]:80", "[2001:db8::2]:65535"] {
            let address: SocketAddr = text.parse().unwrap();
            let mut raw = Raw::from(address);
            // SAFETY: `Raw` has room for every kind of address.
            assert_eq!(unsafe { read(raw.as_mut_ptr()) }, Some(address));
        }
    }
}
