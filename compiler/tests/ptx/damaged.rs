//! Faults put into the emitted text of real kernels: a barrier or a wait left out, a place moved by one
//! element, operands of tensor cores exchanged. Each is found, as a fault or by its numbers.

use std::collections::BTreeMap;

use nnc_compiler::emit::cuda::{Ptx, emit};
use nnc_compiler::kernel::Module;
use nnc_compiler::lower::gpu::{Blocks, GpuOptions};
use nnc_compiler::lower::lower_for_gpu_with;
use nnc_compiler::pass;
use nnc_compiler::plan::order;
use nnc_compiler::target::GpuTarget;
use nnc_ptx_interpreter::Stats;
use nnc_runtime::Tensor;

use crate::gpu::run_text;
use crate::nets::{built, fill, floats};

/// A convolution whose result is one full tile, so that every fragment matters.
const NET: &str = "use std.vision
net small {
    input x: f32[1, 16, 8, 8]
    output y = x -> conv(64, 3, pad = 1)
}
";

/// One full tile, of whose factors the second one lies line by line: its elements are loaded one by one.
const PRODUCT: &str = "net product {
    input a: f32[64, 16]
    input b: f32[16, 64]
    output y = matmul(a, b)
}
";

/// Softmax of long rows: two warps and more exchange what is largest, and sums.
const ROWS: &str = "net rows {
    input x: f32[2, 300]
    output y = softmax(x)
}
";

struct Case {
    module: Module,
    ptx: Ptx,
    feeds: BTreeMap<String, Tensor>,
    right: Vec<f32>,
    stats: Vec<Stats>,
}

impl Case {
    fn new(net: &str) -> Case {
        let mut graph = built(net, false).graph.specialise(&BTreeMap::new()).unwrap();
        let mut feeds = BTreeMap::new();
        fill(&graph, &mut feeds);
        let target = GpuTarget::Sm80;
        pass::run_all(&mut graph, &target.thread(), &mut |_, _| {});
        let options = GpuOptions { blocks: Blocks::Always, ..GpuOptions::default() };
        let mut module = lower_for_gpu_with(&graph, target, options, None).unwrap();
        order::run(&mut module);
        let ptx = emit(&module, target).unwrap();
        let ran = run_text(&module, &ptx, &feeds).unwrap();
        Case { module, ptx, feeds, right: floats(&ran.outputs["y"]), stats: ran.stats }
    }

    /// True if the text with its lines changed is found to be wrong.
    fn finds(&self, change: impl Fn(usize, &str) -> Option<String>) -> bool {
        let lines = self.ptx.text.lines().enumerate().filter_map(|(i, line)| change(i, line));
        let text = lines.collect::<Vec<_>>().join("\n");
        let ptx = Ptx { text, entries: self.ptx.entries.clone() };
        match run_text(&self.module, &ptx, &self.feeds) {
            Err(_) => true,
            Ok(found) => {
                let far = |(a, b): (&f32, &f32)| (a - b).abs() > 1e-6 || a.is_nan() != b.is_nan();
                floats(&found.outputs["y"]).iter().zip(&self.right).any(far)
            }
        }
    }

    /// The numbers of the lines that have a word.
    fn lines_with(&self, word: &str) -> Vec<usize> {
        let lines = self.ptx.text.lines().enumerate();
        lines.filter(|(_, line)| line.contains(word)).map(|(i, _)| i).collect()
    }

    /// Every line with a word, changed on its own, is found.
    fn each(&self, word: &str, step: usize, change: impl Fn(&str) -> Option<String>) {
        let all = self.lines_with(word);
        assert!(all.len() > 1, "{word}: {}", all.len());
        for &at in all.iter().step_by(step) {
            let found = self.finds(|i, line| if i == at { change(line) } else { Some(line.to_string()) });
            assert!(found, "nothing is wrong without: {}", self.ptx.text.lines().nth(at).unwrap());
        }
    }
}

#[test]
fn barriers_and_waits_are_needed() {
    let case = Case::new(NET);
    case.each("bar.sync", 1, |_| None);
    case.each("cp.async.wait_group", 1, |_| None);
    Case::new(ROWS).each("bar.sync", 1, |_| None);
}

/// `[%a3+64]` becomes `[%a3+68]` if it is moved by four bytes.
fn moved(line: &str, bytes: i64) -> Option<String> {
    let (before, after) = line.split_once(']')?;
    let before = match before.rsplit_once('+') {
        Some((base, offset)) => format!("{base}+{}", offset.parse::<i64>().ok()? + bytes),
        None => format!("{before}+{bytes}"),
    };
    Some(format!("{before}]{after}"))
}

#[test]
fn places_matter() {
    Case::new(PRODUCT).each("ld.shared", 9, |line| moved(line, 4));
    let case = Case::new(NET);
    case.each("ldmatrix", 3, |line| moved(line, 16));
    case.each("cp.async.c", 5, |line| moved(line, 4));
    case.each("st.global", 3, |line| moved(line, 4));
}

/// The fragments of the second factor, or the registers of the first, in another order.
fn exchanged(line: &str, operand: usize) -> Option<String> {
    let mut parts: Vec<String> = line.split("}, ").map(str::to_string).collect();
    let (word, registers) = parts[operand].split_once('{')?;
    let mut registers: Vec<&str> = registers.split(", ").collect();
    registers.swap(0, 1);
    parts[operand] = format!("{word}{{{}", registers.join(", "));
    Some(parts.join("}, "))
}

/// The first two registers in braces exchanged: `{%b0, %b1, …}`.
fn first_two_exchanged(line: &str) -> Option<String> {
    let (before, rest) = line.split_once('{')?;
    let (registers, after) = rest.split_once('}')?;
    let mut registers: Vec<&str> = registers.split(", ").collect();
    registers.swap(0, 1);
    Some(format!("{before}{{{}}}{after}", registers.join(", ")))
}

#[test]
fn fragments_matter() {
    let case = Case::new(NET);
    case.each("ldmatrix", 3, first_two_exchanged);
    for operand in [1, 2] {
        case.each("mma.sync", 7, |line| exchanged(line, operand));
    }
}

/// Fragments and copies of a convolution's tiles meet in no bank, sums of neighbouring pixels in few sectors, and
/// tensor cores have nothing to cut off.
#[test]
fn what_a_convolution_costs() {
    let case = Case::new(NET);
    let stats = case.stats.last().unwrap();
    assert!(stats.mmas > 0 && stats.unrounded_tf32 == 0, "{stats:?}");
    // Copies of 16 bytes into lines of 80 wait for each other once in eight wavefronts.
    assert!(stats.bank_conflicts * 20 <= stats.shared_wavefronts, "{stats:?}");
    assert!(stats.global_sectors <= 10 * stats.global_requests, "{stats:?}");
}

#[test]
fn what_is_not_damaged_is_right() {
    let case = Case::new(NET);
    assert!(!case.finds(|_, line| Some(line.to_string())));
}
