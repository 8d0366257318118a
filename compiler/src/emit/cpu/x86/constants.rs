//! The constants behind a function's code: numbers and vectors, each once.

use std::collections::HashMap;

/// Constants, in the order of their first use.
#[derive(Clone, Debug, Default)]
pub struct Constants {
    bytes: Vec<u8>,
    known: HashMap<Vec<u32>, u32>,
}

impl Constants {
    /// The place of words side by side; aligned to their size.
    pub fn place(&mut self, words: &[u32]) -> i32 {
        if let Some(at) = self.known.get(words) {
            return *at as i32;
        }
        let size = words.len() * 4;
        let at = self.bytes.len().next_multiple_of(size);
        self.bytes.resize(at, 0);
        self.bytes.extend(words.iter().flat_map(|w| w.to_le_bytes()));
        self.known.insert(words.to_vec(), at as u32);
        at as i32
    }

    /// The words at a place.
    pub fn words(&self, place: i32, count: usize) -> impl Iterator<Item = u32> + '_ {
        let bytes = &self.bytes[place as usize..place as usize + 4 * count];
        bytes.chunks_exact(4).map(|w| u32::from_le_bytes(w.try_into().expect("four bytes")))
    }

    /// All of them; to be placed at a multiple of 64 bytes.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }
}
