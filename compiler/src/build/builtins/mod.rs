//! The functions that are built in: the core operations one to one, arithmetic on compile-time
//! values, initialisers, optimizers and schedules.
//!
//! One file a family. A function is its signature as text, as the reference page shows it, and what it
//! does; [`Args`] checks the types of arguments and says what was expected.

mod args;
mod compile_time;
mod conv;
mod elementwise;
mod init;
mod reduce;
mod shape;
mod training;

use std::collections::HashMap;
use std::rc::Rc;

pub(super) use args::Args;
pub(super) use init::initialiser;

use super::call::Declaration;
use super::eval::{Evaluator, Site};
use super::values::{Argument, Eval, Value};

/// What a built-in function does.
type Run = fn(&mut Evaluator, &Args) -> Eval<Value>;

/// A row of a family's table: `conv2d(x, weight, bias = none, stride = 1)` and what it does.
type Row = (&'static str, Run);

/// A built-in function.
#[derive(Debug)]
pub(crate) struct Builtin {
    /// Its name.
    pub name: &'static str,
    params: Vec<BuiltinParam>,
    /// The first parameter takes all arguments without a name.
    variadic: bool,
    run: Run,
    /// Only in a `train` section.
    training: bool,
}

#[derive(Debug)]
struct BuiltinParam {
    name: &'static str,
    default: Option<Value>,
}

/// All of them, by name.
pub(super) fn table() -> HashMap<&'static str, Rc<Builtin>> {
    let general = [
        compile_time::FUNCTIONS,
        conv::FUNCTIONS,
        elementwise::FUNCTIONS,
        init::FUNCTIONS,
        reduce::FUNCTIONS,
        shape::FUNCTIONS,
    ];
    let rows = general.into_iter().flatten().map(|r| (r, false));
    rows.chain(training::FUNCTIONS.iter().map(|r| (r, true)))
        .map(|(&(signature, run), training)| {
            let b = Builtin::parse(signature, run, training);
            (b.name, Rc::new(b))
        })
        .collect()
}

impl Builtin {
    fn parse(signature: &'static str, run: Run, training: bool) -> Builtin {
        let (name, rest) = signature.split_once('(').unwrap_or((signature, ")"));
        let list = rest.strip_suffix(')').unwrap_or(rest);
        let mut variadic = false;
        let params = list
            .split(", ")
            .filter(|p| !p.is_empty())
            .map(|p| {
                let (name, default) = p.split_once(" = ").map_or((p, None), |(n, d)| (n, Some(d)));
                variadic |= name.ends_with("..");
                BuiltinParam { name: name.trim_end_matches("..").trim(), default: default.map(literal) }
            })
            .collect();
        Builtin { name, params, variadic, run, training }
    }
}

fn literal(text: &'static str) -> Value {
    match text {
        "none" => Value::None,
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        _ => match (text.parse(), text.parse()) {
            (Ok(n), _) => Value::Int(n),
            (_, Ok(x)) => Value::Float(x),
            _ => Value::string(text),
        },
    }
}

impl Evaluator<'_> {
    /// Calls a built-in function.
    pub(super) fn call_builtin(&mut self, b: &Rc<Builtin>, args: Vec<Argument>, site: Site) -> Eval<Value> {
        if b.training && self.train.is_none() {
            let title = format!("`{}` belongs in a `train` section", b.name);
            return Err(self.error(title, site.span, ""));
        }
        let (rest, args): (Vec<_>, Vec<_>) = args.into_iter().partition(|a| b.variadic && a.name.is_none());
        let params = if b.variadic { &b.params[1..] } else { &b.params[..] };
        let names: Vec<&str> = params.iter().map(|p| p.name).collect();
        let required: Vec<bool> = params.iter().map(|p| p.default.is_none()).collect();
        let declared = Declaration { name: b.name, head: None, names: &names, required: &required };
        let matched = self.match_names(&declared, args, site.span)?;
        let values = params
            .iter()
            .zip(matched)
            .map(|(p, a)| {
                let default = p.default.clone().unwrap_or(Value::None);
                (p.name, a.unwrap_or(Argument { name: None, value: default, span: site.span }))
            })
            .collect();
        (b.run)(self, &Args { function: b.name, values, rest, site })
    }
}

#[cfg(test)]
mod tests {
    use nnc_dsl::stdlib;

    /// The reference page names every function of the library, built in or not.
    #[test]
    fn the_reference_page_is_complete() {
        let page = concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/library.md");
        let page = std::fs::read_to_string(page).expect("the page is there");
        let blocks = stdlib::names().flat_map(|m| stdlib::source(m).unwrap_or("").lines());
        let blocks = blocks.filter_map(|l| l.strip_prefix("block ")?.split('(').next());
        let missing: Vec<&str> = super::table()
            .into_keys()
            .chain(blocks)
            .filter(|name| !page.contains(&format!("`{name}(")) && !page.contains(&format!("`{name}`")))
            .collect();
        assert_eq!(missing, [] as [&str; 0]);
    }
}
