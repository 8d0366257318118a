//! Where the elements of fragments lie, against the layouts that CuTe states (`mma_traits_sm80.hpp` of CUTLASS): pairs of
//! extents and strides that take a lane (a quarter of eight lanes first) and a value of it to the element, rows counting
//! fastest. The kernel only loads registers, multiplies and stores: what is in them, the test says.

use half::{bf16, f16};
use nnc_ptx_interpreter::Memory;

use crate::support::{module, run};

/// Strides of a lane's number in its quad and of the quad's; of the bits of a value's number.
struct Layout {
    lane: [usize; 2],
    value: &'static [usize],
}

impl Layout {
    fn element(&self, lane: usize, value: usize) -> usize {
        let bits = self.value.iter().enumerate().map(|(bit, stride)| (value >> bit & 1) * stride);
        lane % 4 * self.lane[0] + lane / 4 * self.lane[1] + bits.sum::<usize>()
    }

    fn values(&self) -> usize {
        1 << self.value.len()
    }

    /// The registers of all lanes: one or two elements in each.
    fn registers(&self, matrix: &[f32], bits: fn(f32) -> u32, in_a_register: usize) -> Vec<u32> {
        let mut out = vec![];
        for lane in 0..32 {
            for first in (0..self.values()).step_by(in_a_register) {
                let element = |i: usize| bits(matrix[self.element(lane, first + i)]) << (16 * i);
                out.push((0..in_a_register).map(element).sum());
            }
        }
        out
    }
}

/// Rows 16, columns 8: of the accumulators.
const SUMS: Layout = Layout { lane: [32, 1], value: &[16, 8] };

/// A kernel that multiplies the fragments in its lanes' registers.
fn text(ty: &str, k: usize, registers: [usize; 2]) -> String {
    let names =
        |prefix: &str, n: usize| (0..n).map(|i| format!("%{prefix}{i}")).collect::<Vec<_>>().join(", ");
    let mut text = String::from(
        ".visible .entry k(.param .u64 a, .param .u64 b, .param .u64 c) {
            .reg .b32 %lane, %a<4>, %b<2>; .reg .f32 %c<4>; .reg .b64 %at, %base;
            mov.u32 %lane, %laneid;\n",
    );
    for (matrix, n) in ["a", "b"].iter().zip(registers) {
        text += &format!("ld.param.u64 %base, [{matrix}]; mad.wide.u32 %at, %lane, {}, %base;\n", 4 * n);
        for i in 0..n {
            text += &format!("ld.global.b32 %{matrix}{i}, [%at+{}];\n", 4 * i);
        }
    }
    for i in 0..4 {
        text += &format!("mov.f32 %c{i}, 0f00000000;\n");
    }
    let sums = names("c", 4);
    text += &format!(
        "mma.sync.aligned.m16n8k{k}.row.col.f32.{ty}.{ty}.f32 {{{sums}}}, {{{}}}, {{{}}}, {{{sums}}};\n",
        names("a", registers[0]),
        names("b", registers[1])
    );
    text + &format!(
        "ld.param.u64 %base, [c]; mad.wide.u32 %at, %lane, 16, %base; st.global.v4.f32 [%at], {{{sums}}}; ret; }}"
    )
}

/// Numbers that every type has, so that all sums are exact.
fn numbers(n: usize, seed: usize) -> Vec<f32> {
    (0..n).map(|i| ((i * 37 + seed) * (i + 11) % 127) as f32 / 32.0 - 2.0).collect()
}

fn check(ty: &str, k: usize, first: &Layout, second: &Layout) {
    let (in_a_register, bits): (usize, fn(f32) -> u32) = match ty {
        "tf32" => (1, f32::to_bits),
        "bf16" => (2, |x| bf16::from_f32(x).to_bits().into()),
        _ => (2, |x| f16::from_f32(x).to_bits().into()),
    };
    // Columns of a, and rows of b, are what is summed over; it counts slower.
    let (a, b) = (numbers(16 * k, 1), numbers(8 * k, 5));
    let registers = [first, second].map(|l| l.values() / in_a_register);
    let mut memory = Memory::new();
    let buffers = [
        memory.upload("a", &first.registers(&a, bits, in_a_register)),
        memory.upload("b", &second.registers(&b, bits, in_a_register)),
        memory.allocate("c", 512),
    ];
    run(&module(&text(ty, k, registers)), &mut memory, 1, 32, &buffers).unwrap();
    let found: Vec<f32> = memory.download(buffers[2]).unwrap();
    for (i, &found) in found.iter().enumerate() {
        let element = SUMS.element(i / 4, i % 4);
        let (row, column) = (element % 16, element / 16);
        let expected: f32 = (0..k).map(|p| a[row + 16 * p] * b[column + 8 * p]).sum();
        assert_eq!(found, expected, "{ty}, depth {k}: element ({row}, {column})");
    }
}

#[test]
fn fragments_of_tf32() {
    check("tf32", 4, &Layout { lane: [16, 1], value: &[8] }, &Layout { lane: [8, 1], value: &[] });
    check("tf32", 8, &Layout { lane: [16, 1], value: &[8, 64] }, &Layout { lane: [8, 1], value: &[32] });
}

#[test]
fn fragments_of_16_bits() {
    for ty in ["bf16", "f16"] {
        check(ty, 8, &Layout { lane: [32, 1], value: &[16, 8] }, &Layout { lane: [16, 1], value: &[8] });
        let (first, second) = (&[16, 8, 128], &[8, 64]);
        check(ty, 16, &Layout { lane: [32, 1], value: first }, &Layout { lane: [16, 1], value: second });
    }
}
