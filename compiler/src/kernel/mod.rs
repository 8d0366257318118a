//! The kernel IR: structured loop nests over buffers, for CPU and GPU alike.
//!
//! A [`Kernel`] is a grid of independent *tasks* (parallel outer loops) whose body is a list of
//! statements. A task is run by one thread, or on a GPU by the threads of a [`block`]. Memory is explicit: **global** buffers are arguments, **scratch** buffers are a
//! thread's own memory, **register** buffers
//! are accumulators that never touch memory: their indices are constants once unrolled loops are
//! unrolled, save for the variable of a vector loop in the last place.
//!
//! Everything is scalar in meaning: a *vector* loop says that its iterations are independent and
//! side by side, so a back end may run them as the lanes of one instruction. Shapes are static,
//! indices affine (with division and remainder by constants). A load under a guard happens only
//! if the guard holds. [`verify`] proves every access in bounds before code is emitted.

pub mod block;
pub mod index;
pub mod interpret;
pub mod math;
pub mod module;
pub mod print;
pub mod verify;

use nnc_dsl::Span;
use nnc_runtime::DType;

pub use block::{Fragment, Joint, Rounding};
pub use index::{Extents, Index, Var};
pub use module::Module;

/// Index into [`Kernel::buffers`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BufferId(pub u32);

/// Where a buffer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Memory {
    /// An argument. Tasks may read what no task of the launch writes, and write only what no
    /// other task touches.
    Global(nnc_runtime::program::Access),
    /// A thread's own memory; undefined at its start.
    Scratch,
    /// Registers of a thread; undefined at the task's start.
    Register,
    /// Memory of a block of threads; undefined at the task's start.
    Shared,
    /// Registers of a warp: the last two dimensions are matrices of that kind.
    Fragment(Fragment),
}

/// A block of elements.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Buffer {
    /// For the text form.
    pub name: String,
    /// Element type.
    pub dtype: DType,
    /// Size of every dimension.
    pub shape: Vec<usize>,
    /// Distance of neighbours along every dimension, in elements. (Row-major unless the buffer is
    /// a part of a larger one.)
    pub strides: Vec<usize>,
    /// Where it is.
    pub memory: Memory,
    /// All its elements are what [`Rounding::Tf32`] leaves as it is. What a kernel stores there is rounded
    /// ([`Kernel::is_tf32`]); what it reads, others have rounded.
    pub tf32: bool,
}

impl Buffer {
    /// One past the largest element offset that is reachable: the buffer's extent in elements.
    pub fn extent(&self) -> usize {
        if self.shape.contains(&0) {
            return 0;
        }
        self.shape.iter().zip(&self.strides).map(|(n, s)| (n - 1) * s).sum::<usize>() + 1
    }
}

/// Strides of a row-major buffer.
pub fn row_major(shape: &[usize]) -> Vec<usize> {
    let mut strides = vec![1; shape.len()];
    for i in (1..shape.len()).rev() {
        strides[i - 1] = strides[i] * shape[i].max(1);
    }
    strides
}

/// A loop variable's declaration.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct VarDecl {
    /// For the text form; unique in the kernel.
    pub name: String,
    /// It runs from 0 to this, the end not included.
    pub extent: usize,
}

/// A kernel. Build it with [`Kernel::new`] and its `var`, `buffer` methods.
#[derive(Clone, Debug, PartialEq)]
pub struct Kernel {
    /// What it computes: `conv2d_relu_max_pool2d`.
    pub name: String,
    /// The loop variables, each used by one loop (or task dimension).
    pub vars: Vec<VarDecl>,
    /// The buffers; those in global memory are the arguments, in this order.
    pub buffers: Vec<Buffer>,
    /// The task grid: row-major, the first varies slowest.
    pub tasks: Vec<Var>,
    /// The threads of a task, where it is a [`block`] of them; whole warps.
    pub threads: Option<usize>,
    /// What a task does.
    pub body: Vec<Stmt>,
    /// Floating-point operations of a launch (a fused multiply-add counts two).
    pub flops: u64,
    /// Where the layers it computes were written.
    pub spans: Vec<Span>,
}

/// How a loop runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum LoopKind {
    /// One iteration after the other.
    Serial,
    /// One after the other, written out.
    Unroll,
    /// Side by side: the lanes of a vector. Innermost; the extent is the vector width.
    Vector,
    /// Side by side: the threads of a [`block`].
    Threads,
    /// Side by side: its warps.
    Warps,
    /// Side by side: the rows of matrices of that kind, by a warp.
    Rows(Fragment),
    /// Side by side: their columns, inside the rows.
    Columns(Fragment),
}

/// `index >= 0`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Guard(pub Index);

impl Guard {
    /// `low <= i < high`, as guards; those that always hold are left out.
    pub fn between(i: &Index, low: i64, high: i64, extents: &Extents) -> Vec<Guard> {
        [i.clone() - low, Index::from(high - 1) - i.clone()]
            .into_iter()
            .filter(|g| g.range(extents).0 < 0)
            .map(Guard)
            .collect()
    }

    /// `i < 0` and `i >= high`, of which one holds where `i` is outside; those that never hold are left out.
    pub fn outside(i: &Index, high: i64, extents: &Extents) -> Vec<Guard> {
        [Index::from(-1i64) - i.clone(), i.clone() - high]
            .into_iter()
            .filter(|g| g.range(extents).1 >= 0)
            .map(Guard)
            .collect()
    }
}

/// The cache of a core that a prefetch fills.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cache {
    /// The nearest: what is needed some hundred cycles later.
    First,
    /// The next one: what is too much for the first, or needed later.
    Second,
}

/// A statement.
#[derive(Clone, Debug, PartialEq)]
pub enum Stmt {
    /// A loop.
    Loop {
        /// Its variable; its extent is the declaration's.
        var: Var,
        /// How it runs.
        kind: LoopKind,
        /// What it repeats.
        body: Vec<Stmt>,
    },
    /// If all guards hold.
    If {
        /// The guards.
        guards: Vec<Guard>,
        /// What then.
        body: Vec<Stmt>,
    },
    /// `buffer[index] = value`
    Store {
        /// Where.
        buffer: BufferId,
        /// One a dimension.
        index: Vec<Index>,
        /// What, of the buffer's element type.
        value: Expr,
    },
    /// `buffer[index]` is read soon: a hint to fetch the cache line that it is in. Its place is proved in
    /// bounds like that of a load, but it computes nothing, may come before anybody has written the element, and
    /// a back end may leave it out.
    Prefetch {
        /// From where; not a register.
        buffer: BufferId,
        /// One a dimension.
        index: Vec<Index>,
        /// To where.
        cache: Cache,
    },
    /// What the threads of a [`block`] do together.
    Joint(Joint),
}

impl Stmt {
    /// Calls `f` for every statement, those within others after them.
    pub fn walk<'a>(body: &'a [Stmt], f: &mut dyn FnMut(&'a Stmt)) {
        for stmt in body {
            f(stmt);
            if let Stmt::Loop { body, .. } | Stmt::If { body, .. } = stmt {
                Stmt::walk(body, f);
            }
        }
    }

    /// The elements that it loads, stores or fetches ahead itself, not by statements within it.
    pub fn places(&self) -> Vec<(BufferId, &[Index])> {
        match self {
            Stmt::Loop { .. } | Stmt::If { .. } => vec![],
            Stmt::Prefetch { buffer, index, .. } => vec![(*buffer, index)],
            Stmt::Joint(joint) => joint.accesses(),
            Stmt::Store { buffer, index, value } => {
                let mut places = vec![(*buffer, index.as_slice())];
                value.walk(&mut |e| {
                    if let Expr::Load(b, i) = e {
                        places.push((*b, i));
                    }
                });
                places
            }
        }
    }
}

/// A value that [`Expr::Let`] has named; unique in its store.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Local(pub u32);

/// A scalar expression. Types are strict: operands of an operation have one type, [`Expr::Cast`] converts.
#[derive(Clone, Debug, PartialEq)]
pub enum Expr {
    /// A constant (exact in its type).
    Const(DType, f64),
    /// The value of an index, as i32.
    Index(Index),
    /// `buffer[index]`
    Load(BufferId, Vec<Index>),
    /// `buffer[index]`, but along `axis` (whose entry in the index is ignored) at a computed
    /// position (i32), clamped to the dimension.
    Gather {
        /// From where.
        buffer: BufferId,
        /// One a dimension.
        index: Vec<Index>,
        /// The dimension with the computed position.
        axis: usize,
        /// The position.
        at: Box<Expr>,
    },
    /// `value` where all guards hold, else `otherwise`; only that one is evaluated.
    Guarded {
        /// The guards.
        guards: Vec<Guard>,
        /// If they hold.
        value: Box<Expr>,
        /// If one does not.
        otherwise: Box<Expr>,
    },
    /// `condition ? a : b` on values; both are evaluated.
    Select(Box<Expr>, Box<Expr>, Box<Expr>),
    /// A function of one operand.
    Unary(UnOp, Box<Expr>),
    /// A function of two.
    Binary(BinOp, Box<Expr>, Box<Expr>),
    /// `a·b + c`, rounded once.
    Fma(Box<Expr>, Box<Expr>, Box<Expr>),
    /// Conversion; float to i32 truncates and saturates (NaN is 0), anything to bool is `!= 0`.
    Cast(DType, Box<Expr>),
    /// The second expression, where the name stands for the value of the first (computed once).
    Let(Local, Box<Expr>, Box<Expr>),
    /// The value of a name.
    Local(Local),
}

/// Functions of one operand. Those past `Tf32` are expanded by [`math`] into the ones before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is its own name
pub enum UnOp {
    /// f32, i32.
    Neg,
    Abs,
    Sqrt,
    Floor,
    /// `0 > x ? 0 : x`: NaN stays NaN.
    Relu,
    /// On bool.
    Not,
    /// The bits of an f32 as i32.
    Bits,
    /// The f32 of these bits.
    FromBits,
    /// An f32 rounded as tensor cores want it ([`block::tf32`]); GPUs alone have it.
    Tf32,
    Exp,
    Log,
    Tanh,
    Sigmoid,
    Erf,
}

/// Functions of two operands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)] // each is its own name
pub enum BinOp {
    /// f32, i32 (wraps).
    Add,
    Sub,
    Mul,
    /// f32; i32 truncates, by zero is zero, `MIN / -1` wraps.
    Div,
    /// `a is NaN or a > b ? a : b`, and NaN if b is: NaN wins; of equal zeros it is the second.
    Max,
    /// Likewise, with `a < b`.
    Min,
    /// To bool; comparisons with NaN are false, but `Ne` true.
    Eq,
    Ne,
    Lt,
    Le,
    /// On bool and i32.
    And,
    Or,
    Xor,
    /// Upper half of the product of two i32 taken as unsigned.
    MulHigh,
    /// On i32; the amount counts modulo 32.
    Shl,
    /// Arithmetic, on i32; likewise.
    Shr,
    /// f32; expanded by [`math`].
    Pow,
}

impl Expr {
    /// Calls the function with the expression and all inside it, outer ones first.
    pub fn walk<'a>(&'a self, f: &mut dyn FnMut(&'a Expr)) {
        f(self);
        match self {
            Expr::Const(..) | Expr::Index(_) | Expr::Load(..) | Expr::Local(_) => {}
            Expr::Unary(_, a) | Expr::Cast(_, a) | Expr::Gather { at: a, .. } => a.walk(f),
            Expr::Binary(_, a, b) | Expr::Let(_, a, b) | Expr::Guarded { value: a, otherwise: b, .. } => {
                a.walk(f);
                b.walk(f);
            }
            Expr::Select(a, b, c) | Expr::Fma(a, b, c) => {
                a.walk(f);
                b.walk(f);
                c.walk(f);
            }
        }
    }
}

impl Kernel {
    /// An empty kernel.
    pub fn new(name: impl Into<String>) -> Kernel {
        Kernel {
            name: name.into(),
            vars: vec![],
            buffers: vec![],
            tasks: vec![],
            threads: None,
            body: vec![],
            flops: 0,
            spans: vec![],
        }
    }

    /// Declares a loop variable; a taken name gets a number.
    pub fn var(&mut self, name: &str, extent: usize) -> Var {
        let mut unique = name.to_string();
        let mut i = 2;
        while self.vars.iter().any(|v| v.name == unique) {
            unique = format!("{name}{i}");
            i += 1;
        }
        self.vars.push(VarDecl { name: unique, extent });
        Var(self.vars.len() as u32 - 1)
    }

    /// Declares a task dimension.
    pub fn task(&mut self, name: &str, extent: usize) -> Var {
        let v = self.var(name, extent);
        self.tasks.push(v);
        v
    }

    /// Declares a row-major buffer.
    pub fn buffer(&mut self, name: &str, dtype: DType, shape: &[usize], memory: Memory) -> BufferId {
        self.strided(name, dtype, shape, &row_major(shape), memory)
    }

    /// Declares a buffer with strides; a taken name gets a number.
    pub fn strided(
        &mut self,
        name: &str,
        dtype: DType,
        shape: &[usize],
        strides: &[usize],
        memory: Memory,
    ) -> BufferId {
        let mut unique = name.to_string();
        let mut i = 2;
        while self.buffers.iter().any(|b| b.name == unique) {
            unique = format!("{name}{i}");
            i += 1;
        }
        self.buffers.push(Buffer {
            name: unique,
            dtype,
            shape: shape.to_vec(),
            strides: strides.to_vec(),
            memory,
            tf32: false,
        });
        BufferId(self.buffers.len() as u32 - 1)
    }

    /// The extents of all variables.
    pub fn extents(&self) -> Extents {
        self.vars.iter().map(|v| v.extent).collect()
    }

    /// The buffers in global memory, in order: the kernel's arguments.
    pub fn params(&self) -> impl Iterator<Item = &Buffer> {
        self.buffers.iter().filter(|b| matches!(b.memory, Memory::Global(_)))
    }

    /// The buffer.
    pub fn buffer_of(&self, id: BufferId) -> &Buffer {
        &self.buffers[id.0 as usize]
    }

    /// The variable's name.
    pub fn var_name(&self, v: Var) -> String {
        self.vars.get(v.0 as usize).map_or_else(|| format!("v{}", v.0), |v| v.name.clone())
    }

    /// The offset of `buffer[index]` from the buffer's first element, in elements.
    pub fn flat(&self, buffer: BufferId, index: &[Index]) -> Index {
        let strides = &self.buffer_of(buffer).strides;
        index.iter().zip(strides).fold(Index::default(), |sum, (i, &s)| sum + i.clone() * s as i64)
    }

    /// True if a value is certain to be one that [`block::tf32`] leaves as it is: rounded here, from a buffer of such
    /// numbers, or chosen among them.
    pub fn is_tf32(&self, e: &Expr) -> bool {
        match e {
            Expr::Const(DType::F32, c) => {
                let bits = (*c as f32).to_bits();
                block::tf32(bits) == bits
            }
            Expr::Load(b, _) | Expr::Gather { buffer: b, .. } => {
                self.buffers.get(b.0 as usize).is_some_and(|b| b.tf32)
            }
            Expr::Guarded { value: a, otherwise: b, .. }
            | Expr::Select(_, a, b)
            | Expr::Binary(BinOp::Max | BinOp::Min, a, b) => self.is_tf32(a) && self.is_tf32(b),
            Expr::Unary(UnOp::Tf32, _) => true,
            Expr::Unary(UnOp::Relu | UnOp::Neg | UnOp::Abs, a) => self.is_tf32(a),
            _ => false,
        }
    }

    /// The number of tasks.
    pub fn task_count(&self) -> u64 {
        self.tasks.iter().map(|v| self.vars[v.0 as usize].extent as u64).product()
    }
}
