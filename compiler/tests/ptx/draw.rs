//! Shapes for tests.

/// Numbers that look random, the same in every run.
pub struct Draw(pub u64);

impl Draw {
    /// One of `low..=high`.
    pub fn of(&mut self, low: usize, high: usize) -> usize {
        self.0 = self.0.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        low + (self.0 >> 33) as usize % (high - low + 1)
    }
}
