//! How an `mma` adds up products. PTX says only that sums have single precision at least; these are the best that could be,
//! and what GPUs were found to do.

/// What `mma` makes of its products and the accumulator.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sums {
    /// Summed in double precision, rounded to nearest once.
    #[default]
    Rounded,
    /// Some products and the accumulator are aligned to the largest of them and cut off there (rounded towards zero), and
    /// their sum is cut off to an f32; then come the next products. Here four products of TF32 or eight of 16 bits go
    /// together, aligned with two bits more than an f32 has; GPUs differ in both. (M. Fasi, N. Higham, M. Mikaitis,
    /// S. Pranesh, Numerical behavior of NVIDIA tensor cores, 2021.)
    Truncated,
}

/// Bits of an f32 behind the point.
const FRACTION: i32 = 23;
/// Bits below those that are kept until all addends are summed.
const GUARDS: i32 = 2;
/// The exponent of the smallest normal f32.
const LOWEST: i32 = -126;

/// The accumulator and products, so many at a time.
pub(super) fn truncated(accumulator: f32, products: &[f64], together: usize) -> f32 {
    products.chunks(together).fold(accumulator, cut_sum)
}

fn cut_sum(accumulator: f32, products: &[f64]) -> f32 {
    let addends = || products.iter().copied().chain([f64::from(accumulator)]);
    let largest = addends().fold(0.0, |m: f64, x| m.max(x.abs()));
    if largest == 0.0 || !largest.is_finite() || accumulator.is_nan() {
        return addends().sum::<f64>() as f32;
    }
    // Products of f32 are no subnormal f64.
    let exponent = (largest.to_bits() >> 52) as i32 - 1023;
    let last_bit = f64::from(exponent.max(LOWEST) - FRACTION - GUARDS).exp2();
    toward_zero(addends().map(|x| (x / last_bit).trunc()).sum::<f64>() * last_bit)
}

fn toward_zero(x: f64) -> f32 {
    let nearest = x as f32;
    match f64::from(nearest).abs() > x.abs() && nearest.is_finite() {
        true if nearest > 0.0 => nearest.next_down(),
        true => nearest.next_up(),
        false => nearest,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_addends_are_cut_off() {
        let bit = f64::from(FRACTION).exp2().recip();
        assert_eq!(truncated(1.0, &[bit / 8.0; 8], 4), 1.0);
        assert_eq!(truncated(1.0, &[bit * 0.3; 4], 4), 1.0 + f32::EPSILON);
        // So is the sum. Towards zero, not down.
        assert_eq!(truncated(1.0, &[bit * 0.9], 4), 1.0);
        assert_eq!(truncated(-1.0, &[-bit * 0.9], 4), -1.0);
        // Within four products nothing is cut off before the largest is known.
        assert_eq!(truncated(0.0, &[bit, 1.0, -1.0, bit], 4), 2.0 * f32::EPSILON);
        assert_eq!(truncated(0.0, &[1.0, bit / 8.0, 0.0, 0.0, -1.0, 0.0, 0.0, 0.0], 4), 0.0);
    }

    #[test]
    fn what_is_exact_stays_so() {
        assert_eq!(truncated(0.5, &[1.5, -0.25, 3.0, 8.0], 4), 12.75);
        assert_eq!(truncated(-0.0, &[0.0, -0.0], 4).to_bits(), 0);
        assert_eq!(truncated(1e-45, &[0.0], 4), 1e-45);
        assert!(truncated(f32::INFINITY, &[1.0], 4).is_infinite());
        assert!(truncated(1.0, &[f64::INFINITY, f64::NEG_INFINITY], 4).is_nan());
        assert!(truncated(f32::NAN, &[1.0], 4).is_nan() && truncated(1.0, &[f64::NAN], 4).is_nan());
    }
    /// Numbers of a bell curve, nearly: sums of twelve.
    fn numbers(n: usize, seed: u32) -> Vec<f32> {
        let mut state = seed;
        let mut next = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            f64::from(state >> 8) / f64::from(1 << 24) - 0.5
        };
        (0..n).map(|_| (0..12).map(|_| next()).sum::<f64>() as f32).collect()
    }

    /// The error of sums of so many products, in parts of their typical size: factors of TF32, and factors that are the
    /// sum of two such numbers, of whose products three are kept.
    fn errors(depth: usize, sum: fn(f32, &[f64]) -> f32) -> [f64; 2] {
        let tf32 = |x: f32| f32::from_bits((x.to_bits() + 0x1000) & !0x1fff);
        let (a, b) = (numbers(500 * depth, 1), numbers(500 * depth, 2));
        let (mut size, mut squares) = (0.0, [0.0; 2]);
        for (a, b) in a.chunks(depth).zip(b.chunks(depth)) {
            let exact: f64 = a.iter().zip(b).map(|(&a, &b)| f64::from(a) * f64::from(b)).sum();
            let (mut one, mut three) = (0.0, 0.0);
            for (a, b) in a.chunks(8).zip(b.chunks(8)) {
                let products = |first: &dyn Fn(f32) -> f32, second: &dyn Fn(f32) -> f32| -> Vec<f64> {
                    a.iter().zip(b).map(|(&a, &b)| f64::from(first(a)) * f64::from(second(b))).collect()
                };
                let rest = |x: f32| tf32(x - tf32(x));
                one = sum(one, &products(&tf32, &tf32));
                three = sum(three, &products(&rest, &tf32));
                three = sum(three, &products(&tf32, &rest));
                three = sum(three, &products(&tf32, &tf32));
            }
            size += exact * exact;
            squares[0] += (f64::from(one) - exact).powi(2);
            squares[1] += (f64::from(three) - exact).powi(2);
        }
        squares.map(|s| (s / size).sqrt())
    }

    #[test]
    fn what_factors_split_in_two_are_worth() {
        let rounded = |c: f32, products: &[f64]| (products.iter().sum::<f64>() + f64::from(c)) as f32;
        let cut = |c: f32, products: &[f64]| truncated(c, products, 4);
        for (depth, sum, most) in [
            (128, rounded as fn(f32, &[f64]) -> f32, 2e-7),
            (128, cut, 2e-6),
            (2048, rounded, 6e-7),
            (2048, cut, 3e-5),
        ] {
            let [one, three] = errors(depth, sum);
            assert!((2e-4..4e-4).contains(&one), "{depth}: {one:.1e}");
            assert!((most / 2.0..most).contains(&three), "{depth}: {three:.1e}");
        }
    }
}
