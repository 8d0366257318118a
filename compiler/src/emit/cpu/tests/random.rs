//! Random small kernels: loop nests of every kind, guards, strides, division, all types.

use nnc_runtime::DType::{self, Bool, F32, I32};
use nnc_runtime::program::Access::{Read, ReadWrite};
use proptest::prelude::*;

use super::check;
use super::samples::{binary, f, over, store, unary};
use crate::kernel::verify::proved;
use crate::kernel::{
    BinOp, BufferId, Expr, Extents, Guard, Index, Kernel, LoopKind, Memory, Stmt, UnOp, Var,
};

/// Choices for a kernel: bytes that decide, one after the other.
struct Choices<'a> {
    bytes: std::iter::Cycle<std::slice::Iter<'a, u8>>,
}

impl Choices<'_> {
    fn below(&mut self, n: usize) -> usize {
        *self.bytes.next().expect("endless") as usize % n
    }

    fn of<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

struct Maker<'a> {
    k: Kernel,
    choose: Choices<'a>,
    /// The variables around, and whether registers may be indexed by them.
    scope: Vec<(Var, LoopKind)>,
    inputs: Vec<BufferId>,
    output: BufferId,
    scratch: BufferId,
    registers: BufferId,
    /// The size of a row of registers.
    group: usize,
}

/// The output has one row of this size for each task.
const ROW: usize = 56;

fn make(bytes: &[u8]) -> Kernel {
    let mut choose = Choices { bytes: bytes.iter().cycle() };
    let mut k = Kernel::new("random");
    let dtypes = [F32, I32, Bool];
    let shapes: [(&[usize], &[usize]); 3] = [(&[6, 16], &[16, 1]), (&[5, 4], &[12, 2]), (&[40], &[1])];
    let inputs = dtypes
        .iter()
        .zip(shapes)
        .chain([(&F32, (&[64usize][..], &[1usize][..]))])
        .map(|(d, (shape, strides))| k.strided("in", *d, shape, strides, Memory::Global(Read)))
        .collect();
    let output = k.buffer("out", F32, &[2, 3, ROW], Memory::Global(ReadWrite));
    let scratch = k.buffer("scratch", F32, &[ROW], Memory::Scratch);
    let group = choose.of(&[4, 8, 16]);
    let registers = k.buffer("registers", F32, &[2, group], Memory::Register);
    let tasks = [k.task("a", 2), k.task("b", 3)];
    let scope = tasks.iter().map(|t| (*t, LoopKind::Serial)).collect();
    let mut m = Maker { k, choose, scope, inputs, output, scratch, registers, group };
    let mut body = m.clear();
    for _ in 0..3 {
        body.push(m.loops(0));
    }
    m.k.body = body;
    m.k
}

impl Maker<'_> {
    fn extents(&self) -> Extents {
        self.k.extents()
    }

    /// Everything defined, so that the interpreter may compare all of it.
    fn clear(&mut self) -> Vec<Stmt> {
        let v = self.k.var("z", ROW);
        let fill = Expr::Cast(F32, Box::new(Expr::Index(Index::from(v) * 3 - 20i64)));
        let mut out = vec![over(v, LoopKind::Serial, vec![store(self.scratch, vec![v.into()], fill)])];
        let (r, l) = (self.k.var("r", 2), self.k.var("l", self.group));
        let fill = store(self.registers, vec![r.into(), l.into()], f(1.5));
        out.push(over(r, LoopKind::Unroll, vec![over(l, LoopKind::Vector, vec![fill])]));
        out
    }

    fn loops(&mut self, depth: usize) -> Stmt {
        let kind = match depth {
            0..=2 => self.choose.of(&[LoopKind::Serial, LoopKind::Unroll, LoopKind::Vector]),
            _ => LoopKind::Vector,
        };
        let extent = match kind {
            LoopKind::Vector => self.choose.of(&[4, self.group, self.group, 8, 16, 3, 20, 24, 32]),
            _ => self.choose.of(&[1, 2, 3, 5]),
        };
        let v = self.k.var("v", extent);
        self.scope.push((v, kind));
        let mut body = vec![];
        for _ in 0..1 + self.choose.below(2) {
            let inner = kind != LoopKind::Vector && self.choose.below(3) > 0;
            body.push(if inner { self.loops(depth + 1) } else { self.store(v) });
        }
        if self.choose.below(3) == 0 {
            let guards = vec![Guard(self.index())];
            body = vec![Stmt::If { guards, body }];
        }
        self.scope.pop();
        over(v, kind, body)
    }

    /// A small affine form, now and then divided.
    fn index(&mut self) -> Index {
        let extents = self.extents();
        let mut i = Index::from(self.choose.below(7) as i64 - 3);
        for _ in 0..1 + self.choose.below(2) {
            let (v, _) = self.scope[self.choose.below(self.scope.len())];
            i = i + Index::from(v) * self.choose.of(&[1, 1, 1, 2, 4, -1]);
        }
        match self.choose.below(6) {
            0 => i.div(self.choose.of(&[2, 3, 4]), &extents),
            1 => i.rem(self.choose.of(&[2, 5, 8]), &extents),
            _ => i,
        }
    }

    /// An index within a size, with the guards that make it so.
    fn within(&mut self, size: usize, guards: &mut Vec<Guard>) -> Index {
        let i = self.index();
        guards.extend(Guard::between(&i, 0, size as i64, &self.extents()));
        i
    }

    /// A place of a vector loop's iterations that other iterations leave alone.
    fn store(&mut self, v: Var) -> Stmt {
        let value = self.expr(F32, 3);
        let of_tasks = |m: &Self, last: Index| {
            let tasks = m.k.tasks.clone();
            vec![tasks[0].into(), tasks[1].into(), last]
        };
        let vector = self.scope.last().is_some_and(|(_, k)| *k == LoopKind::Vector);
        let mut guards = vec![];
        let place = match self.choose.below(3) {
            0 if vector => Some((self.registers, self.register_index())),
            1 => Some((self.scratch, vec![Index::from(v)])),
            _ => None,
        };
        let (buffer, index) = place.unwrap_or_else(|| {
            let stride = self.choose.of(&[1, 1, 2]);
            let last = Index::from(v) * stride + self.choose.below(4);
            guards = Guard::between(&last, 0, ROW as i64, &self.extents());
            (self.output, of_tasks(self, last))
        });
        let stored = store(buffer, index, value);
        if guards.is_empty() { stored } else { Stmt::If { guards, body: vec![stored] } }
    }

    /// Registers: a constant or unrolled row, and the vector's lane or a constant.
    fn register_index(&mut self) -> Vec<Index> {
        let extents = self.extents();
        let unrolled = |(v, kind): &&(Var, LoopKind)| *kind == LoopKind::Unroll && extents[v.0 as usize] <= 2;
        let row = self.scope.iter().find(unrolled).map(|(v, _)| Index::from(*v));
        let row = row.unwrap_or_else(|| Index::from(self.choose.below(2)));
        let lane = self
            .scope
            .last()
            .filter(|(v, kind)| *kind == LoopKind::Vector && extents[v.0 as usize] <= self.group);
        let last = lane.map(|(v, _)| Index::from(*v));
        vec![row, last.unwrap_or_else(|| Index::from(self.choose.below(self.group)))]
    }

    fn load(&mut self, dtype: DType) -> Expr {
        let buffer = match (dtype, self.choose.below(4)) {
            (F32, 0) => {
                let index = self.register_index();
                return Expr::Load(self.registers, index);
            }
            (F32, 1) => self.inputs[3],
            (F32, _) => self.inputs[0],
            (I32, _) => self.inputs[1],
            _ => self.inputs[2],
        };
        let shape = self.k.buffer_of(buffer).shape.clone();
        let mut guards = vec![];
        let index: Vec<Index> = shape.iter().map(|n| self.within(*n, &mut guards)).collect();
        if dtype == F32 && self.choose.below(6) == 0 {
            let at = Box::new(self.expr(I32, 0));
            let axis = self.choose.below(shape.len());
            let gather = Expr::Gather { buffer, index, axis, at };
            return self.guard(guards, gather, dtype);
        }
        self.guard(guards, Expr::Load(buffer, index), dtype)
    }

    fn guard(&mut self, guards: Vec<Guard>, value: Expr, dtype: DType) -> Expr {
        if guards.is_empty() {
            return value;
        }
        let otherwise = Box::new(Expr::Const(dtype, 1.0));
        Expr::Guarded { guards, value: Box::new(value), otherwise }
    }

    fn expr(&mut self, dtype: DType, depth: usize) -> Expr {
        let leaf = depth == 0;
        match (dtype, self.choose.below(if leaf { 3 } else { 8 })) {
            (_, 0) => Expr::Const(dtype, self.choose.of(&[0.0, 1.0, 2.0, -3.0])),
            (I32, 1) => Expr::Index(self.index()),
            (_, 1 | 2) => self.load(dtype),
            (Bool, n) => {
                let op = self.choose.of(&[BinOp::Eq, BinOp::Ne, BinOp::Lt, BinOp::Le]);
                let of = if n < 6 { F32 } else { I32 };
                binary(op, self.expr(of, depth - 1), self.expr(of, depth - 1))
            }
            (_, 3) => {
                let from = self.choose.of(&[F32, I32, Bool]);
                Expr::Cast(dtype, Box::new(self.expr(from, depth - 1)))
            }
            (_, 4) => Expr::Select(
                Box::new(self.expr(Bool, depth - 1)),
                Box::new(self.expr(dtype, depth - 1)),
                Box::new(self.expr(dtype, depth - 1)),
            ),
            (F32, 5) => Expr::Fma(
                Box::new(self.expr(F32, depth - 1)),
                Box::new(self.expr(F32, depth - 1)),
                Box::new(self.expr(F32, depth - 1)),
            ),
            (_, 5 | 6) => {
                use BinOp::*;
                let op = match dtype {
                    F32 => self.choose.of(&[Add, Sub, Mul, Div, Max, Min, Pow]),
                    _ => self.choose.of(&[Add, Sub, Mul, Div, Max, Min, And, Or, Xor, MulHigh, Shl, Shr]),
                };
                binary(op, self.expr(dtype, depth - 1), self.expr(dtype, depth - 1))
            }
            (_, _) => {
                use UnOp::*;
                let op = match dtype {
                    F32 => self.choose.of(&[Neg, Abs, Sqrt, Floor, Relu, Exp, Log, Tanh, Sigmoid, Erf]),
                    _ => self.choose.of(&[Neg, Abs, Relu]),
                };
                unary(op, self.expr(dtype, depth - 1))
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(192))]
    #[test]
    fn random_kernels_give_the_interpreters_bits(bytes in prop::collection::vec(any::<u8>(), 200..400)) {
        let k = make(&bytes);
        check(&k, true);
        check(&k, false);
    }

    #[test]
    fn what_is_proved_is_true(
        coefficients in prop::collection::vec(-3i64..4, 9),
        constants in prop::collection::vec(-6i64..7, 3),
    ) {
        let extents = vec![3, 4, 5];
        let form = |n: usize| (0..3).fold(Index::from(constants[n]), |sum, v| {
            sum + Index::from(Var(v as u32)) * coefficients[3 * n + v]
        });
        let (e, guards) = (form(0), [form(1), form(2)]);
        if proved(&e, &guards, &extents) {
            for n in 0..60i64 {
                let values = [n / 20, n / 5 % 4, n % 5];
                let holds = guards.iter().all(|g| g.eval(&values) >= 0);
                prop_assert!(!holds || e.eval(&values) >= 0);
            }
        }
    }
}
