//! Unknown names in text that is not evaluated: blocks that nothing calls, branches not taken.
//!
//! Evaluation finds the names that a net really meets; this finds the others, by syntax alone and
//! without false alarms: a name that is bound anywhere in its block counts as known.

use std::collections::HashSet;

use nnc_dsl::Diagnostic;
use nnc_dsl::ast::{Expr, ExprKind, StmtKind};
use nnc_runtime::DType;

use super::hints;
use super::modules::{FunctionDef, Modules, Seen, std_module_with, walk};

/// Errors for all files but the standard library. `builtins`: the names that are built in.
pub(super) fn check(modules: &Modules, builtins: &HashSet<&'static str>) -> Vec<Diagnostic> {
    let functions = modules.all.iter().flat_map(|m| &m.functions).filter(|f| !f.std);
    functions.flat_map(|f| unknown_names(modules, f, builtins)).collect()
}

fn unknown_names(modules: &Modules, f: &FunctionDef, builtins: &HashSet<&'static str>) -> Vec<Diagnostic> {
    let mut known: HashSet<&str> = f.ast.params.iter().map(|p| p.name.name.as_str()).collect();
    known.extend(["training", "none"]);
    known.extend(modules.visible(f.module));
    known.extend(builtins);
    let mut used: Vec<&Expr> = vec![];
    walk(&f.ast.body, &mut |seen| match seen {
        Seen::Stmt(stmt) => known.extend(bound_by(stmt)),
        Seen::Expr(e) => used.push(e),
    });
    let mut out = vec![];
    for e in used {
        let ExprKind::Name(name) = &e.kind else { continue };
        let symbolic = name.chars().next().is_some_and(char::is_uppercase);
        if known.contains(name.as_str()) || symbolic || DType::from_name(name).is_some() {
            continue;
        }
        let mut d = Diagnostic::error(format!("unknown name `{name}`"), e.span, "not found in this scope");
        d.help = match std_module_with(name) {
            Some(module) => Some(format!("`{name}` is in the standard library: add `use {module}`")),
            None => hints::did_you_mean(name, known.iter().copied()),
        };
        out.push(d);
    }
    out
}

/// The names that a statement binds.
fn bound_by(stmt: &StmtKind) -> Vec<&str> {
    match stmt {
        StmtKind::Let { names, .. } | StmtKind::Assign { names, .. } | StmtKind::For { names, .. } => {
            names.iter().map(|n| n.name.as_str()).collect()
        }
        StmtKind::Input { name, .. }
        | StmtKind::Output { name, .. }
        | StmtKind::Layer { name, .. }
        | StmtKind::Param { name, .. }
        | StmtKind::Const { name, .. }
        | StmtKind::Metric { name, .. } => vec![&name.name],
        _ => vec![],
    }
}
