//! Runs the launches of a module as PTX, in the interpreter: what a GPU would compute.

use std::collections::BTreeMap;

use ndarray::{ArrayD, IxDyn};
use nnc_compiler::emit::cuda;
use nnc_compiler::kernel::Module;
use nnc_compiler::kernel::module::Role;
use nnc_compiler::target::GpuTarget;
use nnc_ptx_interpreter::{Arg, Buffer, Memory};
use nnc_runtime::{DType, Tensor};

/// The outputs by name, and what became of the parameters that the module changes, by theirs.
///
/// # Panics
/// If there is no PTX, or the interpreter finds a fault in it.
pub fn run_ptx(
    module: &Module,
    target: GpuTarget,
    feeds: &BTreeMap<String, Tensor>,
) -> BTreeMap<String, Tensor> {
    let ptx = cuda::emit(module, target).unwrap_or_else(|e| panic!("{e}"));
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
    for l in &module.launches {
        let entry = &ptx.entries[l.kernel];
        let address = |a: &nnc_compiler::kernel::module::Arg| {
            let value = a.value.0 as usize;
            Arg::U64(buffers[value].address() + (a.offset * module.values[value].dtype.size()) as u64)
        };
        let args: Vec<Arg> = l.args.iter().map(address).collect();
        let (grid, block) = ([entry.launch.grid, 1, 1], [entry.launch.block, 1, 1]);
        let done = code.launch(&mut memory, &entry.name, grid, block, entry.launch.shared_bytes, &args);
        done.unwrap_or_else(|e| panic!("{e}\n{}\n{}", module.kernels[l.kernel], ptx.text));
    }
    let mut out = BTreeMap::new();
    for (v, &buffer) in module.values.iter().zip(&buffers) {
        let port = match v.role {
            Role::Output(i) => &module.outputs[i],
            Role::State(i) => &module.parameters[i].port,
            _ => continue,
        };
        out.insert(port.name.clone(), download(&mut memory, buffer, port.dtype, &port.shape));
    }
    out
}

fn upload(memory: &mut Memory, t: &Tensor, name: &str) -> Buffer {
    match t {
        Tensor::F32(a) => memory.upload(name, &a.iter().copied().collect::<Vec<f32>>()),
        Tensor::F64(a) => memory.upload(name, &a.iter().map(|&x| x as f32).collect::<Vec<f32>>()),
        Tensor::I32(a) => memory.upload(name, &a.iter().copied().collect::<Vec<i32>>()),
        Tensor::Bool(a) => memory.upload(name, &a.iter().map(|&x| u8::from(x)).collect::<Vec<u8>>()),
    }
}

fn download(memory: &mut Memory, buffer: Buffer, dtype: DType, shape: &[usize]) -> Tensor {
    fn read<T: nnc_ptx_interpreter::Element>(memory: &mut Memory, buffer: Buffer) -> Vec<T> {
        memory.download(buffer).unwrap_or_else(|e| panic!("{e}"))
    }
    let (shape, fits) = (IxDyn(shape), "as many elements as the shape says");
    match dtype {
        DType::F32 | DType::F64 => {
            Tensor::F32(ArrayD::from_shape_vec(shape, read(memory, buffer)).expect(fits))
        }
        DType::I32 => Tensor::I32(ArrayD::from_shape_vec(shape, read(memory, buffer)).expect(fits)),
        DType::Bool => {
            let bytes: Vec<u8> = read(memory, buffer);
            Tensor::Bool(ArrayD::from_shape_vec(shape, bytes.iter().map(|&b| b != 0).collect()).expect(fits))
        }
    }
}
