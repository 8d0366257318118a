//! Warnings found in the syntax alone: names that are bound and never used, values that are
//! computed and dropped. Names that start with `_` are meant to be unused.

use std::collections::HashSet;

use nnc_dsl::Diagnostic;
use nnc_dsl::ast::{Block, ExprKind, Ident, StmtKind};

use super::modules::{FunctionDef, Modules, Seen, names_in, walk, walk_expr};

/// The warnings for all files but the standard library.
pub(super) fn check(modules: &Modules) -> Vec<Diagnostic> {
    modules
        .all
        .iter()
        .flat_map(|m| &m.functions)
        .filter(|f| !f.std)
        .flat_map(|f| {
            let mut out = unused_names(f);
            dropped_values(&f.ast.body, true, &mut out);
            out
        })
        .collect()
}

fn unused_names(f: &FunctionDef) -> Vec<Diagnostic> {
    let mut used: HashSet<&str> = names_in(&f.ast.body).into_iter().collect();
    for default in f.ast.params.iter().filter_map(|p| p.default.as_ref()) {
        walk_expr(default, &mut |seen| {
            if let Seen::Expr(nnc_dsl::ast::Expr { kind: ExprKind::Name(n), .. }) = seen {
                used.insert(n);
            }
        });
    }
    let mut bound: Vec<(&Ident, &str)> = f.ast.params.iter().map(|p| (&p.name, "parameter")).collect();
    walk(&f.ast.body, &mut |seen| match seen {
        Seen::Stmt(StmtKind::Let { names, .. }) => bound.extend(names.iter().map(|n| (n, "name"))),
        Seen::Stmt(StmtKind::Layer { name, .. }) => bound.push((name, "layer")),
        Seen::Stmt(StmtKind::Const { name, .. }) => bound.push((name, "constant")),
        Seen::Stmt(StmtKind::Input { name, .. }) => bound.push((name, "input")),
        _ => {}
    });
    bound
        .into_iter()
        .filter(|(n, _)| !n.name.starts_with('_') && !used.contains(n.name.as_str()))
        .map(|(n, what)| {
            let title = format!("the {what} `{}` is never used", n.name);
            Diagnostic::warning(title, n.span, "bound here")
        })
        .collect()
}

/// Expressions whose value nothing takes. `valued`: the block's last expression is its value.
fn dropped_values(block: &Block, valued: bool, out: &mut Vec<Diagnostic>) {
    for (i, stmt) in block.stmts.iter().enumerate() {
        let is_value = valued && i + 1 == block.stmts.len();
        match &stmt.kind {
            StmtKind::Expr(e) if !is_value => match &e.kind {
                ExprKind::If { arms, otherwise } => {
                    for b in arms.iter().map(|(_, b)| b).chain(otherwise) {
                        dropped_values(b, false, out);
                    }
                }
                ExprKind::Error => {}
                _ => out.push(
                    Diagnostic::warning("this value is never used", e.span, "computed and dropped")
                        .help("bind it with `let`, or remove it"),
                ),
            },
            StmtKind::Repeat { body, .. } | StmtKind::For { body, .. } | StmtKind::Train(body) => {
                dropped_values(body, false, out);
            }
            _ => {}
        }
    }
}
