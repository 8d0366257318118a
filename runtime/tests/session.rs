//! Programs made by hand are loaded and run.
#![cfg(target_arch = "x86_64")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use common::{N, launch, sum};
use ndarray::{Array2, Array3, Axis};
use nnc_runtime::program::{Class, Initializer, Parameter, Phase, Port, Storage};
use nnc_runtime::{
    Executable, ExecutableError, LoadError, Parameters, Pool, Program, ProgramError, RunError, Session,
    Tensor, TensorView,
};

fn weights() -> BTreeMap<String, Tensor> {
    let w = Array2::from_shape_fn((4, N / 4), |(i, j)| (i * 7 + j) as f32);
    BTreeMap::from([("weight".to_string(), Tensor::from(w))])
}

fn session(threads: usize) -> Session {
    let executable = Executable::load(sum()).unwrap();
    Session::new(executable, &weights(), Arc::new(Pool::new(threads))).unwrap()
}

fn picture(k: usize) -> Array2<f32> {
    Array2::from_shape_fn((4, N / 4), |(i, j)| (i + 3 * j + k) as f32)
}

fn expected(x: &Array2<f32>) -> Tensor {
    let w = weights();
    let w = w["weight"].as_f32().unwrap();
    Tensor::from((&x.clone().into_dyn() + &(w + 1.0)) + w)
}

#[test]
fn runs_with_any_number_of_threads() {
    for threads in [1, 2, 3] {
        let s = session(threads);
        for k in 0..50 {
            let x = picture(k);
            assert_eq!(s.run(&[(&x).into()]).unwrap(), [expected(&x)]);
        }
    }
}

#[test]
fn runs_from_many_threads_at_once() {
    let s = session(2);
    std::thread::scope(|scope| {
        for k in 0..4 {
            let s = &s;
            scope.spawn(move || {
                let x = picture(k);
                for _ in 0..100 {
                    assert_eq!(s.run(&[(&x).into()]).unwrap(), [expected(&x)]);
                }
            });
        }
    });
}

#[test]
fn takes_any_strides() {
    let s = session(1);
    let x = picture(1);
    let turned = x.t().as_standard_layout().into_owned();
    assert_eq!(s.run(&[turned.t().into()]).unwrap(), [expected(&x)]);
    let mut wide = Array3::zeros((4, N / 4, 2));
    wide.index_axis_mut(Axis(2), 1).assign(&x);
    assert_eq!(s.run(&[wide.index_axis(Axis(2), 1).into()]).unwrap(), [expected(&x)]);
    let mut out = [Tensor::from(Array2::<f32>::zeros((N / 4, 4)).reversed_axes())];
    s.run_into(&[(&x).into()], &mut out).unwrap();
    assert_eq!(out, [expected(&x)]);
}

#[test]
fn profiles_every_launch() {
    let s = session(2);
    let x = picture(2);
    let (out, times) = s.run_profiled(&[(&x).into()]).unwrap();
    assert_eq!(out, [expected(&x)]);
    let launches: Vec<usize> = times.iter().map(|t| t.0).collect();
    assert_eq!(launches, [1, 2], "those of the run phase");
}

#[test]
fn refuses_wrong_inputs() {
    let s = session(1);
    let count = RunError::Count { what: "inputs", expected: 1, found: 0 };
    assert_eq!(s.run(&[]).unwrap_err(), count);
    let flat = ndarray::Array1::<f32>::zeros(N);
    let e = s.run(&[(&flat).into()]).unwrap_err().to_string();
    assert_eq!(e, "input `x`: expected f32[4, 1024], found f32[4096]");
    let ints = Array2::<i32>::zeros((4, N / 4));
    let e = s.run(&[TensorView::from(&ints)]).unwrap_err().to_string();
    assert_eq!(e, "input `x`: expected f32[4, 1024], found i32[4, 1024]");
}

#[test]
fn refuses_wrong_parameters() {
    let executable = Executable::load(sum()).unwrap();
    let pool = Arc::new(Pool::new(1));
    let load = |w: &BTreeMap<String, Tensor>| {
        Session::new(executable.clone(), w, pool.clone()).map(|_| ()).map_err(|e| e.to_string())
    };
    let mut w = weights();
    w.insert("bn1.num_batches_tracked".into(), Tensor::from(ndarray::arr0(3)));
    w.insert("aux.weight".into(), Tensor::from(ndarray::arr0(3)));
    assert_eq!(load(&w), Ok(()), "these are tolerated");
    w.insert("fc9.bias".into(), Tensor::from(ndarray::arr0(3)));
    w.insert("weight".into(), Tensor::from(Array2::<f32>::zeros((N / 4, 4))));
    assert_eq!(
        load(&w).unwrap_err(),
        "parameter `weight`: expected f32[4, 1024], found f32[1024, 4]\n\
         the network has no parameter `fc9.bias`"
    );
    assert_eq!(load(&BTreeMap::new()).unwrap_err(), "parameter `weight` is missing");
}

#[test]
fn refuses_other_machines_and_more_memory_than_there_is() {
    let mut p = sum();
    p.architecture = "vax".into();
    let e = Executable::load(p).unwrap_err();
    assert!(matches!(e, ExecutableError::Program(ProgramError::Unsupported(_))), "{e}");
    let mut p = sum();
    p.features = vec!["sse3".into(), "telepathy".into()];
    let e = Executable::load(p).unwrap_err().to_string();
    assert_eq!(e, "the program needs CPU features that this machine lacks: telepathy");
    let mut p = sum();
    p.prepared_bytes = 1 << 46;
    let e = Session::new(Executable::load(p).unwrap(), &weights(), Arc::new(Pool::new(1))).unwrap_err();
    assert!(matches!(e, LoadError::Memory(_)), "{e}");
    let mut p = sum();
    p.arena_bytes = 1 << 45;
    p.launches.remove(0);
    let s = Session::new(Executable::load(p).unwrap(), &weights(), Arc::new(Pool::new(1))).unwrap();
    let e = s.run(&[(&picture(0)).into()]).unwrap_err();
    assert!(matches!(e, RunError::Memory(_)), "{e}");
}

/// `y = x + (a + one) + (a + b) + c`: `a` and `b` are prepared alone, `c` is read by runs as it is.
fn three_weights() -> Program {
    let mut p = sum();
    let storage = |name: &str, class| Storage { name: name.into(), bytes: N * 4, class };
    p.parameters = ["a", "b", "c"]
        .map(|name| Parameter {
            port: Port { name: name.into(), ..p.parameters[0].port.clone() },
            init: Initializer::Uniform { low: 0.0, high: 1.0 },
            trainable: true,
        })
        .to_vec();
    p.storages[2] = storage("a", Class::Parameter(0));
    p.storages.push(storage("b", Class::Parameter(1)));
    p.storages.push(storage("c", Class::Parameter(2)));
    p.storages.push(storage("first", Class::Preparing(0)));
    p.storages.push(storage("second", Class::Preparing(N * 4)));
    p.preparing_bytes = 2 * N * 4;
    p.launches = vec![
        launch([2, 3, 8], Phase::Prepare),
        launch([2, 6, 9], Phase::Prepare),
        launch([8, 9, 4], Phase::Prepare),
        launch([0, 4, 5], Phase::Run),
        launch([5, 7, 1], Phase::Run),
    ];
    p
}

/// Parameters that are read, and note by whom and how often.
#[derive(Default)]
struct Watched {
    tensors: BTreeMap<String, Tensor>,
    /// As if they were not in memory.
    read: Mutex<Vec<String>>,
    failing: Option<&'static str>,
    asked: AtomicUsize,
}

impl Parameters for Watched {
    fn ports(&self) -> Vec<Port> {
        self.tensors.ports()
    }

    fn in_memory(&self, _: &str) -> Option<TensorView<'_>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        None
    }

    fn fill(&self, port: &Port, to: &mut [u8], threads: usize) -> Result<(), String> {
        self.read.lock().unwrap().push(port.name.clone());
        match self.failing {
            Some(name) if name == port.name => Err("the disk is gone".into()),
            _ => self.tensors.fill(port, to, threads),
        }
    }
}

fn watched() -> Watched {
    let tensor = |k: usize| Tensor::from(Array2::from_shape_fn((4, N / 4), |(i, j)| (i * k + j) as f32));
    let tensors = [("a", 1), ("b", 5), ("c", 9)].map(|(name, k)| (name.to_string(), tensor(k)));
    Watched { tensors: tensors.into(), ..Watched::default() }
}

/// Each parameter is read once, when it is needed; what runs read as it is comes last, to where they read it.
#[test]
fn parameters_are_read_one_after_the_other() {
    let executable = || Executable::load(three_weights()).unwrap();
    let pool = Arc::new(Pool::new(2));
    let parameters = watched();
    let session = Session::new(executable(), &parameters, pool.clone()).unwrap();
    assert_eq!(*parameters.read.lock().unwrap(), ["a", "b", "c"]);
    assert_eq!(parameters.asked.load(Ordering::Relaxed), 2, "`c` has a place of its own");
    let x = picture(3);
    let in_memory = Session::new(executable(), &parameters.tensors, pool.clone()).unwrap();
    let [a, b, c] = ["a", "b", "c"].map(|n| parameters.tensors[n].as_f32().unwrap().clone());
    let expected = [Tensor::from(x.clone().into_dyn() + (&a + 1.0 + (&a + &b)) + c)];
    assert_eq!(session.run(&[(&x).into()]).unwrap(), expected);
    assert_eq!(in_memory.run(&[(&x).into()]).unwrap(), expected);
}

#[test]
fn a_parameter_that_cannot_be_read_is_named() {
    for name in ["b", "c"] {
        let parameters = Watched { failing: Some(name), ..watched() };
        let executable = Executable::load(three_weights()).unwrap();
        let e = Session::new(executable, &parameters, Arc::new(Pool::new(1))).unwrap_err();
        assert_eq!(e.to_string(), format!("parameter `{name}` cannot be read: the disk is gone"));
    }
}
