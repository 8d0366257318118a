//! Training steps on a GPU.

use std::collections::BTreeMap;
use std::sync::Arc;

use nnc_runtime::cuda::{CudaExecutable, CudaTrainable, Staged};

use super::{Code, Engine, Program};
use crate::device::{LaunchTime, launch_times};
use crate::error::Result;
use crate::{Error, Tensor, TensorView};

/// A step whose parameters are on the GPU.
pub(super) struct Cuda {
    /// None after another step could not take the parameters over.
    trainable: Option<CudaTrainable>,
}

impl Cuda {
    pub fn new(executable: Arc<CudaExecutable>, parameters: &BTreeMap<String, Tensor>) -> Result<Cuda> {
        Ok(Cuda { trainable: Some(CudaTrainable::new(executable, parameters)?) })
    }

    fn get(&mut self) -> Result<&mut CudaTrainable> {
        self.trainable.as_mut().ok_or_else(lost)
    }
}

fn lost() -> Error {
    Error::Program("the parameters on the GPU are lost".into())
}

impl Engine for Cuda {
    fn step(&mut self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>> {
        Ok(self.get()?.step(inputs)?)
    }

    fn begin(&mut self, inputs: &[TensorView<'_>], staged: Option<Staged>) -> Result<Option<Vec<Tensor>>> {
        self.get()?.begin(inputs, staged)?;
        Ok(None)
    }

    fn stage(&mut self, inputs: &[Option<TensorView<'_>>]) -> Result<Option<Staged>> {
        Ok(Some(self.get()?.stage(inputs)?))
    }

    fn finish(&mut self) -> Result<Vec<Tensor>> {
        Ok(self.get()?.finish()?)
    }

    fn step_profiled(&mut self, inputs: &[TensorView<'_>]) -> Result<(Vec<Tensor>, Vec<LaunchTime>)> {
        let trainable = self.get()?;
        let (outputs, times) = trainable.step_profiled(inputs)?;
        Ok((outputs, launch_times(trainable.program(), times)))
    }

    fn parameters(&self) -> Result<BTreeMap<String, Tensor>> {
        Ok(self.trainable.as_ref().ok_or_else(lost)?.parameters()?)
    }

    fn set_parameters(&mut self, parameters: BTreeMap<String, Tensor>) -> Result<()> {
        Ok(self.get()?.set_parameters(&parameters)?)
    }

    fn switch(&mut self, to: &Program) -> Result<()> {
        let Code::Cuda(executable) = &to.code else {
            return Err(Error::Internal("a step without code for the GPU".into()));
        };
        self.get()?.check_switch(executable)?;
        if let Some(trainable) = self.trainable.take() {
            self.trainable = Some(trainable.switch(executable)?);
        }
        Ok(())
    }
}
