//! Devices that are open. One context serves all that is made on a device in this process.

use std::ffi::CStr;
use std::io;
use std::ptr::NonNull;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use rdma_sys::inlines::{ibv_query_device_ex, ibv_query_port};
use rdma_sys::types::{ibv_context, ibv_device, ibv_device_attr_ex, ibv_mtu, ibv_port_attr};
use rdma_sys::{Libraries, Verbs, libraries};

use crate::verbs::error::{NicError, Unavailable};

/// The libraries, or why there is no RDMA.
pub(crate) fn loaded() -> Result<&'static Libraries, Unavailable> {
    libraries().map_err(|missing| Unavailable::Library(missing.to_string()))
}

/// What the system lists.
pub(crate) struct Listed {
    verbs: &'static Verbs,
    raw: NonNull<*mut ibv_device>,
    count: usize,
}

impl Listed {
    pub(crate) fn new(verbs: &'static Verbs) -> Result<Self, Unavailable> {
        let mut count = 0;
        // SAFETY: `count` may be written.
        let raw = unsafe { verbs.ibv_get_device_list(&mut count) };
        let Some(raw) = NonNull::new(raw) else {
            let error = io::Error::last_os_error();
            return Err(Unavailable::Kernel(format!(
                "ibv_get_device_list: {error}; load the kernel's part (modprobe ib_uverbs rdma_ucm)"
            )));
        };
        Ok(Self { verbs, raw, count: usize::try_from(count).unwrap_or(0) })
    }

    pub(crate) fn devices(&self) -> impl Iterator<Item = *mut ibv_device> {
        // SAFETY: the list holds `count` pointers until it is freed.
        (0..self.count).map(|n| unsafe { *self.raw.as_ptr().add(n) })
    }
}

impl Drop for Listed {
    fn drop(&mut self) {
        // SAFETY: the list came from `ibv_get_device_list` and is freed once. Devices that were
        // opened from it stay open.
        unsafe { self.verbs.ibv_free_device_list(self.raw.as_ptr()) }
    }
}

/// The name of a device, such as `mlx5_0`.
///
/// # Safety
/// `device` is in a list that was not freed, or open.
pub(crate) unsafe fn name_of(verbs: &Verbs, device: *mut ibv_device) -> String {
    // SAFETY: the caller vouches for the device, whose name is a C string inside of it.
    unsafe { CStr::from_ptr(verbs.ibv_get_device_name(device)) }.to_string_lossy().into_owned()
}

/// An open device.
pub(crate) struct Device {
    verbs: &'static Verbs,
    context: NonNull<ibv_context>,
    name: String,
    bounds_windows: bool,
}

// SAFETY: verbs may be called from any thread at once; the rest is never changed.
unsafe impl Send for Device {}
// SAFETY: as above.
unsafe impl Sync for Device {}

static OPEN: Mutex<Vec<Weak<Device>>> = Mutex::new(Vec::new());

impl Device {
    /// The device of this name, opened or shared with whoever has it open.
    pub(crate) fn named(name: &str) -> Result<Arc<Self>, NicError> {
        let mut open = OPEN.lock().unwrap_or_else(PoisonError::into_inner);
        open.retain(|device| device.strong_count() > 0);
        if let Some(shared) = open.iter().filter_map(Weak::upgrade).find(|d| d.name == name) {
            return Ok(shared);
        }
        let verbs = &loaded()?.verbs;
        let listed = Listed::new(verbs)?;
        // SAFETY: the list lives on.
        let found = listed.devices().find(|raw| unsafe { name_of(verbs, *raw) } == name);
        let Some(raw) = found else {
            return Err(NicError::number("ibv_open_device", name, nix::libc::ENODEV));
        };
        // SAFETY: the list lives on.
        let device = Arc::new(unsafe { Self::open(verbs, raw) }?);
        open.push(Arc::downgrade(&device));
        Ok(device)
    }

    /// Opens a device.
    ///
    /// # Safety
    /// `raw` is in a list that was not freed.
    pub(crate) unsafe fn open(
        verbs: &'static Verbs,
        raw: *mut ibv_device,
    ) -> Result<Self, NicError> {
        // SAFETY: the caller vouches for `raw`.
        let (name, context) = unsafe { (name_of(verbs, raw), verbs.ibv_open_device(raw)) };
        let Some(context) = NonNull::new(context) else {
            return Err(NicError::last("ibv_open_device", name));
        };
        let bounds_windows = driver_of(&name) != SOFT_ROCE;
        Ok(Self { verbs, context, name, bounds_windows })
    }

    pub(crate) fn verbs(&self) -> &'static Verbs {
        self.verbs
    }

    pub(crate) fn context(&self) -> *mut ibv_context {
        self.context.as_ptr()
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// Whether the device holds a window to its own range. Soft-RoCE checks the range of the
    /// region that the window is bound to.
    pub(crate) fn bounds_windows(&self) -> bool {
        self.bounds_windows
    }

    /// What the device can do.
    pub(crate) fn attributes(&self) -> Result<ibv_device_attr_ex, NicError> {
        // SAFETY: the structure holds integers and arrays of them, for which zeros are values.
        let mut into: ibv_device_attr_ex = unsafe { std::mem::zeroed() };
        // SAFETY: the device is open and `into` may be written.
        let result =
            unsafe { ibv_query_device_ex(self.verbs, self.context(), std::ptr::null(), &mut into) };
        match result {
            0 => Ok(into),
            number => Err(NicError::number("ibv_query_device_ex", &self.name, number)),
        }
    }

    /// What a port can do and how it is now.
    pub(crate) fn port(&self, number: u8) -> Result<ibv_port_attr, NicError> {
        // SAFETY: the device is open.
        unsafe { port(self.verbs, self.context(), &self.name, number) }
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        // SAFETY: everything that was made on the context held this device and is gone. An error
        // could only be ignored: the descriptor is closed either way.
        unsafe { self.verbs.ibv_close_device(self.context()) };
    }
}

/// What a port of an open device can do and how it is now.
///
/// # Safety
/// `context` is open.
pub(crate) unsafe fn port(
    verbs: &Verbs,
    context: *mut ibv_context,
    name: &str,
    number: u8,
) -> Result<ibv_port_attr, NicError> {
    // SAFETY: the structure holds integers only, for which zeros are values.
    let mut into: ibv_port_attr = unsafe { std::mem::zeroed() };
    // SAFETY: the caller vouches for the context, and `into` may be written.
    match unsafe { ibv_query_port(verbs, context, number, &mut into) } {
        0 => Ok(into),
        error => Err(NicError::number("ibv_query_port", format!("port {number} of {name}"), error)),
    }
}

/// The driver of soft-RoCE.
const SOFT_ROCE: &str = "rdma_rxe";

/// The driver behind a device. One without hardware has no link to its driver; soft-RoCE is
/// recognised by the name of its interface, which it alone shows.
pub(crate) fn driver_of(name: &str) -> String {
    let at = format!("/sys/class/infiniband/{name}");
    if let Ok(driver) = std::fs::read_link(format!("{at}/device/driver"))
        && let Some(last) = driver.file_name()
    {
        return last.to_string_lossy().into_owned();
    }
    let soft = std::fs::exists(format!("{at}/parent")).unwrap_or(false);
    if soft { SOFT_ROCE.to_owned() } else { String::new() }
}

/// Bytes of an MTU in verbs' numbering, in which 1 is 256 and every step doubles.
pub(crate) fn mtu_bytes(mtu: ibv_mtu) -> u32 {
    if (1..=16).contains(&mtu) { 128 << mtu } else { 256 }
}

/// The largest MTU in verbs' numbering that is no larger than `bytes`, and at least 256 bytes.
pub(crate) fn mtu_within(bytes: u32) -> ibv_mtu {
    (2..=5).rev().find(|mtu| mtu_bytes(*mtu) <= bytes).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_mtu_is_rounded_down_to_one_that_verbs_know() {
        let expected = [(0, 256), (255, 256), (256, 256), (1023, 512), (1024, 1024), (9000, 4096)];
        for (bytes, rounded) in expected {
            assert_eq!(mtu_bytes(mtu_within(bytes)), rounded, "{bytes}");
        }
    }
}
