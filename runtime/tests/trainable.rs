//! Programs that change their parameters, made by hand.
#![cfg(target_arch = "x86_64")]

mod common;

use std::collections::BTreeMap;
use std::sync::Arc;

use common::{N, launch, sum};
use ndarray::{Array1, Array2};
use nnc_runtime::program::{Class, Phase};
use nnc_runtime::{DType, Executable, Pool, Program, Session, Tensor, TensorView, Trainable};

/// `y = x + weight` and `weight = weight + x`, in place, on every run.
fn accumulate() -> Program {
    let mut p = sum();
    p.storages[2].class = Class::State(0);
    p.storages.truncate(3);
    p.launches = vec![launch([0, 2, 1], Phase::Run), launch([2, 0, 2], Phase::Run)];
    (p.prepared_bytes, p.arena_bytes) = (0, 0);
    p.constants.clear();
    p
}

fn filled(value: f32) -> Tensor {
    Tensor::from(Array2::from_elem((4, N / 4), value))
}

fn weights() -> BTreeMap<String, Tensor> {
    BTreeMap::from([("weight".to_string(), filled(10.0))])
}

fn trainable(threads: usize) -> Trainable {
    Trainable::new(Executable::load(accumulate()).unwrap(), weights(), Arc::new(Pool::new(threads))).unwrap()
}

#[test]
fn a_step_finds_what_the_one_before_left() {
    for threads in [1, 3] {
        let mut t = trainable(threads);
        assert_eq!(t.state_names(), ["weight"]);
        assert_eq!(t.state("weight"), Ok(filled(10.0)));
        for (x, y, after) in [(1.0, 11.0, 11.0), (2.0, 13.0, 13.0), (0.5, 13.5, 13.5)] {
            assert_eq!(t.step(&[filled(x).view()]).unwrap(), [filled(y)]);
            assert_eq!(t.state("weight"), Ok(filled(after)));
        }
    }
}

#[test]
fn state_can_be_set() {
    let mut t = trainable(2);
    t.step(&[filled(1.0).view()]).unwrap();
    // Of any strides.
    let turned = Array2::from_shape_fn((N / 4, 4), |(i, j)| (i + j) as f32);
    t.set_state("weight", &turned.t().into()).unwrap();
    let expected = Tensor::from(turned.t().as_standard_layout().into_owned());
    assert_eq!(t.state("weight"), Ok(expected.clone()));
    assert_eq!(t.step(&[filled(0.0).view()]).unwrap(), [expected]);
}

#[test]
fn a_step_that_cannot_start_changes_nothing() {
    let mut t = trainable(1);
    t.step(&[filled(1.0).view()]).unwrap();
    let flat = Array1::<f32>::zeros(N);
    assert!(t.step(&[(&flat).into()]).is_err());
    assert!(t.step(&[]).is_err());
    assert_eq!(t.state("weight"), Ok(filled(11.0)));
}

#[test]
fn wrong_states_are_errors() {
    let mut t = trainable(1);
    let unknown = "the program does not change a parameter `bias`";
    assert_eq!(t.state("bias").unwrap_err().to_string(), unknown);
    assert_eq!(t.set_state("bias", &filled(0.0).view()).unwrap_err().to_string(), unknown);
    let integers = Tensor::zeros(DType::I32, &[4, N / 4]);
    let e = t.set_state("weight", &TensorView::from(&integers)).unwrap_err().to_string();
    assert_eq!(e, "state `weight`: expected f32[4, 1024], found i32[4, 1024]");
    assert_eq!(t.state("weight"), Ok(filled(10.0)));
}

#[test]
fn parameters_can_be_replaced_and_stay_when_the_program_changes() {
    let mut t = trainable(1);
    t.step(&[filled(1.0).view()]).unwrap();
    assert_eq!(t.parameters().unwrap(), BTreeMap::from([("weight".to_string(), filled(11.0))]));
    assert!(t.set_parameters(BTreeMap::new()).is_err());
    t.switch(Executable::load(accumulate()).unwrap()).unwrap();
    t.step(&[filled(1.0).view()]).unwrap();
    assert_eq!(t.state("weight"), Ok(filled(12.0)));
    t.set_parameters(weights()).unwrap();
    assert_eq!(t.state("weight"), Ok(filled(10.0)));
    let mut other = accumulate();
    other.parameters[0].port.name = "other".into();
    let e = t.switch(Executable::load(other).unwrap()).unwrap_err();
    assert!(e.to_string().contains("has other parameters"), "{e}");
    assert_eq!(t.state("weight"), Ok(filled(10.0)));
}

#[test]
fn a_program_without_state_takes_steps_too() {
    let pool = Arc::new(Pool::new(1));
    let mut t = Trainable::new(Executable::load(sum()).unwrap(), weights(), pool).unwrap();
    assert_eq!(t.state_names(), [""; 0]);
    assert_eq!(t.step(&[filled(1.0).view()]).unwrap(), [filled(22.0)]);
    assert!(t.state("weight").is_err());
}

#[test]
fn a_session_refuses_state() {
    let executable = Executable::load(accumulate()).unwrap();
    let e = Session::new(executable, &weights(), Arc::new(Pool::new(1))).unwrap_err();
    assert_eq!(e.to_string(), "the program changes parameter `weight`: it is a training step");
}

#[test]
fn files_keep_state() {
    let mut bytes = vec![];
    accumulate().write(&mut bytes).unwrap();
    let read = Program::read(&bytes).unwrap();
    assert_eq!(read, accumulate());
    assert_eq!(read.state().collect::<Vec<_>>(), [0]);
}

#[test]
fn lies_are_refused() {
    let refusal = |change: fn(&mut Program)| {
        let mut p = accumulate();
        change(&mut p);
        p.validate().unwrap_err().to_string().replace("the program is not valid: ", "")
    };
    assert_eq!(
        refusal(|p| p.storages[2].class = Class::State(1)),
        "storage 2 (`weight`): there is no parameter 1"
    );
    assert_eq!(
        refusal(|p| {
            let mut constant = p.storages[2].clone();
            constant.class = Class::Parameter(0);
            p.storages.push(constant);
        }),
        "storage 3 (`weight`): another storage is parameter 0 too"
    );
    assert_eq!(
        refusal(|p| p.storages[2].bytes = 4),
        "storage 2 (`weight`): expected the 16384 bytes of `weight`, found 4"
    );
    assert_eq!(
        refusal(|p| {
            p.launches[1].phase = Phase::Prepare;
            p.launches[1].args[1].storage = 2;
            p.launches.swap(0, 1);
        }),
        "launch 0: argument 0 of `add`: the prepare phase does not have it"
    );
}
