//! Where the storages of a program lie on the GPU.
//!
//! A session has three allocations, so that what lives as long is freed together:
//!
//! | allocation | holds | lives |
//! |---|---|---|
//! | fixed | constants, then the prepared area | as long as the session |
//! | parameters | those that runs read or change | as long as the session, or longer: a training step for another size of batch takes it over |
//! | run | the arena, then outputs, then inputs (twice in training: while one set is in use the next one is filled) | as long as the session |
//!
//! and while it is made a fourth one: memory and parameters that only the prepare phase has, which take turns. Inputs and outputs
//! are the caller's in a program; here they have a place on the GPU and one in page-locked memory of
//! the host, in the same order. Every storage begins at a multiple of [`ALIGNMENT`]; offsets within areas
//! that the plan made are the plan's.

use std::ops::Range;

use crate::program::{Class, Launch, Phase, Port, Program};

/// What `cuMemAlloc` aligns to.
pub(super) const ALIGNMENT: usize = 256;

/// Places of things that lie one after the other.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Places {
    /// Where each begins.
    pub at: Vec<usize>,
    /// Where each ends: its size, in bytes.
    pub bytes: Vec<usize>,
    /// All of it.
    pub total: usize,
}

impl Places {
    fn new(sizes: impl Iterator<Item = usize>) -> Places {
        let mut places = Places::default();
        for bytes in sizes {
            places.at.push(places.total);
            places.bytes.push(bytes);
            places.total += bytes.next_multiple_of(ALIGNMENT);
        }
        places
    }

    fn of_ports<'a>(ports: impl Iterator<Item = &'a Port>) -> Places {
        // A validated program's ports have sizes.
        Places::new(ports.map(|p| Program::port_bytes(p).unwrap_or(0)))
    }
}

/// The layout of a session, but for its parameters. See the module's head.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Layout {
    /// First byte of the prepared area in the fixed allocation.
    pub prepared: usize,
    pub fixed_bytes: usize,
    /// Inputs, within a set.
    pub inputs: Places,
    /// Outputs, from their beginning.
    pub outputs: Places,
    /// First byte of the outputs in the allocation of a run.
    outputs_at: usize,
    /// First byte of each set of inputs in it.
    sets: Vec<usize>,
    pub run_bytes: usize,
}

impl Layout {
    pub fn new(program: &Program, sets: usize) -> Layout {
        let prepared = program.constants.len().next_multiple_of(ALIGNMENT);
        let inputs = Places::of_ports(program.inputs.iter());
        let outputs = Places::of_ports(program.outputs.iter());
        let outputs_at = program.arena_bytes.next_multiple_of(ALIGNMENT);
        let first = outputs_at + outputs.total;
        Layout {
            prepared,
            fixed_bytes: prepared + program.prepared_bytes,
            outputs_at,
            sets: (0..sets).map(|s| first + s * inputs.total).collect(),
            run_bytes: first + sets * inputs.total,
            inputs,
            outputs,
        }
    }

    /// An input in the allocation of a run.
    pub fn input(&self, set: usize, i: usize) -> usize {
        self.sets[set] + self.inputs.at[i]
    }

    /// An output in it.
    pub fn output(&self, i: usize) -> usize {
        self.outputs_at + self.outputs.at[i]
    }

    /// An input in page-locked memory.
    pub fn staged_input(&self, set: usize, i: usize) -> usize {
        self.outputs.total + set * self.inputs.total + self.inputs.at[i]
    }

    /// An output in it.
    pub fn staged_output(&self, i: usize) -> usize {
        self.outputs.at[i]
    }

    /// Bytes of page-locked memory.
    pub fn staging_bytes(&self) -> usize {
        self.outputs.total + self.sets.len() * self.inputs.total
    }
}

/// Places for those of the parameters that are `wanted`, and how many bytes that is.
pub(super) fn parameters(program: &Program, wanted: impl Fn(usize) -> bool) -> (Vec<Option<usize>>, usize) {
    let ports: Vec<usize> = (0..program.parameters.len()).filter(|&i| wanted(i)).collect();
    let places = Places::of_ports(ports.iter().map(|&i| &program.parameters[i].port));
    let mut at = vec![None; program.parameters.len()];
    for (&i, &place) in ports.iter().zip(&places.at) {
        at[i] = Some(place);
    }
    (at, places.total)
}

/// Places for those of the parameters that are `wanted` in the prepare phase, each from the first of its launches that
/// has it to the last one, so that they take turns; behind `before` bytes for something else. And how many bytes that
/// is.
pub(super) fn turns(
    program: &Program,
    before: usize,
    wanted: impl Fn(usize) -> bool,
) -> (Vec<Option<usize>>, usize) {
    let start = before.next_multiple_of(ALIGNMENT);
    // In the order in which they are first needed: parameter, first and last launch.
    let mut lives: Vec<(usize, usize, usize)> = vec![];
    for (n, launch) in program.launches.iter().enumerate().filter(|(_, l)| l.phase == Phase::Prepare) {
        for i in parameters_of(program, launch).filter(|&i| wanted(i)) {
            match lives.iter_mut().find(|(parameter, ..)| *parameter == i) {
                Some((_, _, last)) => *last = n,
                None => lives.push((i, n, n)),
            }
        }
    }
    let (mut at, mut end) = (vec![None; program.parameters.len()], start);
    let mut placed: Vec<(usize, Range<usize>)> = vec![];
    for (i, first, last) in lives {
        let bytes = Program::port_bytes(&program.parameters[i].port).unwrap_or(0).next_multiple_of(ALIGNMENT);
        // The first gap between those that are still needed then.
        let mut taken: Vec<&Range<usize>> =
            placed.iter().filter(|(until, _)| *until >= first).map(|(_, range)| range).collect();
        taken.sort_by_key(|range| range.start);
        let mut free = start;
        for range in taken {
            if free + bytes <= range.start {
                break;
            }
            free = range.end;
        }
        at[i] = Some(free);
        end = end.max(free + bytes);
        placed.push((last, free..free + bytes));
    }
    (at, end)
}

/// The parameters that a launch has as arguments.
pub(super) fn parameters_of<'a>(
    program: &'a Program,
    launch: &'a Launch,
) -> impl Iterator<Item = usize> + 'a {
    launch.args.iter().filter_map(|arg| match program.storages[arg.storage].class {
        Class::Parameter(i) | Class::State(i) => Some(i),
        _ => None,
    })
}

/// Which parameters a phase has as arguments.
pub(super) fn used(program: &Program, phase: Phase) -> Vec<bool> {
    let mut used = vec![false; program.parameters.len()];
    for launch in program.launches.iter().filter(|l| l.phase == phase) {
        parameters_of(program, launch).for_each(|i| used[i] = true);
    }
    used
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::DType;
    use crate::program::{Argument, Initializer, Parameter, Storage};

    fn port(name: &str, n: usize) -> Port {
        Port { name: name.into(), dtype: DType::F32, shape: vec![n] }
    }

    fn program() -> Program {
        let parameter =
            |(name, n)| Parameter { port: port(name, n), init: Initializer::Constant(0.0), trainable: true };
        Program {
            name: "p".into(),
            architecture: crate::program::GPU_ARCHITECTURE.into(),
            features: vec![],
            inputs: vec![port("x", 65), port("label", 1)],
            outputs: vec![port("y", 3), port("nothing", 0), port("z", 64)],
            parameters: [("a", 2), ("b", 100), ("c", 1)].map(parameter).to_vec(),
            training_only: vec![],
            storages: vec![],
            kernels: vec![],
            launches: vec![],
            prepared_bytes: 100,
            preparing_bytes: 0,
            arena_bytes: 1000,
            code: vec![],
            constants: vec![0; 300],
            weights: None,
        }
    }

    #[test]
    fn nothing_overlaps_and_all_is_aligned() {
        let layout = Layout::new(&program(), 2);
        assert_eq!((layout.prepared, layout.fixed_bytes), (512, 612));
        let outputs: Vec<usize> = (0..3).map(|i| layout.output(i)).collect();
        assert_eq!(outputs, [1024, 1280, 1280], "behind the arena");
        let inputs: Vec<usize> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].iter().map(|&(set, i)| layout.input(set, i)).collect();
        assert_eq!(inputs, [1536, 2048, 2304, 2816]);
        assert_eq!(layout.run_bytes, 2816 + 256);
        let staged: Vec<usize> =
            [(0, 0), (0, 1), (1, 0), (1, 1)].iter().map(|&(set, i)| layout.staged_input(set, i)).collect();
        assert_eq!(staged, [512, 1024, 1280, 1792]);
        assert_eq!(layout.staging_bytes(), 1792 + 256);
    }

    #[test]
    fn parameters_lie_where_they_are_wanted() {
        let p = program();
        assert_eq!(parameters(&p, |_| true), (vec![Some(0), Some(256), Some(768)], 1024));
        assert_eq!(parameters(&p, |i| i != 1), (vec![Some(0), None, Some(256)], 512));
        assert_eq!(parameters(&p, |_| false), (vec![None; 3], 0));
    }

    /// Parameters of 256, 512 and 256 bytes, in launches one after the other.
    #[test]
    fn parameters_to_be_prepared_take_turns() {
        let placed = |launches: &[&[usize]]| {
            let storage = |i| Storage { name: String::new(), bytes: 0, class: Class::Parameter(i) };
            let launch = |args: &&[usize]| Launch {
                kernel: 0,
                args: args.iter().map(|&storage| Argument { storage, offset: 0 }).collect(),
                phase: Phase::Prepare,
                layer: String::new(),
                location: String::new(),
            };
            let launches = launches.iter().map(launch).collect();
            let p = Program { storages: (0..3).map(storage).collect(), launches, ..program() };
            turns(&p, 10, |i| i != 3)
        };
        let at = |a, b, c| vec![Some(a), Some(b), Some(c)];
        assert_eq!(placed(&[&[0, 1], &[1], &[2]]), (at(256, 512, 256), 1024), "all are gone");
        assert_eq!(placed(&[&[0, 1], &[1, 2]]), (at(256, 512, 256), 1024), "one is gone");
        assert_eq!(placed(&[&[0], &[2], &[1, 2]]), (at(256, 512, 256), 1024), "a gap that is too small");
        assert_eq!(placed(&[&[0, 1, 2]]), (at(256, 512, 1024), 1280), "none is gone");
        assert_eq!(placed(&[&[0, 1], &[2], &[0]]), (at(256, 512, 512), 1024), "one is still needed");
        assert_eq!(placed(&[&[2]]).0, [None, None, Some(256)]);
    }
}
