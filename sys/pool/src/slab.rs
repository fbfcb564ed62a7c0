//! Private memory in equal buffers, registered once and handed out one by one.

use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};

use memmap2::{MmapOptions, MmapRaw};

use landfall_layout::limits::LINE_BYTES;

/// One anonymous mapping carved into buffers of equal size.
///
/// A NIC that has it registered reads buffers to send them. It never writes to one: a buffer that
/// is handed out is its holder's alone, so `landfall-nic` refuses every right to write to a slab.
pub struct Slab {
    raw: MmapRaw,
    buffers: u32,
    bytes_each: u32,
    /// Indices of the buffers that nobody holds. The last one returned goes out first, while its
    /// lines are still in the cache.
    free: Mutex<Vec<u32>>,
}

impl Slab {
    /// Maps `buffers` buffers of `bytes_each` bytes, which is a multiple of the line.
    pub fn new(buffers: u32, bytes_each: u32) -> io::Result<Arc<Self>> {
        if buffers == 0 || bytes_each == 0 || !u64::from(bytes_each).is_multiple_of(LINE_BYTES) {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!(
                    "a slab of {buffers} buffers of {bytes_each} bytes: say at least one buffer, \
                     and a multiple of {LINE_BYTES} bytes"
                ),
            ));
        }
        let bytes = buffers as usize * bytes_each as usize;
        let map = MmapOptions::new().len(bytes).map_anon().map_err(|error| {
            io::Error::new(error.kind(), format!("map {bytes} bytes for a slab: {error}"))
        })?;
        let free = Mutex::new((0..buffers).rev().collect());
        Ok(Arc::new(Self { raw: MmapRaw::from(map), buffers, bytes_each, free }))
    }

    /// A buffer, if one is free. Its bytes are what its last holder left.
    pub fn take(self: &Arc<Self>) -> Option<SlabBuffer> {
        let index = self.free.lock().unwrap_or_else(PoisonError::into_inner).pop()?;
        Some(SlabBuffer { slab: Arc::clone(self), index })
    }

    /// Bytes of all buffers.
    pub fn bytes(&self) -> u64 {
        u64::from(self.buffers) * u64::from(self.bytes_each)
    }

    /// Bytes of one buffer.
    pub fn bytes_each(&self) -> u32 {
        self.bytes_each
    }

    /// Where the mapping begins, for registering it with a NIC; [`bytes`](Self::bytes) of it are
    /// mapped until the slab is dropped.
    pub fn base(&self) -> *mut u8 {
        self.raw.as_mut_ptr()
    }
}

/// A buffer of a [`Slab`], its holder's alone until it is dropped, which gives it back.
///
/// Whoever posts it to a NIC keeps it until the work request has completed: the next holder's
/// bytes would be sent otherwise.
pub struct SlabBuffer {
    slab: Arc<Slab>,
    index: u32,
}

impl SlabBuffer {
    /// Where the buffer begins, in bytes from the start of its slab.
    pub fn at(&self) -> u64 {
        u64::from(self.index) * u64::from(self.slab.bytes_each)
    }

    /// The slab it came from.
    pub fn slab(&self) -> &Arc<Slab> {
        &self.slab
    }

    fn address(&self) -> *mut u8 {
        // SAFETY: `index < buffers`, so the buffer lies inside the mapping.
        unsafe { self.slab.raw.as_mut_ptr().add(self.at() as usize) }
    }
}

impl Deref for SlabBuffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        // SAFETY:
        // - valid: the buffer lies inside the mapping, which the slab keeps, and anonymous memory
        //   starts as zeros;
        // - no exclusive alias: an index is in the free list or in one `SlabBuffer`, never in two,
        //   and nothing else makes references into the mapping.
        unsafe { std::slice::from_raw_parts(self.address(), self.slab.bytes_each as usize) }
    }
}

impl DerefMut for SlabBuffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as in `deref`, and `self` is borrowed exclusively.
        unsafe { std::slice::from_raw_parts_mut(self.address(), self.slab.bytes_each as usize) }
    }
}

impl Drop for SlabBuffer {
    fn drop(&mut self) {
        // The list had room for every index when it was made, so this does not allocate.
        self.slab.free.lock().unwrap_or_else(PoisonError::into_inner).push(self.index);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_buffer_is_handed_out_once_and_comes_back() {
        let slab = Slab::new(3, 128).unwrap();
        assert_eq!((slab.bytes(), slab.bytes_each()), (384, 128));
        let mut held: Vec<_> = (0..3).map(|_| slab.take().unwrap()).collect();
        assert!(slab.take().is_none(), "a fourth buffer of three");
        let mut places: Vec<_> = held.iter().map(SlabBuffer::at).collect();
        places.sort_unstable();
        assert_eq!(places, [0, 128, 256]);
        for (n, buffer) in held.iter_mut().enumerate() {
            buffer.fill(n as u8 + 1);
        }
        for (n, buffer) in held.iter().enumerate() {
            assert!(buffer.iter().all(|byte| *byte == n as u8 + 1), "buffer {n} was overwritten");
        }
        let returned = held.pop().unwrap().at();
        assert_eq!(slab.take().unwrap().at(), returned);
    }

    #[test]
    fn a_buffer_keeps_its_slab_and_may_go_to_another_thread() {
        let mut buffer = Slab::new(1, 64).unwrap().take().unwrap();
        buffer[63] = 7;
        let seen = std::thread::spawn(move || buffer[63]).join().unwrap();
        assert_eq!(seen, 7);
    }

    #[test]
    fn odd_sizes_are_refused_with_the_numbers() {
        for (buffers, bytes_each) in [(0, 64), (1, 0), (1, 65)] {
            let Err(error) = Slab::new(buffers, bytes_each) else {
                panic!("{buffers} buffers of {bytes_each} bytes were mapped");
            };
            assert!(error.to_string().contains(&format!("{bytes_each} bytes")), "{error}");
        }
    }
}
