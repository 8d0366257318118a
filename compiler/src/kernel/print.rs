//! The text form of kernels and modules: a readable loop nest, for golden files and `--emit kernels`.

use std::fmt::{self, Display, Formatter, Write};

use nnc_runtime::DType;
use nnc_runtime::program::{Access, Phase};

use super::block::Part;
use super::module::{Module, Role};
use super::{
    BinOp, Buffer, BufferId, Cache, Expr, Guard, Index, Joint, Kernel, LoopKind, Memory, Stmt, UnOp,
    row_major,
};

impl Display for Kernel {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Printer { kernel: self }.kernel(f)
    }
}

impl Display for Module {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        writeln!(f, "module {}", self.name)?;
        for (i, v) in self.values.iter().enumerate() {
            write!(f, "  %{i} {}: {}{:?} ", v.name, v.dtype, v.shape)?;
            match &v.role {
                Role::Input(n) => writeln!(f, "input {n}")?,
                Role::Output(n) => writeln!(f, "output {n}")?,
                Role::Parameter(n) => writeln!(f, "parameter {n}")?,
                Role::State(n) => writeln!(f, "state {n}")?,
                Role::Constant(bytes) => writeln!(f, "constant, {} bytes", bytes.len())?,
                Role::Temporary => writeln!(f, "temporary")?,
            }
        }
        for launch in &self.launches {
            let phase = match launch.phase {
                Phase::Prepare => "prepare",
                Phase::Run => "run",
            };
            write!(f, "  {phase} #{} {}(", launch.kernel, self.kernels[launch.kernel].name)?;
            for (i, arg) in launch.args.iter().enumerate() {
                write!(f, "{}%{}", if i > 0 { ", " } else { "" }, arg.value.0)?;
                if arg.offset > 0 {
                    write!(f, "+{}", arg.offset)?;
                }
            }
            write!(f, ")   // {}", launch.layer)?;
            if !launch.location.is_empty() {
                write!(f, ", {}", launch.location)?;
            }
            writeln!(f)?;
        }
        for (i, kernel) in self.kernels.iter().enumerate() {
            write!(f, "\n#{i} {kernel}")?;
        }
        Ok(())
    }
}

/// `buffer[index]` as text, for messages.
pub(super) fn access(kernel: &Kernel, buffer: BufferId, index: &[Index]) -> String {
    let p = Printer { kernel };
    let mut text = String::new();
    let _ = p.access(&mut text, buffer, index, None);
    text
}

/// An index as text, for messages.
pub(super) fn index(kernel: &Kernel, i: &Index) -> String {
    i.display(&|v| kernel.var_name(v)).to_string()
}

/// An expression as text, for messages.
pub(super) fn expr(kernel: &Kernel, e: &Expr) -> String {
    let mut text = String::new();
    let _ = Printer { kernel }.expr(&mut text, e, 0);
    text
}

/// Operations with less binding power than their context asks for get parentheses.
const LOOSEST: u8 = 0;
const TIGHTEST: u8 = 9;

struct Printer<'a> {
    kernel: &'a Kernel,
}

impl Printer<'_> {
    fn kernel(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let k = self.kernel;
        write!(f, "kernel {}(", k.name)?;
        for (i, b) in k.params().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            self.buffer(f, b)?;
        }
        f.write_str(")")?;
        if k.flops > 0 {
            write!(f, "   // {}", flops(k.flops))?;
        }
        writeln!(f)?;
        for b in &k.buffers {
            let memory = match b.memory {
                Memory::Global(_) => continue,
                Memory::Scratch => "scratch ",
                Memory::Register => "register",
                Memory::Shared => "shared  ",
                Memory::Fragment(_) => "fragment",
            };
            write!(f, "  {memory} ")?;
            self.buffer(f, b)?;
            writeln!(f)?;
        }
        f.write_str("  task")?;
        for (i, &v) in k.tasks.iter().enumerate() {
            let extent = k.vars[v.0 as usize].extent;
            write!(f, "{} {} in 0..{extent}", if i > 0 { "," } else { "" }, k.var_name(v))?;
        }
        if let Some(n) = k.threads {
            write!(f, " block of {n} threads")?;
        }
        writeln!(f)?;
        self.body(f, &k.body, 2)
    }

    fn buffer(&self, f: &mut Formatter<'_>, b: &Buffer) -> fmt::Result {
        write!(f, "{}: {}{:?}", b.name, b.dtype, b.shape)?;
        if b.strides != row_major(&b.shape) {
            write!(f, " strides {:?}", b.strides)?;
        }
        if b.tf32 {
            f.write_str(" tf32")?;
        }
        match b.memory {
            Memory::Global(Access::Read) => f.write_str(" read"),
            Memory::Global(Access::Write) => f.write_str(" write"),
            Memory::Global(Access::ReadWrite) => f.write_str(" read write"),
            Memory::Fragment(fragment) => write!(f, " of {}", fragment.name()),
            Memory::Scratch | Memory::Register | Memory::Shared => Ok(()),
        }
    }

    fn body(&self, f: &mut Formatter<'_>, body: &[Stmt], depth: usize) -> fmt::Result {
        body.iter().try_for_each(|s| self.stmt(f, s, depth))
    }

    fn stmt(&self, f: &mut Formatter<'_>, stmt: &Stmt, depth: usize) -> fmt::Result {
        let indent = "  ".repeat(depth);
        f.write_str(&indent)?;
        match stmt {
            Stmt::Loop { var, kind, body } => {
                let word = match kind {
                    LoopKind::Serial => "for",
                    LoopKind::Unroll => "unroll",
                    LoopKind::Vector => "vector",
                    LoopKind::Threads => "threads",
                    LoopKind::Warps => "warps",
                    LoopKind::Rows(fragment) => &format!("{} rows", fragment.name()),
                    LoopKind::Columns(_) => "columns",
                };
                let extent = self.kernel.vars.get(var.0 as usize).map_or(0, |v| v.extent);
                writeln!(f, "{word} {} in 0..{extent}", self.kernel.var_name(*var))?;
                self.body(f, body, depth + 1)
            }
            Stmt::If { guards, body } => {
                f.write_str("if ")?;
                self.guards(f, guards)?;
                writeln!(f)?;
                self.body(f, body, depth + 1)
            }
            Stmt::Store { buffer, index, value } => {
                let mut value = value;
                while let Expr::Let(name, bound, body) = value {
                    write!(f, "let t{} = ", name.0)?;
                    self.expr(f, bound, LOOSEST)?;
                    write!(f, "\n{indent}")?;
                    value = body;
                }
                self.access(f, *buffer, index, None)?;
                f.write_str(" = ")?;
                self.expr(f, value, LOOSEST)?;
                writeln!(f)
            }
            Stmt::Prefetch { buffer, index, cache } => {
                let to = match cache {
                    Cache::First => "l1",
                    Cache::Second => "l2",
                };
                write!(f, "prefetch {to} ")?;
                self.access(f, *buffer, index, None)?;
                writeln!(f)
            }
            Stmt::Joint(joint) => self.joint(f, joint),
        }
    }

    fn joint(&self, f: &mut Formatter<'_>, joint: &Joint) -> fmt::Result {
        match joint {
            Joint::Barrier => writeln!(f, "barrier"),
            Joint::Commit => writeln!(f, "commit"),
            Joint::Wait { open } => writeln!(f, "wait until {open} open"),
            Joint::Copy { to, index, from, at, elements, guards } => {
                write!(f, "copy {elements} ")?;
                self.access(f, *to, index, None)?;
                f.write_str(" = ")?;
                self.access(f, *from, at, None)?;
                if !guards.is_empty() {
                    f.write_str(" if ")?;
                    self.guards(f, guards)?;
                    f.write_str(" else zeros")?;
                }
                writeln!(f)
            }
            Joint::Multiply { sum, first, second } => {
                f.write_str("multiply ")?;
                self.part(f, sum)?;
                f.write_str(" += ")?;
                self.part(f, first)?;
                f.write_str(" by ")?;
                self.part(f, second)?;
                writeln!(f)
            }
            Joint::Combine { op, buffer, index } => {
                write!(f, "combine {} ", binary_name(*op))?;
                self.access(f, *buffer, index, None)?;
                writeln!(f)
            }
        }
    }

    fn part(&self, f: &mut Formatter<'_>, part: &Part) -> fmt::Result {
        self.access(f, part.buffer, &part.index, None)
    }

    fn guards(&self, f: &mut dyn Write, guards: &[Guard]) -> fmt::Result {
        for (i, g) in guards.iter().enumerate() {
            let and = if i > 0 { " and " } else { "" };
            write!(f, "{and}{} >= 0", index(self.kernel, &g.0))?;
        }
        Ok(())
    }

    fn access(
        &self,
        f: &mut dyn Write,
        buffer: BufferId,
        at: &[Index],
        gather: Option<(usize, &Expr)>,
    ) -> fmt::Result {
        match self.kernel.buffers.get(buffer.0 as usize) {
            Some(b) => f.write_str(&b.name)?,
            None => write!(f, "buffer{}", buffer.0)?,
        }
        f.write_str("[")?;
        for (d, i) in at.iter().enumerate() {
            if d > 0 {
                f.write_str(", ")?;
            }
            match gather {
                Some((axis, e)) if axis == d => {
                    f.write_str("clamp ")?;
                    self.expr(f, e, TIGHTEST)?;
                }
                _ => f.write_str(&index(self.kernel, i))?,
            }
        }
        f.write_str("]")
    }

    fn call(&self, f: &mut dyn Write, name: &str, operands: &[&Expr]) -> fmt::Result {
        write!(f, "{name}(")?;
        for (i, e) in operands.iter().enumerate() {
            if i > 0 {
                f.write_str(", ")?;
            }
            self.expr(f, e, LOOSEST)?;
        }
        f.write_str(")")
    }

    fn expr(&self, f: &mut dyn Write, e: &Expr, context: u8) -> fmt::Result {
        match e {
            Expr::Const(dtype, c) => constant(f, *dtype, *c),
            Expr::Index(i) => write!(f, "index({})", index(self.kernel, i)),
            Expr::Load(b, i) => self.access(f, *b, i, None),
            Expr::Gather { buffer, index, axis, at } => self.access(f, *buffer, index, Some((*axis, at))),
            Expr::Guarded { guards, value, otherwise } => {
                f.write_str("(")?;
                self.expr(f, value, LOOSEST)?;
                f.write_str(" if ")?;
                self.guards(f, guards)?;
                f.write_str(" else ")?;
                self.expr(f, otherwise, LOOSEST)?;
                f.write_str(")")
            }
            Expr::Select(c, a, b) => self.call(f, "select", &[c, a, b]),
            Expr::Unary(op, a) => self.call(f, unary_name(*op), &[a]),
            Expr::Binary(op, a, b) => match infix(*op) {
                None => self.call(f, binary_name(*op), &[a, b]),
                Some(power) => {
                    let open = power < context;
                    f.write_str(if open { "(" } else { "" })?;
                    self.expr(f, a, power)?;
                    write!(f, " {} ", binary_name(*op))?;
                    self.expr(f, b, power + 1)?;
                    f.write_str(if open { ")" } else { "" })
                }
            },
            Expr::Fma(a, b, c) => self.call(f, "fma", &[a, b, c]),
            Expr::Cast(dtype, a) => self.call(f, dtype.name(), &[a]),
            Expr::Let(name, value, body) => {
                write!(f, "(let t{} = ", name.0)?;
                self.expr(f, value, LOOSEST)?;
                f.write_str("; ")?;
                self.expr(f, body, LOOSEST)?;
                f.write_str(")")
            }
            Expr::Local(name) => write!(f, "t{}", name.0),
        }
    }
}

fn constant(f: &mut dyn Write, dtype: DType, c: f64) -> fmt::Result {
    match dtype {
        DType::Bool => write!(f, "{}", c != 0.0),
        DType::I32 => write!(f, "{}", c as i64),
        DType::F32 => write!(f, "{:?}", c as f32),
        DType::F64 => write!(f, "{c:?}"),
    }
}

/// The name of a function of one operand, as printed.
pub fn unary_name(op: UnOp) -> &'static str {
    match op {
        UnOp::Neg => "neg",
        UnOp::Abs => "abs",
        UnOp::Sqrt => "sqrt",
        UnOp::Floor => "floor",
        UnOp::Relu => "relu",
        UnOp::Not => "not",
        UnOp::Bits => "bits",
        UnOp::FromBits => "from_bits",
        UnOp::Tf32 => "tf32",
        UnOp::Exp => "exp",
        UnOp::Log => "log",
        UnOp::Tanh => "tanh",
        UnOp::Sigmoid => "sigmoid",
        UnOp::Erf => "erf",
    }
}

/// The name or sign of a function of two operands, as printed.
pub fn binary_name(op: BinOp) -> &'static str {
    match op {
        BinOp::Add => "+",
        BinOp::Sub => "-",
        BinOp::Mul => "*",
        BinOp::Div => "/",
        BinOp::Max => "max",
        BinOp::Min => "min",
        BinOp::Eq => "==",
        BinOp::Ne => "!=",
        BinOp::Lt => "<",
        BinOp::Le => "<=",
        BinOp::And => "&",
        BinOp::Or => "|",
        BinOp::Xor => "^",
        BinOp::MulHigh => "mul_high",
        BinOp::Shl => "<<",
        BinOp::Shr => ">>",
        BinOp::Pow => "pow",
    }
}

/// Binding power of the operations that are written between their operands.
fn infix(op: BinOp) -> Option<u8> {
    match op {
        BinOp::Or => Some(1),
        BinOp::Xor => Some(2),
        BinOp::And => Some(3),
        BinOp::Eq | BinOp::Ne | BinOp::Lt | BinOp::Le => Some(4),
        BinOp::Shl | BinOp::Shr => Some(5),
        BinOp::Add | BinOp::Sub => Some(6),
        BinOp::Mul | BinOp::Div => Some(7),
        BinOp::Max | BinOp::Min | BinOp::MulHigh | BinOp::Pow => None,
    }
}

/// `3.7 GFLOP`
fn flops(n: u64) -> String {
    const UNITS: [(f64, &str); 3] = [(1e9, "GFLOP"), (1e6, "MFLOP"), (1e3, "kFLOP")];
    match UNITS.iter().find(|(size, _)| n as f64 >= *size) {
        Some((size, unit)) => format!("{:.1} {unit}", n as f64 / size),
        None => format!("{n} FLOP"),
    }
}

#[cfg(test)]
mod tests;
