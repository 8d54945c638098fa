//! Theta sketches: how many different values there are, from a few thousand of their hashes ([KMV]).
//!
//! ```text
//!   value ─▶ hash in 0..2⁶³ ─▶ kept if less than theta; theta falls as more come
//!   distinct values ≈ hashes kept / (theta / 2⁶³)
//! ```
//!
//! What is written is the compact form of Apache DataSketches, so that every engine reads it.
//!
//! [KMV]: https://datasketches.apache.org/docs/Theta/ThetaSketches.html

use std::collections::HashSet;
use std::io::Cursor;

/// Hashes kept once there are more values: 4096, for an error of about 1.6%.
const NOMINAL: usize = 1 << 12;
/// Hashes held before the largest go.
const HELD_MAX: usize = 2 * NOMINAL;
/// The seed of DataSketches.
const SEED: u32 = 9001;
/// What stands in a sketch for that seed.
const SEED_HASH: [u8; 2] = [0xcc, 0x93];
/// No hash is greater.
const WHOLE: u64 = i64::MAX as u64;

/// A sketch being made.
#[derive(Debug, Clone)]
pub struct Sketch {
    theta: u64,
    hashes: HashSet<u64>,
}

impl Default for Sketch {
    fn default() -> Self {
        Self { theta: WHOLE, hashes: HashSet::new() }
    }
}

impl Sketch {
    /// Takes a value, in Iceberg's binary form. No bytes are no value, as DataSketches has it.
    pub fn add(&mut self, value: &[u8]) {
        if value.is_empty() {
            return;
        }
        // A slice of memory is always read.
        let Ok(hash) = murmur3::murmur3_x64_128(&mut Cursor::new(value), SEED) else { return };
        self.take((hash as u64) >> 1);
    }

    fn take(&mut self, hash: u64) {
        if hash == 0 || hash >= self.theta {
            return;
        }
        if self.hashes.insert(hash) && self.hashes.len() > HELD_MAX {
            self.cut();
        }
    }

    /// The same of both.
    pub fn merge(&mut self, other: &Self) {
        self.theta = self.theta.min(other.theta);
        let theta = self.theta;
        self.hashes.retain(|it| *it < theta);
        for hash in &other.hashes {
            self.take(*hash);
        }
    }

    /// Leaves the smallest hashes; theta is the next of them.
    fn cut(&mut self) {
        let mut all: Vec<u64> = self.hashes.drain().collect();
        let (kept, theta, _) = all.select_nth_unstable(NOMINAL);
        self.theta = *theta;
        self.hashes.extend(kept.iter().copied());
    }

    /// About how many different values there were; exact while they are few.
    pub fn estimate(&self) -> u64 {
        let share = self.theta as f64 / WHOLE as f64;
        (self.hashes.len() as f64 / share).round() as u64
    }

    /// The same with no more hashes than are written.
    #[must_use]
    pub fn compact(mut self) -> Self {
        if self.hashes.len() > NOMINAL {
            self.cut();
        }
        self
    }

    /// The compact form, with the hashes in order.
    pub fn encode(self) -> Vec<u8> {
        let compact = self.compact();
        compact.bytes()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut hashes: Vec<u64> = self.hashes.iter().copied().collect();
        hashes.sort_unstable();
        let is_cut = self.theta < WHOLE;
        // Read-only, compact, ordered; and what the rest is.
        let (longs, flags) = match (is_cut, hashes.as_slice()) {
            (false, []) => (1, 0b0001_1110),
            (false, [_]) => (1, 0b0011_1010),
            (false, _) => (2, 0b0001_1010),
            (true, _) => (3, 0b0001_1010),
        };
        let mut out = vec![longs, 3, 3, 0, 0, flags];
        out.extend_from_slice(&SEED_HASH);
        if longs > 1 {
            let count = u32::try_from(hashes.len()).unwrap_or(u32::MAX);
            out.extend_from_slice(&count.to_le_bytes());
            // The probability of being sampled, which all are.
            out.extend_from_slice(&1.0_f32.to_le_bytes());
        }
        if longs > 2 {
            out.extend_from_slice(&self.theta.to_le_bytes());
        }
        for hash in hashes {
            out.extend_from_slice(&hash.to_le_bytes());
        }
        out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(values: impl Iterator<Item = u32>) -> Sketch {
        let mut sketch = Sketch::default();
        values.for_each(|it| sketch.add(it.to_string().as_bytes()));
        sketch
    }

    #[test]
    fn few_are_counted_and_many_estimated() {
        assert_eq!(of(0..0).estimate(), 0);
        assert_eq!(of((0..1000).chain(0..1000)).estimate(), 1000);
        for count in [10_000, 1_000_000] {
            let found = of(0..count).estimate() as f64 / f64::from(count);
            assert!((found - 1.0).abs() < 0.06, "{found} of {count}");
        }
    }

    #[test]
    fn the_compact_form_is_that_of_datasketches() {
        let hex = |it: Sketch| -> String {
            it.encode().iter().map(|byte| format!("{byte:02x}")).collect()
        };
        let mut one = Sketch::default();
        one.add(b"");
        assert_eq!(hex(one.clone()), "01030300001ecc93");
        one.add(b"hello");
        assert_eq!(hex(one), "01030300003acc93d5e01a54eabddb10");
        let mut two = Sketch::default();
        two.add(b"a");
        two.add(b"b");
        let wanted = "02030300001acc93020000000000803f857f40b689c7e53417c11d528507017b";
        assert_eq!(hex(two), wanted);
        let many = of(0..100_000).encode();
        assert_eq!((many[0], many.len()), (3, 24 + 8 * NOMINAL));
    }

    #[test]
    fn sketches_of_parts_are_merged() {
        let (mut a, b) = (of(0..60_000), of(40_000..100_000));
        a.merge(&b);
        let found = a.estimate() as f64 / 100_000.0;
        assert!((found - 1.0).abs() < 0.06, "{found}");
        let mut c = Sketch::default();
        c.merge(&of(0..10));
        assert_eq!(c.estimate(), 10);
    }
}
