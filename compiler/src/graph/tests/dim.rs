//! Sizes against plain integers.

use proptest::prelude::*;

use crate::graph::{Bindings, Dim};

fn dim(text: &str) -> Dim {
    text.parse().unwrap()
}

#[test]
fn normal_form() {
    for (text, expected) in [
        ("N*2 + N", "N*3"),
        ("N - N", "0"),
        ("3 + N - 1", "N + 2"),
        ("-N + 4", "-N + 4"),
        ("(N + 1)*(N - 1)", "N*N - 1"),
        ("M*N - N*M", "0"),
        ("floor(N*4/4)", "N"),
        ("floor((N*2 + 3)/2)", "N + 1"),
        ("floor((N*2 + 1)/4)", "floor(N/2)"),
        ("floor((floor((N - 1)/2) + 1)/2)", "floor((N + 1)/4)"),
        ("floor(N*M*6/(M*2))", "N*3"),
        ("floor(N/(M + 1))", "floor(N/(M + 1))"),
        ("floor((M + 1)/(M + 1))", "1"),
        ("floor(-7/2)", "-4"),
        ("floor(7/0)", "0"),
    ] {
        assert_eq!(dim(text).to_string(), expected, "{text}");
    }
}

#[test]
fn exact_division() {
    let exact = |a: &str, b: &str| dim(a).exact_div(&dim(b)).map(|d| d.to_string());
    assert_eq!(exact("N*M*4", "N*2").as_deref(), Some("M*2"));
    assert_eq!(exact("N*4 + M*2", "2").as_deref(), Some("M + N*2"));
    assert_eq!(exact("N*3", "2"), None);
    assert_eq!(exact("N", "M"), None);
    assert_eq!(exact("N", "0"), None);
}

#[test]
fn extremes_saturate() {
    let huge = Dim::constant(i64::MAX);
    assert_eq!(huge.clone() * huge.clone(), huge);
    assert_eq!(Dim::constant(i64::MIN).floor_div(&Dim::constant(-1)), huge);
    assert_eq!(Dim::constant(i64::MIN).exact_div(&Dim::constant(-1)), None);
}

#[test]
fn unreadable_sizes() {
    for text in ["", "N +", "floor(N)", "(N", "N N", "99999999999999999999", &"(".repeat(10_000)] {
        assert!(text.parse::<Dim>().is_err(), "{text}");
    }
}

/// An expression as a size and as a function of (N, M).
#[derive(Clone, Debug)]
enum Expr {
    N,
    M,
    Constant(i64),
    Add(Box<Expr>, Box<Expr>),
    Sub(Box<Expr>, Box<Expr>),
    Mul(Box<Expr>, Box<Expr>),
    FloorDiv(Box<Expr>, i64),
    CeilDiv(Box<Expr>, i64),
}

impl Expr {
    fn dim(&self) -> Dim {
        match self {
            Expr::N => Dim::symbol("N"),
            Expr::M => Dim::symbol("M"),
            Expr::Constant(c) => Dim::constant(*c),
            Expr::Add(a, b) => a.dim() + b.dim(),
            Expr::Sub(a, b) => a.dim() - b.dim(),
            Expr::Mul(a, b) => a.dim() * b.dim(),
            Expr::FloorDiv(a, b) => a.dim().floor_div(&Dim::constant(*b)),
            Expr::CeilDiv(a, b) => a.dim().ceil_div(&Dim::constant(*b)),
        }
    }

    fn value(&self, n: i64, m: i64) -> i64 {
        match self {
            Expr::N => n,
            Expr::M => m,
            Expr::Constant(c) => *c,
            Expr::Add(a, b) => a.value(n, m) + b.value(n, m),
            Expr::Sub(a, b) => a.value(n, m) - b.value(n, m),
            Expr::Mul(a, b) => a.value(n, m) * b.value(n, m),
            Expr::FloorDiv(a, b) => a.value(n, m).div_euclid(*b),
            Expr::CeilDiv(a, b) => -(-a.value(n, m)).div_euclid(*b),
        }
    }
}

fn expr() -> impl Strategy<Value = Expr> {
    let leaf = prop_oneof![Just(Expr::N), Just(Expr::M), (-9i64..10).prop_map(Expr::Constant)];
    leaf.prop_recursive(4, 16, 2, |inner| {
        let pair = || (inner.clone(), inner.clone());
        prop_oneof![
            pair().prop_map(|(a, b)| Expr::Add(Box::new(a), Box::new(b))),
            pair().prop_map(|(a, b)| Expr::Sub(Box::new(a), Box::new(b))),
            pair().prop_map(|(a, b)| Expr::Mul(Box::new(a), Box::new(b))),
            (inner.clone(), 1i64..7).prop_map(|(a, b)| Expr::FloorDiv(Box::new(a), b)),
            (inner, 1i64..7).prop_map(|(a, b)| Expr::CeilDiv(Box::new(a), b)),
        ]
    })
}

proptest! {
    #[test]
    fn agrees_with_integers(e in expr(), n in 1usize..40, m in 1usize..40) {
        let dim = e.dim();
        let both = Bindings::from([("N".to_string(), n), ("M".to_string(), m)]);
        prop_assert_eq!(dim.substitute(&both).known(), Some(e.value(n as i64, m as i64)));
        // One symbol after the other is the same.
        let (first, second) = (Bindings::from([("N".to_string(), n)]), Bindings::from([("M".to_string(), m)]));
        prop_assert_eq!(dim.substitute(&first).substitute(&second), dim.substitute(&both));
    }

    #[test]
    fn text_round_trips(e in expr()) {
        let dim = e.dim();
        prop_assert_eq!(dim.to_string().parse::<Dim>(), Ok(dim));
    }

    #[test]
    fn order_does_not_matter(a in expr(), b in expr(), c in expr()) {
        let (a, b, c) = (a.dim(), b.dim(), c.dim());
        prop_assert_eq!(a.clone() + b.clone(), b.clone() + a.clone());
        prop_assert_eq!(a.clone() * b.clone(), b.clone() * a.clone());
        prop_assert_eq!((a.clone() + b.clone()) * c.clone(), a * c.clone() + b * c);
    }
}
