//! Which segments are free. Only a cache: segment headers are the truth.

/// One bit a segment, set while it is in use.
#[derive(Debug)]
pub struct Bitmap {
    words: Vec<u64>,
    segments: u32,
    free: u32,
    /// No segment below this word is free.
    first: usize,
}

impl Bitmap {
    /// All of `segments` free.
    pub fn new(segments: u32) -> Self {
        let mut words = vec![0; segments.div_ceil(64) as usize];
        // Bits past the last segment are taken for ever, so that a search never finds them.
        if let (Some(last), 1..) = (words.last_mut(), segments % 64) {
            *last = u64::MAX << (segments % 64);
        }
        Self { words, segments, free: segments, first: 0 }
    }

    /// Segments that are free.
    pub fn free(&self) -> u32 {
        self.free
    }

    /// Segments in all.
    pub fn segments(&self) -> u32 {
        self.segments
    }

    /// Whether a segment is in use; one that does not exist is.
    pub fn is_taken(&self, segment: u32) -> bool {
        segment >= self.segments || self.words[segment as usize / 64] >> (segment % 64) & 1 == 1
    }

    /// Takes the lowest free segment.
    pub fn take(&mut self) -> Option<u32> {
        while let Some(word) = self.words.get(self.first) {
            if *word != u64::MAX {
                let segment = self.first as u32 * 64 + word.trailing_ones();
                self.mark(segment);
                return Some(segment);
            }
            self.first += 1;
        }
        None
    }

    /// Notes that a segment is in use; false when it was already.
    pub fn mark(&mut self, segment: u32) -> bool {
        if self.is_taken(segment) {
            return false;
        }
        self.words[segment as usize / 64] |= 1 << (segment % 64);
        self.free -= 1;
        true
    }

    /// Notes that a segment is free; false when it was already.
    pub fn give_back(&mut self, segment: u32) -> bool {
        if segment >= self.segments || !self.is_taken(segment) {
            return false;
        }
        self.words[segment as usize / 64] &= !(1 << (segment % 64));
        self.free += 1;
        self.first = self.first.min(segment as usize / 64);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_segment_is_given_out_once() {
        for segments in [1, 8, 63, 64, 65, 200] {
            let mut bitmap = Bitmap::new(segments);
            let given: Vec<u32> = std::iter::from_fn(|| bitmap.take()).collect();
            assert_eq!(given, (0..segments).collect::<Vec<_>>());
            assert_eq!(bitmap.free(), 0);
        }
    }

    #[test]
    fn what_comes_back_is_given_out_again_lowest_first() {
        let mut bitmap = Bitmap::new(130);
        while bitmap.take().is_some() {}
        assert!(bitmap.give_back(129) && bitmap.give_back(3));
        assert!(!bitmap.give_back(3), "it was free already");
        assert!(!bitmap.give_back(130), "there is no such segment");
        assert_eq!(bitmap.free(), 2);
        assert_eq!([bitmap.take(), bitmap.take(), bitmap.take()], [Some(3), Some(129), None]);
    }

    #[test]
    fn a_marked_segment_is_not_given_out() {
        let mut bitmap = Bitmap::new(3);
        assert!(bitmap.mark(0) && bitmap.mark(1));
        assert!(!bitmap.mark(1));
        assert!(bitmap.is_taken(7), "a segment that does not exist cannot be had");
        assert_eq!([bitmap.take(), bitmap.take()], [Some(2), None]);
    }
}
