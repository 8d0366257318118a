//! Weights and arrays from files: round trips, conversions, and files that lie.

use std::collections::BTreeMap;

use ndarray::{ArrayD, arr0, arr1, arr2};
use nnc::data::{npy, safetensors};
use nnc::runtime::Parameters;
use nnc::runtime::program::{Port, Program};
use nnc::{DType, Tensor, Weights};
use proptest::prelude::*;

/// A safetensors file from its header and elements.
fn file(header: &str, data: &[u8]) -> Vec<u8> {
    [&(header.len() as u64).to_le_bytes(), header.as_bytes(), data].concat()
}

fn tensors() -> BTreeMap<String, Tensor> {
    BTreeMap::from([
        ("a.weight".to_string(), Tensor::from(arr2(&[[1f32, -2.5], [f32::MAX, 0.0]]))),
        ("labels".to_string(), Tensor::from(arr1(&[1i32, -7]))),
        ("mask".to_string(), Tensor::Bool(arr1(&[true, false, true]).into_dyn())),
        ("none".to_string(), Tensor::zeros(DType::F32, &[0, 3])),
        ("one".to_string(), Tensor::from(arr0(3f32))),
    ])
}

#[test]
fn weights_round_trip_through_a_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    Weights::from_map(tensors()).save(&path).unwrap();
    let back = Weights::open(&path).unwrap();
    assert_eq!(back.tensors().unwrap(), &tensors());
    assert_eq!(back.path(), Some(path.as_path()));
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "nothing is left beside it");
}

#[test]
fn narrow_and_wide_types_become_f32_and_i32() {
    let one = |dtype: &str, data: &[u8]| {
        let n = data.len();
        let header = format!(r#"{{"t":{{"dtype":"{dtype}","shape":[1],"data_offsets":[0,{n}]}}}}"#);
        safetensors::parse(&file(&header, data)).map(|mut t| t.remove("t").unwrap())
    };
    let float = |v: f32| Ok(Tensor::from(arr1(&[v])));
    let int = |v: i32| Ok(Tensor::from(arr1(&[v])));
    assert_eq!(one("F16", &0x3e00u16.to_le_bytes()), float(1.5));
    assert_eq!(one("F16", &1u16.to_le_bytes()), float(2f32.powi(-24)), "subnormal");
    assert_eq!(one("F16", &0xfc00u16.to_le_bytes()), float(f32::NEG_INFINITY));
    assert_eq!(one("BF16", &0x3fc0u16.to_le_bytes()), float(1.5));
    assert_eq!(one("F64", &0.1f64.to_le_bytes()), float(0.1));
    assert_eq!(one("I64", &(-3i64).to_le_bytes()), int(-3));
    assert_eq!(one("U8", &[200]), int(200));
    assert_eq!(
        one("I64", &i64::MAX.to_le_bytes()),
        Err(format!("tensor `t`: {} does not fit in i32", i64::MAX))
    );
    assert_eq!(one("F8_E4M3", &[0]), Err("tensor `t`: element type F8_E4M3 is not supported".into()));
}

#[test]
fn lying_weights_files_are_told() {
    let good = r#"{"t":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#;
    let with = |from: &str, to: &str| good.replace(from, to);
    let two = r#"{"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"t":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
    assert!(safetensors::parse(&file(good, &[0; 8])).is_ok());
    let table: [(&str, Vec<u8>, &str); 11] = [
        ("empty", vec![], "not a safetensors file: it has only 0 bytes"),
        ("long header", [&u64::MAX.to_le_bytes()[..], b"{}"].concat(), "it says that its header is longer"),
        ("cut off", file(good, &[0; 7]), "cut off or damaged"),
        ("too long", file(good, &[0; 9]), "cut off or damaged"),
        ("no JSON", file("{\"t\":", &[]), "its header cannot be read"),
        ("no UTF-8", [&1u64.to_le_bytes()[..], &[0xff]].concat(), "its header is not UTF-8"),
        ("wrong size", file(&with("[2]", "[3]"), &[0; 8]), "are not those that its shape and type need"),
        ("overflow", file(&with("[2]", "[4294967296,4294967296,4]"), &[0; 8]), "a shape overflows"),
        ("offsets", file(&with("[0,8]", "[8,0]"), &[0; 8]), "the data of `t` overlaps others"),
        ("type", file(&with("F32", "F31"), &[0; 8]), "its header cannot be read"),
        ("twice", file(two, &[0; 4]), "there are two tensors `t`"),
    ];
    for (what, bytes, expected) in table {
        let found = safetensors::parse(&bytes).unwrap_err();
        assert!(found.contains(expected), "{what}: expected {expected}\nfound {found}");
    }
    let e = Weights::open("/no/such.safetensors").unwrap_err().to_string();
    assert!(e.starts_with("cannot read `/no/such.safetensors`"), "{e}");
}

#[test]
fn nans_are_counted() {
    let t = arr1(&[1.0, f32::NAN, f32::INFINITY, f32::NAN]);
    let w = Weights::from_map(BTreeMap::from([
        ("t".into(), Tensor::from(t)),
        ("u".into(), tensors()["one"].clone()),
    ]));
    assert_eq!(w.non_finite().unwrap(), [("t".to_string(), 2, 1)]);
}

fn port(weights: &Weights, name: &str) -> Port {
    weights.ports().into_iter().find(|p| p.name == name).unwrap()
}

fn bytes_of(weights: &Weights, name: &str) -> Vec<u8> {
    let port = port(weights, name);
    let mut bytes = vec![0; Program::port_bytes(&port).unwrap()];
    weights.fill(&port, &mut bytes, 1).unwrap();
    bytes
}

/// The same, so many elements at a time.
fn in_parts(weights: &Weights, name: &str, elements: usize) -> Vec<u8> {
    let port = port(weights, name);
    let mut bytes = vec![0; Program::port_bytes(&port).unwrap()];
    for (i, part) in bytes.chunks_mut(elements * port.dtype.size()).enumerate() {
        assert!(weights.fill_part(&port, i * elements, part, 2).unwrap());
    }
    let past = weights.fill_part(&port, elements, &mut bytes.clone(), 1).unwrap_err();
    assert!(past.starts_with("it does not have "), "{past}");
    bytes
}

/// Tensors of a file are read when they are asked for; until then it is only known what they are.
#[test]
fn tensors_of_files_are_read_on_demand() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("w.safetensors");
    // So many that threads share them.
    let mut many = ndarray::Array1::from_iter((0..1 << 18).map(|i| i as f32)).into_dyn();
    let mut all = tensors();
    all.insert("many".into(), Tensor::from(many.clone()));
    Weights::from_map(all.clone()).save(&path).unwrap();
    let weights = Weights::open(&path).unwrap();
    assert_eq!(weights.names(), all.keys().cloned().collect::<Vec<_>>());
    assert_eq!(weights.tensor("many").unwrap(), Some(Tensor::from(many.clone())));
    assert_eq!(weights.tensor("few").unwrap(), None);
    assert!(weights.non_finite().unwrap().is_empty());
    for (i, v) in [(3, f32::NAN), (70_000, f32::INFINITY), ((1 << 18) - 1, f32::NAN)] {
        many[[i]] = v;
    }
    let wrong = folder.path().join("wrong.safetensors");
    Weights::from_map([("many".to_string(), Tensor::from(many))].into()).save(&wrong).unwrap();
    assert_eq!(Weights::open(&wrong).unwrap().non_finite().unwrap(), [("many".to_string(), 2, 1)]);
    let wrong = Weights::open(&wrong).unwrap();
    assert_eq!(in_parts(&wrong, "many", 100_000), bytes_of(&wrong, "many"));
    assert_eq!(wrong.non_finite().unwrap(), [("many".to_string(), 2, 1)]);
    // Another file in its place is not this one; this one, cut off, is told.
    Weights::from_map(tensors()).save(&path).unwrap();
    assert_eq!(weights.tensors().unwrap(), &all);
    let weights = Weights::open(&path).unwrap();
    let length = std::fs::metadata(&path).unwrap().len();
    std::fs::OpenOptions::new().write(true).open(&path).unwrap().set_len(length - 4).unwrap();
    let e = weights.tensors().unwrap_err().to_string();
    assert!(e.ends_with("cannot be read: it has become shorter since it was opened"), "{e}");
    let e = Weights::open(&path).unwrap_err().to_string();
    assert!(e.contains("cut off or damaged"), "{e}");
}

#[test]
fn arrays_round_trip() {
    for t in tensors().values() {
        let bytes = npy::to_bytes(t);
        assert_eq!(npy::parse(&bytes, t.dtype()).as_ref(), Ok(t));
        let elements = t.len() * t.dtype().size();
        assert_eq!((bytes.len() - elements) % 64, 0, "elements are aligned");
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.npy");
    npy::write(&path, &tensors()["labels"]).unwrap();
    assert_eq!(npy::read(&path, DType::I32).unwrap(), tensors()["labels"]);
}

/// A `.npy` file from its dictionary.
fn array(descr: &str, fortran: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': {fortran}, 'shape': {shape}, }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), data].concat()
}

#[test]
fn arrays_are_converted_where_no_value_is_lost() {
    let parse = |descr: &str, data: &[u8], to: DType| npy::parse(&array(descr, "False", "(1,)", data), to);
    let float = Ok(Tensor::from(arr1(&[3f32])));
    let int = Ok(Tensor::from(arr1(&[3i32])));
    assert_eq!(parse("<f8", &3f64.to_le_bytes(), DType::F32), float);
    assert_eq!(parse(">f4", &3f32.to_be_bytes(), DType::F32), float);
    assert_eq!(parse("<f2", &0x4200u16.to_le_bytes(), DType::F32), float);
    assert_eq!(parse("<i8", &3i64.to_le_bytes(), DType::F32), float);
    assert_eq!(parse("|u1", &[3], DType::F32), float);
    assert_eq!(parse("<i8", &3i64.to_le_bytes(), DType::I32), int);
    assert_eq!(parse("|b1", &[1], DType::Bool), Ok(Tensor::Bool(arr1(&[true]).into_dyn())));
    let error = |descr: &str, data: &[u8], to: DType| parse(descr, data, to).unwrap_err();
    assert_eq!(error("<f4", &3f32.to_le_bytes(), DType::I32), "expected integers, found floats");
    assert_eq!(
        error("<i8", &i64::MIN.to_le_bytes(), DType::I32),
        format!("expected values that fit in i32, found {}", i64::MIN)
    );
    assert_eq!(
        error("<i8", &i64::MIN.to_le_bytes(), DType::F32),
        format!("expected values that fit in f32, found {}", i64::MIN)
    );
    assert_eq!(error("|u1", &[2], DType::Bool), "expected truth values, found other numbers");
    assert!(error("<c8", &[0; 8], DType::F32).starts_with("element type `c8` is not supported"));
}

#[test]
fn fortran_order_is_turned() {
    let data: Vec<u8> = [1f32, 2.0, 3.0, 4.0, 5.0, 6.0].iter().flat_map(|v| v.to_le_bytes()).collect();
    let t = npy::parse(&array("<f4", "True", "(2, 3)", &data), DType::F32).unwrap();
    assert_eq!(t, Tensor::from(arr2(&[[1f32, 3.0, 5.0], [2.0, 4.0, 6.0]])));
    assert!(t.as_f32().is_some_and(ArrayD::is_standard_layout));
}

#[test]
fn lying_arrays_are_told() {
    let table: [(Vec<u8>, &str); 8] = [
        (vec![], "not a .npy file"),
        (b"\x93NUMPY\x01".to_vec(), "cut off"),
        (b"\x93NUMPY\x02\x00\xff\xff\xff\xff".to_vec(), "cut off"),
        (b"\x93NUMPY\x09\x00\x00\x00".to_vec(), "version 9 of the .npy format is not supported"),
        (array("<f4", "False", "(3,)", &[0; 8]), "shape [3] needs 12 bytes of elements, found 8"),
        (array("<f4", "False", "(1099511627776, 1099511627776)", &[]), "is too large"),
        (array("<f4", "False", "(0, 1099511627776, 1099511627776)", &[]), "is too large"),
        (array("<f4", "False", "(-1,)", &[]), "its header cannot be read"),
    ];
    for (bytes, expected) in table {
        let found = npy::parse(&bytes, DType::F32).unwrap_err();
        assert!(found.contains(expected), "expected {expected}\nfound {found}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Whatever the bytes: no panic, no huge allocation.
    #[test]
    fn damaged_files_are_read_or_refused(changes in prop::collection::vec((0.0..1.0f64, any::<u8>()), 1..8)) {
        let weights = safetensors::to_bytes(&tensors()).unwrap();
        let mut weights = weights.clone();
        let mut array = npy::to_bytes(&tensors()["a.weight"]);
        for (at, byte) in changes {
            let n = weights.len();
            weights[(at * n as f64) as usize] = byte;
            let n = array.len();
            array[(at * n as f64) as usize] = byte;
        }
        let _ = safetensors::parse(&weights);
        let _ = npy::parse(&array, DType::F32);
    }
}
