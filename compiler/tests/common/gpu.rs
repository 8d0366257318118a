//! Runs the launches of a module as PTX, in the interpreter: what a GPU would compute.

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use nnc_compiler::emit::cuda;
use nnc_compiler::kernel::Module;
use nnc_compiler::kernel::module::Role;
use nnc_compiler::target::GpuTarget;
use nnc_ptx_interpreter::{Arg, Buffer, Memory, Stats};
use nnc_runtime::{DType, Tensor};

/// The outputs by name, and what became of the parameters that the module changes, by theirs.
///
/// # Panics
/// If there is no PTX, the interpreter finds a fault in it, or factors come to tensor cores that are not
/// rounded: what they make of those is the hardware's business.
pub fn run_ptx(
    module: &Module,
    target: GpuTarget,
    feeds: &BTreeMap<String, Tensor>,
) -> BTreeMap<String, Tensor> {
    let ptx = cuda::emit(module, target).unwrap_or_else(|e| panic!("{e}"));
    let ran = run_text(module, &ptx, feeds).unwrap_or_else(|e| panic!("{e}\n{}", ptx.text));
    assert!(ran.stats.iter().all(|s| s.unrounded_tf32 == 0), "{:?}\n{}", ran.stats, ptx.text);
    ran.outputs
}

/// What a run gave.
pub struct Ran {
    /// By name.
    pub outputs: BTreeMap<String, Tensor>,
    /// What each launch took.
    pub stats: Vec<Stats>,
}

/// Likewise, of a text that may be damaged: what the interpreter finds.
///
/// # Panics
/// If the text cannot be read.
pub fn run_text(
    module: &Module,
    ptx: &cuda::Ptx,
    feeds: &BTreeMap<String, Tensor>,
) -> Result<Ran, nnc_ptx_interpreter::Error> {
    let code = nnc_ptx_interpreter::Module::parse(&ptx.text).unwrap_or_else(|e| panic!("{e}\n{}", ptx.text));
    let mut memory = Memory::new();
    let mut buffers = vec![];
    for v in &module.values {
        buffers.push(match &v.role {
            Role::Input(i) => upload(&mut memory, &feeds[&module.inputs[*i].name], &v.name),
            Role::Parameter(i) | Role::State(i) => {
                upload(&mut memory, &feeds[&module.parameters[*i].port.name], &v.name)
            }
            Role::Constant(bytes) => memory.upload(&v.name, bytes),
            Role::Output(_) | Role::Temporary => memory.allocate(&v.name, v.elements * v.dtype.size()),
        });
    }
    let mut stats = vec![];
    for l in &module.launches {
        let entry = &ptx.entries[l.kernel];
        let address = |a: &nnc_compiler::kernel::module::Arg| {
            let value = a.value.0 as usize;
            Arg::U64(buffers[value].address() + (a.offset * module.values[value].dtype.size()) as u64)
        };
        let args: Vec<Arg> = l.args.iter().map(address).collect();
        let (grid, block) = ([entry.launch.grid, 1, 1], [entry.launch.block, 1, 1]);
        stats.push(code.launch(&mut memory, &entry.name, grid, block, entry.launch.shared_bytes, &args)?);
    }
    let mut outputs = BTreeMap::new();
    for (v, &buffer) in module.values.iter().zip(&buffers) {
        let port = match v.role {
            Role::Output(i) => &module.outputs[i],
            Role::State(i) => &module.parameters[i].port,
            _ => continue,
        };
        outputs.insert(port.name.clone(), download(&mut memory, buffer, port.dtype, &port.shape)?);
    }
    Ok(Ran { outputs, stats })
}

fn upload(memory: &mut Memory, t: &Tensor, name: &str) -> Buffer {
    match t {
        Tensor::F32(a) => memory.upload(name, &a.iter().copied().collect::<Vec<f32>>()),
        Tensor::F64(a) => memory.upload(name, &a.iter().map(|&x| x as f32).collect::<Vec<f32>>()),
        Tensor::I32(a) => memory.upload(name, &a.iter().copied().collect::<Vec<i32>>()),
        Tensor::Bool(a) => memory.upload(name, &a.iter().map(|&x| u8::from(x)).collect::<Vec<u8>>()),
    }
}

fn download(
    memory: &mut Memory,
    buffer: Buffer,
    dtype: DType,
    shape: &[usize],
) -> Result<Tensor, nnc_ptx_interpreter::Error> {
    let (shape, fits) = (IxDyn(shape), "as many elements as the shape says");
    Ok(match dtype {
        DType::F32 | DType::F64 => {
            Tensor::F32(ArrayD::from_shape_vec(shape, memory.download(buffer)?).expect(fits))
        }
        DType::I32 => Tensor::I32(ArrayD::from_shape_vec(shape, memory.download(buffer)?).expect(fits)),
        DType::Bool => {
            let bytes: Vec<u8> = memory.download(buffer)?;
            Tensor::Bool(ArrayD::from_shape_vec(shape, bytes.iter().map(|&b| b != 0).collect()).expect(fits))
        }
    })
}
