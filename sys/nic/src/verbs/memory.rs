//! Protection domains and memory regions.

use std::ptr::NonNull;
use std::sync::Arc;

use landfall_pool::Mapping;
use landfall_pool::slab::Slab;
use rdma_sys::inlines::ibv_reg_mr_iova;
use rdma_sys::types::{
    IBV_ACCESS_LOCAL_WRITE, IBV_ACCESS_MW_BIND, IBV_ACCESS_REMOTE_READ, IBV_ACCESS_REMOTE_WRITE,
    ibv_mr, ibv_pd,
};

use crate::verbs::device::Device;
use crate::verbs::error::NicError;

/// A protection domain: keys of one domain mean nothing to queues of another. Clones are the same
/// domain, which ends with the last thing that was made on it.
#[derive(Clone)]
pub struct Domain(Arc<DomainInner>);

struct DomainInner {
    raw: NonNull<ibv_pd>,
    device: Arc<Device>,
}

// SAFETY: verbs may be called from any thread at once.
unsafe impl Send for DomainInner {}
// SAFETY: as above.
unsafe impl Sync for DomainInner {}

impl Domain {
    /// A new domain on the device of this name.
    pub fn on(device: &str) -> Result<Self, NicError> {
        let device = Device::named(device)?;
        // SAFETY: the device is open.
        let raw = unsafe { device.verbs().ibv_alloc_pd(device.context()) };
        let Some(raw) = NonNull::new(raw) else {
            return Err(NicError::last("ibv_alloc_pd", device.name()));
        };
        Ok(Self(Arc::new(DomainInner { raw, device })))
    }

    /// The device's name.
    pub fn device_name(&self) -> &str {
        self.0.device.name()
    }

    pub(crate) fn device(&self) -> &Arc<Device> {
        &self.0.device
    }

    pub(crate) fn raw(&self) -> *mut ibv_pd {
        self.0.raw.as_ptr()
    }
}

impl Drop for DomainInner {
    fn drop(&mut self) {
        // SAFETY: whatever was made on the domain held it and is gone. Should the kernel think
        // otherwise, the domain is freed with the device.
        unsafe { self.device.verbs().ibv_dealloc_pd(self.raw.as_ptr()) };
    }
}

/// What may be done to a region. There is no default: every right is spelled out where it is
/// given.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Access {
    /// This side's NIC may write: needed to land the data of a READ, and for `remote_write`.
    pub local_write: bool,
    /// Whoever has the key may read.
    pub remote_read: bool,
    /// Whoever has the key may write.
    pub remote_write: bool,
    /// Windows may be bound to it.
    pub windows: bool,
}

impl Access {
    fn flags(self) -> u32 {
        let flag = |given: bool, bit: u32| if given { bit } else { 0 };
        flag(self.local_write, IBV_ACCESS_LOCAL_WRITE)
            | flag(self.remote_read, IBV_ACCESS_REMOTE_READ)
            | flag(self.remote_write, IBV_ACCESS_REMOTE_WRITE)
            | flag(self.windows, IBV_ACCESS_MW_BIND)
    }
}

/// Memory that NICs can reach. Its addresses, here and on the other side, are offsets in the
/// mapping or the slab that it is of.
pub struct Region(Arc<RegionInner>);

pub(crate) struct RegionInner {
    raw: NonNull<ibv_mr>,
    local_key: u32,
    remote_key: u32,
    first: *mut u8,
    at: u64,
    bytes: u64,
    access: Access,
    domain: Domain,
    memory: Option<Memory>,
}

/// What has to stay mapped as long as the region.
#[derive(Clone)]
enum Memory {
    Mapping(Arc<Mapping>),
    Slab(Arc<Slab>),
}

// SAFETY: verbs may be called from any thread at once, and `first` is only given to the device.
unsafe impl Send for RegionInner {}
// SAFETY: as above.
unsafe impl Sync for RegionInner {}

impl Region {
    /// Registers `bytes` bytes at `at` of a mapping.
    pub fn of_mapping(
        domain: &Domain,
        memory: &Arc<Mapping>,
        at: u64,
        bytes: u64,
        access: Access,
    ) -> Result<Self, NicError> {
        let object = || {
            let name = domain.device_name();
            format!("{bytes} bytes at {at} of a mapping of {} on {name}", memory.bytes())
        };
        let inside = at.checked_add(bytes).is_some_and(|end| end <= memory.bytes());
        if bytes == 0 || !inside {
            return Err(NicError::refused("ibv_reg_mr", object(), "not inside the mapping"));
        }
        if access.local_write && !memory.is_writable() {
            let why = "the mapping is only for reading, and the right to write was asked for";
            return Err(NicError::refused("ibv_reg_mr", object(), why));
        }
        // SAFETY: `at < end <= bytes` of the mapping, so this is inside of it.
        let first = unsafe { memory.base().add(at as usize) };
        let memory = Memory::Mapping(Arc::clone(memory));
        // SAFETY: `memory` keeps the bytes at `first` mapped, and they are shared words: what a
        // NIC writes there, this side reads as atomics or under a hold.
        unsafe { Self::register(domain, memory, first, (at, bytes), access, object) }
    }

    /// Registers all of a slab, to send from or to be read from.
    ///
    /// A right to write is refused: the buffers are their holders' own memory.
    pub fn of_slab(domain: &Domain, slab: &Arc<Slab>, access: Access) -> Result<Self, NicError> {
        let bytes = slab.bytes();
        let object = || format!("a slab of {bytes} bytes on {}", domain.device_name());
        if access.local_write || access.remote_write {
            let why = "NICs only read from slabs; let them write to a mapping";
            return Err(NicError::refused("ibv_reg_mr", object(), why));
        }
        let memory = Memory::Slab(Arc::clone(slab));
        // SAFETY: `memory` keeps the bytes mapped, and no NIC writes to them.
        unsafe { Self::register(domain, memory, slab.base(), (0, bytes), access, object) }
    }

    /// Registers `bytes` bytes at `first` under the address `at`.
    ///
    /// # Safety
    /// `memory` keeps them mapped, and a NIC may do to them what `access` says.
    unsafe fn register(
        domain: &Domain,
        memory: Memory,
        first: *mut u8,
        (at, bytes): (u64, u64),
        access: Access,
        object: impl Fn() -> String,
    ) -> Result<Self, NicError> {
        if access.remote_write && !access.local_write {
            let why = "the right to write from afar needs the right to write from here";
            return Err(NicError::refused("ibv_reg_mr", object(), why));
        }
        let verbs = domain.device().verbs();
        // SAFETY: the domain is live; the caller vouches for the memory, which `Region` keeps.
        let raw = unsafe {
            let bytes = bytes as usize;
            ibv_reg_mr_iova(verbs, domain.raw(), first.cast(), bytes, at, access.flags())
        };
        let Some(raw) = NonNull::new(raw) else {
            return Err(NicError::last("ibv_reg_mr", object()));
        };
        // SAFETY: a region that was just made, whose keys do not change.
        let (local_key, remote_key) = unsafe { (raw.as_ref().lkey, raw.as_ref().rkey) };
        let (domain, memory) = (domain.clone(), Some(memory));
        Ok(Self(Arc::new(RegionInner {
            raw,
            local_key,
            remote_key,
            first,
            at,
            bytes,
            access,
            domain,
            memory,
        })))
    }

    /// The key that lets the other side do what the registration allows.
    pub fn remote_key(&self) -> u32 {
        self.0.remote_key
    }

    /// Where it begins in its mapping or slab.
    pub fn at(&self) -> u64 {
        self.0.at
    }

    /// Bytes registered.
    pub fn bytes(&self) -> u64 {
        self.0.bytes
    }

    pub(crate) fn inner(&self) -> &Arc<RegionInner> {
        &self.0
    }
}

impl RegionInner {
    pub(crate) fn raw(&self) -> *mut ibv_mr {
        self.raw.as_ptr()
    }

    pub(crate) fn is_of(&self, domain: &Domain) -> bool {
        Arc::ptr_eq(&self.domain.0, &domain.0)
    }

    /// A region of its own for `bytes` bytes at `at` of this one.
    pub(crate) fn part(&self, at: u64, bytes: u64) -> Result<Region, NicError> {
        let object = || {
            let name = self.domain.device_name();
            format!("{bytes} bytes at {at}, for a window, on {name}")
        };
        let from = at.checked_sub(self.at);
        let inside = from.filter(|from| {
            bytes > 0 && from.checked_add(bytes).is_some_and(|end| end <= self.bytes)
        });
        let (Some(from), Some(memory)) = (inside, &self.memory) else {
            return Err(NicError::refused("ibv_reg_mr", object(), "not inside the region"));
        };
        // SAFETY: `from < end <= bytes` of the region, so this is inside of its memory.
        let first = unsafe { self.first.add(from as usize) };
        // SAFETY: `memory` keeps the bytes mapped, and the rights are those of this region.
        unsafe {
            let memory = memory.clone();
            Region::register(&self.domain, memory, first, (at, bytes), self.access, object)
        }
    }

    pub(crate) fn local_key(&self) -> u32 {
        self.local_key
    }

    /// This process's address of `bytes` bytes at `at`, if they are inside the region.
    pub(crate) fn address(&self, at: u64, bytes: u32) -> Option<u64> {
        let from = at.checked_sub(self.at)?;
        let end = from.checked_add(u64::from(bytes))?;
        (end <= self.bytes).then(|| self.first as u64 + from)
    }
}

impl Drop for RegionInner {
    fn drop(&mut self) {
        // SAFETY: the region came from a registration and is given back once.
        let result = unsafe { self.domain.device().verbs().ibv_dereg_mr(self.raw()) };
        if result != 0 {
            // The NIC can still reach the memory, so it has to stay mapped until the process ends.
            match self.memory.take() {
                Some(Memory::Mapping(mapping)) => std::mem::forget(mapping),
                Some(Memory::Slab(slab)) => std::mem::forget(slab),
                None => {}
            }
        }
    }
}
