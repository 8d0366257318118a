//! Initial values of parameters, from a seed.
//!
//! Random numbers are counter-based: element `i` of the tensor called `name` is a pure function of
//! (seed, name, i), so weights do not depend on the order in which layers are written or
//! initialised, nor on the machine. The generator is Philox4x32-10 (Salmon, Moraes, Dror, Shaw:
//! *Parallel random numbers: as easy as 1, 2, 3*, SC 2011); the seed is the key, the counter holds
//! the block number (low half) and the FNV-1a hash of the name (high half).

use std::convert::Infallible;

use crate::DType;
use crate::memory::OutOfMemory;
use crate::parameters::Parameters;
use crate::program::{Initializer, Parameter, Port, Program};
use crate::read_at::side_by_side;
use crate::session::bind::slot;
use crate::tensor::Tensor;

/// Philox4x32-10: 128 random bits for a counter of 128 and a key of 64 bits.
pub fn philox(counter: [u32; 4], key: [u32; 2]) -> [u32; 4] {
    let (mut c, mut k) = (counter, key);
    for _ in 0..10 {
        let (h0, l0) = wide_product(0xD251_1F53, c[0]);
        let (h1, l1) = wide_product(0xCD9E_8D57, c[2]);
        c = [h1 ^ c[1] ^ k[0], l1, h0 ^ c[3] ^ k[1], l0];
        k = [k[0].wrapping_add(0x9E37_79B9), k[1].wrapping_add(0xBB67_AE85)];
    }
    c
}

/// High and low half of the product.
fn wide_product(a: u32, b: u32) -> (u32, u32) {
    let p = u64::from(a) * u64::from(b);
    ((p >> 32) as u32, p as u32)
}

/// The stream of random numbers that belongs to a name.
#[derive(Clone, Copy, Debug)]
pub struct Stream {
    key: [u32; 2],
    name: [u32; 2],
}

impl Stream {
    /// The stream for a seed and a name.
    pub fn new(seed: u64, name: &str) -> Stream {
        let hash = name
            .bytes()
            .fold(0xCBF2_9CE4_8422_2325, |h: u64, b| (h ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01B3));
        Stream { key: halves(seed), name: halves(hash) }
    }

    /// Block number `i`: four random words.
    pub fn block(&self, i: u64) -> [u32; 4] {
        let [low, high] = halves(i);
        philox([low, high, self.name[0], self.name[1]], self.key)
    }

    /// Numbers uniform in `[0, 1)`, multiples of 2^-32; number `i` is word `i % 4` of block `i / 4`. From
    /// number `first` on.
    pub fn uniforms(self, first: u64) -> impl Iterator<Item = f64> {
        let words = (first / 4..).flat_map(move |i| self.block(i)).skip((first % 4) as usize);
        words.map(|word| f64::from(word) / 4_294_967_296.0)
    }

    /// Numbers of the standard normal distribution (Box & Muller 1958): numbers `2i` and `2i + 1`
    /// are the pair that block `i` gives. From number `first` on.
    pub fn normals(self, first: u64) -> impl Iterator<Item = f64> {
        let pairs = (first / 2..).flat_map(move |i| {
            let words = self.block(i);
            // 53 bits each, the first in (0, 1] for the logarithm.
            let bits = |a: u32, b: u32| ((u64::from(a) << 32 | u64::from(b)) >> 11) as f64;
            let u = (bits(words[0], words[1]) + 1.0) / 9_007_199_254_740_992.0;
            let turn = bits(words[2], words[3]) / 9_007_199_254_740_992.0;
            let radius = libm::sqrt(-2.0 * libm::log(u));
            let (sin, cos) = libm::sincos(2.0 * std::f64::consts::PI * turn);
            [radius * cos, radius * sin]
        });
        pairs.skip((first % 2) as usize)
    }
}

fn halves(n: u64) -> [u32; 2] {
    [n as u32, (n >> 32) as u32]
}

/// Initial values of parameters, drawn when they are asked for.
#[derive(Clone, Debug)]
pub struct Fresh {
    /// The parameters.
    pub parameters: Vec<Parameter>,
    /// The same seed gives the same values.
    pub seed: u64,
}

impl Parameters for Fresh {
    fn ports(&self) -> Vec<Port> {
        self.parameters.iter().map(|p| p.port.clone()).collect()
    }

    fn fill(&self, port: &Port, to: &mut [u8], threads: usize) -> Result<(), String> {
        draw(self.get(port)?, self.seed, 0, to, threads);
        Ok(())
    }

    fn fill_part(&self, port: &Port, first: usize, to: &mut [u8], threads: usize) -> Result<bool, String> {
        let parameter = self.get(port)?;
        // Elements of orthogonal matrices depend on each other.
        let has_parts = !matches!(parameter.init, Initializer::Orthogonal { .. });
        if has_parts {
            draw(parameter, self.seed, first, to, threads);
        }
        Ok(has_parts)
    }
}

impl Fresh {
    fn get(&self, port: &Port) -> Result<&Parameter, &'static str> {
        self.parameters.iter().find(|p| p.port == *port).ok_or("it is missing")
    }
}

/// The initial value of a parameter, drawn by as many threads as there are cores.
pub fn initialize(parameter: &Parameter, seed: u64) -> Result<Tensor, OutOfMemory> {
    let port = &parameter.port;
    let refused = || OutOfMemory {
        bytes: Program::port_bytes(port).unwrap_or(usize::MAX),
        purpose: format!("parameter `{}`", port.name),
    };
    let mut tensor = Tensor::try_zeros(port.dtype, &port.shape).ok_or_else(refused)?;
    let mut slot = slot(&mut tensor)?;
    let threads = std::thread::available_parallelism().map_or(1, |n| n.get());
    draw(parameter, seed, 0, slot.bytes_mut(), threads);
    slot.finish();
    Ok(tensor)
}

/// A thread draws at least that many elements: about a millisecond's work.
const LEAST_ELEMENTS: usize = 1 << 15;

/// Writes elements from number `first` on as bytes, each thread a part of them; of an orthogonal matrix, all.
fn draw(parameter: &Parameter, seed: u64, first: usize, to: &mut [u8], threads: usize) {
    let (port, init) = (&parameter.port, &parameter.init);
    let stream = Stream::new(seed, &port.name);
    let (size, count) = (port.dtype.size(), to.len() / port.dtype.size());
    if let Initializer::Orthogonal { gain } = *init {
        return encode(port.dtype, orthogonal(count, port, gain, stream).into_iter(), to);
    }
    let part = count.div_ceil(threads.max(1)).max(LEAST_ELEMENTS);
    let drawn = side_by_side(to.chunks_mut(part * size), |i, to| {
        encode(port.dtype, values(port, (first + i * part) as u64, init, stream), to);
        Ok::<(), Infallible>(())
    });
    drawn.unwrap_or_else(|never| match never {});
}

/// Numbers as elements of a type, in this machine's byte order.
fn encode(dtype: DType, values: impl Iterator<Item = f64>, to: &mut [u8]) {
    fn each<const N: usize>(
        to: &mut [u8],
        values: impl Iterator<Item = f64>,
        bytes: impl Fn(f64) -> [u8; N],
    ) {
        to.as_chunks_mut::<N>().0.iter_mut().zip(values).for_each(|(to, v)| *to = bytes(v));
    }
    match dtype {
        DType::F64 => each(to, values, f64::to_ne_bytes),
        DType::F32 => each(to, values, |v| (v as f32).to_ne_bytes()),
        DType::I32 => each(to, values, |v| (v as i32).to_ne_bytes()),
        DType::Bool => each(to, values, |v| [u8::from(v != 0.0)]),
    }
}

/// Product of all dimensions but the `skipped` one, at least 1.
fn fan(shape: &[usize], skipped: usize) -> f64 {
    let others = shape.iter().enumerate().filter(|&(i, _)| i != skipped);
    others.map(|(_, &d)| d as f64).product::<f64>().max(1.0)
}

/// Elements, row-major.
type Values = Box<dyn Iterator<Item = f64>>;

/// The elements from number `first` on, as many as are asked for; not of orthogonal matrices, whose elements
/// depend on each other.
fn values(port: &Port, first: u64, init: &Initializer, stream: Stream) -> Values {
    let (fan_in, fan_out) = (fan(&port.shape, 0), fan(&port.shape, 1));
    let normal =
        |mean: f64, std: f64| -> Values { Box::new(stream.normals(first).map(move |z| mean + std * z)) };
    let symmetric =
        |limit: f64| -> Values { Box::new(stream.uniforms(first).map(move |u| limit * (2.0 * u - 1.0))) };
    match *init {
        Initializer::Constant(v) => Box::new(std::iter::repeat(v)),
        Initializer::Uniform { low, high } => {
            let dtype = port.dtype;
            Box::new(stream.uniforms(first).map(move |u| uniform_between(low, high, u, dtype)))
        }
        Initializer::Normal { mean, std } => normal(mean, std),
        Initializer::GlorotUniform => symmetric((6.0 / (fan_in + fan_out)).sqrt()),
        Initializer::GlorotNormal => normal(0.0, (2.0 / (fan_in + fan_out)).sqrt()),
        Initializer::HeUniform { gain } => symmetric(gain * (3.0 / fan_in).sqrt()),
        Initializer::HeNormal { gain } => normal(0.0, gain / fan_in.sqrt()),
        Initializer::FanInUniform { fan_in } => symmetric(1.0 / (fan_in.max(1) as f64).sqrt()),
        Initializer::Orthogonal { .. } => Box::new(std::iter::empty()),
    }
}

/// `low + (high - low) * u`, kept below `high` when it is rounded to the element type.
fn uniform_between(low: f64, high: f64, u: f64, dtype: DType) -> f64 {
    let v = low + (high - low) * u;
    let reaches = if dtype == DType::F32 { v as f32 >= high as f32 } else { v >= high };
    match reaches && high > low {
        true if dtype == DType::F32 => f64::from((high as f32).next_down()).max(low),
        true => high.next_down(),
        false => v,
    }
}

/// Orthonormal rows, or columns where there are fewer of them, of the matrix `[first dimension, all
/// others]`, times the gain: Gram-Schmidt on a normal matrix, which gives the uniform (Haar)
/// distribution. Projections are taken twice, so that rounding does not spoil the right angles.
fn orthogonal(count: usize, port: &Port, gain: f64, stream: Stream) -> Vec<f64> {
    let rows = port.shape.first().copied().unwrap_or(1).max(1);
    let columns = count / rows;
    let (vectors, length) = if rows <= columns { (rows, columns) } else { (columns, rows) };
    let mut q: Vec<f64> = stream.normals(0).take(count).collect();
    for v in 0..vectors {
        let (before, rest) = q.split_at_mut(v * length);
        let this = &mut rest[..length];
        for _ in 0..2 {
            for earlier in before.chunks_exact(length) {
                let dot = dot(earlier, this);
                this.iter_mut().zip(earlier).for_each(|(t, e)| *t -= dot * e);
            }
        }
        let norm = this.iter().map(|t| t * t).sum::<f64>().sqrt();
        this.iter_mut().for_each(|t| *t /= norm.max(f64::MIN_POSITIVE));
    }
    let at = |r: usize, c: usize| if rows <= columns { q[r * length + c] } else { q[c * length + r] };
    (0..count).map(|i| gain * at(i / columns, i % columns)).collect()
}

/// Eight sums side by side, which are as fast as one on vectors, then their sum.
fn dot(a: &[f64], b: &[f64]) -> f64 {
    let (mut sums, (a, b)) = ([0f64; 8], (a.chunks(8), b.chunks(8)));
    for (a, b) in a.zip(b) {
        sums.iter_mut().zip(a.iter().zip(b)).for_each(|(s, (a, b))| *s += a * b);
    }
    sums.iter().sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The known answers of Random123 1.14, `tests/kat_vectors`, `philox4x32 10`.
    #[test]
    fn philox_known_answers() {
        let all = u32::MAX;
        assert_eq!(philox([0; 4], [0; 2]), [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]);
        assert_eq!(philox([all; 4], [all; 2]), [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]);
        assert_eq!(
            philox([0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344], [0xa409_3822, 0x299f_31d0]),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    fn values(init: Initializer, shape: &[usize]) -> Vec<f32> {
        let port = Port { name: "w".into(), dtype: DType::F32, shape: shape.to_vec() };
        let t = initialize(&Parameter { port, init, trainable: true }, 7).unwrap();
        assert_eq!(t.shape(), shape);
        t.as_f32().unwrap().iter().copied().collect()
    }

    fn moments(v: &[f32]) -> (f64, f64) {
        let n = v.len() as f64;
        let mean = v.iter().map(|&x| f64::from(x)).sum::<f64>() / n;
        (mean, (v.iter().map(|&x| (f64::from(x) - mean).powi(2)).sum::<f64>() / n).sqrt())
    }

    #[test]
    fn distributions() {
        // [32, 64, 3, 3]: fan_in 576, fan_out 288.
        let shape = [32, 64, 3, 3];
        let third = 1.0 / 3f64.sqrt();
        for (init, limit, std) in [
            (Initializer::GlorotUniform, (6.0 / 864f64).sqrt(), (2.0 / 864f64).sqrt()),
            (Initializer::GlorotNormal, f64::INFINITY, (2.0 / 864f64).sqrt()),
            (Initializer::HeUniform { gain: 2f64.sqrt() }, (6.0 / 576f64).sqrt(), (2.0 / 576f64).sqrt()),
            (Initializer::HeNormal { gain: 2f64.sqrt() }, f64::INFINITY, (2.0 / 576f64).sqrt()),
            (Initializer::FanInUniform { fan_in: 100 }, 0.1, 0.1 * third),
            (Initializer::Normal { mean: 0.0, std: 0.02 }, f64::INFINITY, 0.02),
            (Initializer::Uniform { low: -0.5, high: 0.5 }, 0.5, 0.5 * third),
        ] {
            let v = values(init.clone(), &shape);
            let (mean, found) = moments(&v);
            assert!(mean.abs() < 0.03 * std, "{init:?}: mean {mean}");
            assert!((found / std - 1.0).abs() < 0.02, "{init:?}: {found} for {std}");
            assert!(v.iter().all(|&x| f64::from(x).abs() <= limit * (1.0 + 1e-6)), "{init:?}");
        }
        assert!(values(Initializer::Constant(3.0), &[5]).iter().all(|&v| v == 3.0));
    }

    #[test]
    fn orthogonal_matrices() {
        for (rows, columns) in [(1, 1), (8, 8), (5, 27), (40, 12)] {
            let v = values(Initializer::Orthogonal { gain: 2.0 }, &[rows, columns]);
            let m = |r: usize, c: usize| f64::from(v[r * columns + c]);
            let small = rows.min(columns);
            for i in 0..small {
                for j in 0..small {
                    let dot: f64 = match rows <= columns {
                        true => (0..columns).map(|c| m(i, c) * m(j, c)).sum(),
                        false => (0..rows).map(|r| m(r, i) * m(r, j)).sum(),
                    };
                    let expected = if i == j { 4.0 } else { 0.0 };
                    assert!((dot - expected).abs() < 1e-5, "{rows}x{columns} {i} {j}: {dot}");
                }
            }
        }
    }

    #[test]
    fn a_function_of_seed_name_and_element() {
        let first = |seed, name| Stream::new(seed, name).uniforms(0).take(9).collect::<Vec<_>>();
        let a = first(1, "fc.weight");
        assert_eq!(a, first(1, "fc.weight"));
        assert_ne!(a, first(2, "fc.weight"));
        assert_ne!(a, first(1, "fc.bias"));
        assert_eq!(a[6], f64::from(Stream::new(1, "fc.weight").block(1)[2]) / 4_294_967_296.0);
    }

    /// Parts that threads draw are those of the whole.
    #[test]
    fn threads_draw_the_same() {
        let shape = [3, LEAST_ELEMENTS / 2 + 1];
        for init in
            [Initializer::GlorotNormal, Initializer::GlorotUniform, Initializer::Orthogonal { gain: 1.0 }]
        {
            let is_whole = matches!(init, Initializer::Orthogonal { .. });
            let port = Port { name: "w".into(), dtype: DType::F32, shape: shape.to_vec() };
            let fresh = Fresh { parameters: vec![Parameter { port, init, trainable: true }], seed: 7 };
            let drawn = |threads| {
                let mut bytes = vec![0; 4 * shape[0] * shape[1]];
                fresh.fill(&fresh.parameters[0].port, &mut bytes, threads).unwrap();
                bytes
            };
            assert!(drawn(1) == drawn(2) && drawn(1) == drawn(5));
            let mut parts = vec![0; 4 * shape[0] * shape[1]];
            let size = 4 * (LEAST_ELEMENTS + 1);
            let has_parts = parts
                .chunks_mut(size)
                .enumerate()
                .all(|(i, to)| fresh.fill_part(&fresh.parameters[0].port, i * size / 4, to, 2).unwrap());
            assert_eq!(has_parts, !is_whole);
            assert!(!has_parts || parts == drawn(1));
        }
        let normals: Vec<f64> = Stream::new(1, "w").normals(0).take(9).collect();
        assert_eq!(normals[3..], Stream::new(1, "w").normals(3).take(6).collect::<Vec<_>>());
    }

    #[test]
    fn uniform_stays_below_its_upper_end() {
        assert!(
            uniform_between(0.0, 1.0, 1.0 - 1.0 / 4_294_967_296.0, DType::F32) as f32 <= 1f32.next_down()
        );
        assert_eq!(uniform_between(2.0, 2.0, 0.5, DType::F32), 2.0);
    }

    #[test]
    fn odd_shapes_and_types() {
        assert!(values(Initializer::Orthogonal { gain: 1.0 }, &[0, 4]).is_empty());
        assert!(values(Initializer::Orthogonal { gain: 1.0 }, &[4, 0]).is_empty());
        assert_eq!(values(Initializer::GlorotUniform, &[]).len(), 1);
        let port = Port { name: "n".into(), dtype: DType::F32, shape: vec![1 << 40, 1 << 40] };
        let huge = Parameter { port, init: Initializer::Constant(0.0), trainable: true };
        assert!(initialize(&huge, 0).is_err());
    }
}
