//! The numbers that made-up weights and inputs are built from; see `reference.rs`.

/// Weyl increment and mixing constants of splitmix64 (Steele, Lea, Flood: OOPSLA 2014).
const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;

/// The first `n` numbers of a name, in `[0, 1)`.
pub fn unit(name: &str, n: usize) -> impl Iterator<Item = f32> {
    let fnv = |h: u64, b: u8| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3);
    let seed = name.bytes().fold(0xCBF2_9CE4_8422_2325, fnv);
    (1..=n as u64).map(move |i| {
        let z = seed.wrapping_add(i.wrapping_mul(GOLDEN));
        let z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        let z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) >> 40) as f32 / 16_777_216.0
    })
}
