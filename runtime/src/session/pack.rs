//! A session's program with the weights in it: what a deployed file holds.

use crate::program::{Class, Launch, Phase, Program, Storage};

use super::Session;
use super::prepare::Area;

impl Session {
    /// The program with this session's weights, as runs read them: it asks for no parameters and prepares
    /// nothing. The weights are shared, not copied.
    pub fn packed(&self) -> Program {
        let program = self.program();
        let area = Area::of(program);
        let mut storages = Kept::of(&program.storages);
        let mut kernels = Kept::of(&program.kernels);
        let mut launches: Vec<Launch> =
            program.launches.iter().filter(|l| l.phase == Phase::Run).cloned().collect();
        for launch in &mut launches {
            launch.kernel = kernels.keep(launch.kernel);
            launch.args.iter_mut().for_each(|arg| arg.storage = storages.keep(arg.storage));
        }
        let storage = |s: &Storage| match s.class {
            Class::Parameter(i) => match area.kept[i] {
                Some(at) => Storage { class: Class::Prepared(at), ..s.clone() },
                None => s.clone(),
            },
            _ => s.clone(),
        };
        Program {
            name: program.name.clone(),
            architecture: program.architecture.clone(),
            features: program.features.clone(),
            inputs: program.inputs.clone(),
            outputs: program.outputs.clone(),
            parameters: vec![],
            training_only: vec![],
            storages: storages.kept.into_iter().map(storage).collect(),
            kernels: kernels.kept.into_iter().cloned().collect(),
            launches,
            prepared_bytes: self.weights.len(),
            preparing_bytes: 0,
            arena_bytes: program.arena_bytes,
            code: self.executable.code().to_vec(),
            constants: self.executable.constants().bytes().to_vec(),
            weights: Some(self.weights.clone()),
        }
    }
}

/// Some of a list, in the order in which they were asked for.
struct Kept<'a, T> {
    all: &'a [T],
    kept: Vec<&'a T>,
    /// Where each is among them.
    at: Vec<Option<usize>>,
}

impl<'a, T> Kept<'a, T> {
    fn of(all: &'a [T]) -> Kept<'a, T> {
        Kept { all, kept: vec![], at: vec![None; all.len()] }
    }

    /// Keeps one; its new number.
    fn keep(&mut self, old: usize) -> usize {
        *self.at[old].get_or_insert_with(|| {
            self.kept.push(&self.all[old]);
            self.kept.len() - 1
        })
    }
}
