//! The files of a program: the one that is built, those it uses, and the standard library.
//!
//! A module is a table of the blocks and nets of one file, and the list of the modules whose
//! names it sees. `std.core` and `std.losses` are seen by every module.

use std::collections::BTreeMap;
use std::rc::Rc;

use nnc_dsl::ast::{self, ExprKind, Item, StmtKind, UseTarget};
use nnc_dsl::{Diagnostic, FileId, SourceMap, stdlib};

use super::Loader;
use super::hints;

/// The modules whose names are in scope everywhere.
const PRELUDE: [&str; 2] = ["std.core", "std.losses"];

/// A block or a net.
#[derive(Debug)]
pub(crate) struct FunctionDef {
    /// Its syntax.
    pub ast: ast::Function,
    /// The module it stands in.
    pub module: usize,
    /// `net`, not `block`.
    pub is_net: bool,
    /// Has parameters of its own: a use of it is a scope of names.
    pub is_layer: bool,
    /// Part of the standard library.
    pub std: bool,
}

impl FunctionDef {
    /// What unnamed uses are numbered by.
    pub fn kind(&self) -> &str {
        &self.ast.kind.as_ref().unwrap_or(&self.ast.name).name
    }
}

/// One file.
pub(crate) struct Module {
    /// Its text.
    pub file: FileId,
    /// Its blocks and nets in source order.
    pub functions: Vec<Rc<FunctionDef>>,
    /// What it sees besides its own names: indices of modules.
    pub uses: Vec<usize>,
}

/// All files of a program; the first is the one that is built.
pub(crate) struct Modules {
    /// The files.
    pub all: Vec<Module>,
    prelude: Vec<usize>,
}

struct Loading<'a> {
    map: &'a mut SourceMap,
    loader: &'a dyn Loader,
    modules: Vec<Module>,
    by_name: BTreeMap<String, usize>,
    diagnostics: Vec<Diagnostic>,
}

impl Modules {
    /// Parses the file and everything it uses.
    pub fn load(map: &mut SourceMap, root: FileId, loader: &dyn Loader) -> (Modules, Vec<Diagnostic>) {
        let mut l = Loading { map, loader, modules: vec![], by_name: BTreeMap::new(), diagnostics: vec![] };
        let name = l.map.file(root).name.clone();
        l.module(root, name, false);
        let prelude = PRELUDE.iter().filter_map(|name| l.std_module(name)).collect();
        (Modules { all: l.modules, prelude }, l.diagnostics)
    }

    /// The function that `name` is in a module.
    pub fn find(&self, module: usize, name: &str) -> Option<&Rc<FunctionDef>> {
        let own = |m: usize| self.all[m].functions.iter().find(|f| f.ast.name.name == name);
        own(module)
            .or_else(|| self.all[module].uses.iter().find_map(|&m| own(m)))
            .or_else(|| self.prelude.iter().find_map(|&m| own(m)))
    }

    /// All names of functions that a module sees.
    pub fn visible(&self, module: usize) -> impl Iterator<Item = &str> {
        std::iter::once(module)
            .chain(self.all[module].uses.iter().copied())
            .chain(self.prelude.iter().copied())
            .flat_map(|m| self.all[m].functions.iter().map(|f| f.ast.name.name.as_str()))
    }

    /// The module a file is.
    pub fn of_file(&self, file: FileId) -> Option<&Module> {
        self.all.iter().find(|m| m.file == file)
    }

    /// True for files of the standard library.
    pub fn is_std(&self, file: FileId) -> bool {
        self.of_file(file).is_some_and(|m| m.functions.first().is_some_and(|f| f.std))
    }

    /// The net to build. `sound`: the syntax has no error, so that a net is really not there.
    ///
    /// # Errors
    /// Where there is none, or several and no name.
    pub fn choose_net(
        &self,
        map: &SourceMap,
        name: Option<&str>,
        sound: bool,
    ) -> Result<Rc<FunctionDef>, Option<Box<Diagnostic>>> {
        let nets: Vec<&Rc<FunctionDef>> = self.all[0].functions.iter().filter(|f| f.is_net).collect();
        let file = &map.file(self.all[0].file).name;
        let list = || nets.iter().map(|n| format!("`{}`", n.ast.name.name)).collect::<Vec<_>>().join(", ");
        if nets.is_empty() {
            let d = Diagnostic::global(format!("`{file}` has no `net`")).help(
                "a program is a `net name { input …  output … }`; blocks alone are used from other files",
            );
            return Err(sound.then(|| Box::new(d)));
        }
        if let Some(name) = name {
            return nets.iter().find(|n| n.ast.name.name == name).map(|n| Rc::clone(n)).ok_or_else(|| {
                let d = Diagnostic::global(format!("`{file}` has no net `{name}`"));
                Some(Box::new(d.help(format!("its nets are {}", list()))))
            });
        }
        if let [net] = nets[..] {
            return Ok(Rc::clone(net));
        }
        // Nets that others use are their parts; if one is left, it is the program.
        let called: Vec<&str> = nets.iter().flat_map(|n| names_in(&n.ast.body)).collect();
        let roots: Vec<_> = nets.iter().filter(|n| !called.contains(&n.ast.name.name.as_str())).collect();
        if let [net] = roots[..] {
            return Ok(Rc::clone(net));
        }
        let mut d = Diagnostic::global(format!("`{file}` has several nets: {}", list()));
        d.help = Some("say which one with `--net NAME`".to_string());
        d.secondary =
            nets.iter().map(|n| nnc_dsl::Label { span: n.ast.name.span, message: String::new() }).collect();
        Err(Some(Box::new(d)))
    }
}

/// The module of the standard library in which a name is, if there is one.
pub(super) fn std_module_with(name: &str) -> Option<&'static str> {
    stdlib::names().find(|module| {
        let head = format!("block {name}(");
        stdlib::source(module).is_some_and(|text| text.lines().any(|l| l.starts_with(&head)))
    })
}

impl Loading<'_> {
    fn module(&mut self, file: FileId, name: String, std: bool) -> usize {
        let index = self.modules.len();
        self.by_name.insert(name.clone(), index);
        self.modules.push(Module { file, functions: vec![], uses: vec![] });
        let (ast, diagnostics) = nnc_dsl::parse(self.map, file);
        self.diagnostics.extend(diagnostics);
        for item in ast.items {
            match item {
                Item::Use(u) => {
                    if let Some(used) = self.used(&u, &name) {
                        self.modules[index].uses.push(used);
                    }
                }
                Item::Net(f) => self.function(index, f, true, std),
                Item::Block(f) => self.function(index, f, false, std),
            }
        }
        index
    }

    fn function(&mut self, module: usize, ast: ast::Function, is_net: bool, std: bool) {
        let name = &ast.name;
        if let Some(other) = self.modules[module].functions.iter().find(|f| f.ast.name.name == name.name) {
            self.diagnostics.push(
                Diagnostic::error(
                    format!("`{}` is defined twice", name.name),
                    name.span,
                    "defined again here",
                )
                .label(other.ast.name.span, "first defined here"),
            );
            return;
        }
        let mut is_layer = false;
        walk(&ast.body, &mut |s| is_layer |= matches!(s, Seen::Stmt(StmtKind::Param { .. })));
        self.modules[module].functions.push(Rc::new(FunctionDef { ast, module, is_net, is_layer, std }));
    }

    fn used(&mut self, u: &ast::Use, from: &str) -> Option<usize> {
        match &u.target {
            UseTarget::Std(name) => self.std_module(name).or_else(|| {
                let names: Vec<&str> = stdlib::names().collect();
                let mut d = Diagnostic::error(
                    format!("no module `{name}` in the standard library"),
                    u.span,
                    "not found",
                );
                d.help = hints::did_you_mean(name, names.iter().copied())
                    .or_else(|| Some(format!("there are {}", names.join(", "))));
                self.diagnostics.push(d);
                None
            }),
            UseTarget::File(path) => match self.loader.load(path, from) {
                Ok((name, text)) => Some(match self.by_name.get(&name) {
                    Some(&known) => known,
                    None => {
                        let file = self.map.add(name.clone(), text);
                        self.module(file, name, false)
                    }
                }),
                Err(reason) => {
                    let d = Diagnostic::error(format!("cannot use `{path}`: {reason}"), u.span, "used here");
                    self.diagnostics.push(d);
                    None
                }
            },
        }
    }

    fn std_module(&mut self, name: &str) -> Option<usize> {
        if let Some(&known) = self.by_name.get(name) {
            return Some(known);
        }
        let text = stdlib::source(name)?;
        let file = self.map.add(name, text);
        Some(self.module(file, name.to_string(), true))
    }
}

/// What a walk over syntax meets.
pub(super) enum Seen<'a> {
    /// A statement, before its parts.
    Stmt(&'a StmtKind),
    /// An expression, before its parts.
    Expr(&'a ast::Expr),
}

/// Calls `see` for every statement and expression in a block, outermost first.
pub(super) fn walk<'a>(block: &'a ast::Block, see: &mut dyn FnMut(Seen<'a>)) {
    for stmt in &block.stmts {
        walk_stmt(&stmt.kind, see);
    }
}

fn walk_stmt<'a>(kind: &'a StmtKind, see: &mut dyn FnMut(Seen<'a>)) {
    see(Seen::Stmt(kind));
    match kind {
        StmtKind::Input { ty, .. } => ty.dims.iter().for_each(|e| walk_expr(e, see)),
        StmtKind::Param { ty, init, .. } => {
            ty.dims.iter().for_each(|e| walk_expr(e, see));
            init.iter().for_each(|e| walk_expr(e, see));
        }
        StmtKind::Output { value, .. }
        | StmtKind::Let { value, .. }
        | StmtKind::Assign { value, .. }
        | StmtKind::Layer { value, .. }
        | StmtKind::Const { value, .. }
        | StmtKind::Metric { value, .. }
        | StmtKind::Expr(value) => walk_expr(value, see),
        StmtKind::Repeat { count, body } => {
            walk_expr(count, see);
            walk(body, see);
        }
        StmtKind::For { iter, body, .. } => {
            walk_expr(iter, see);
            walk(body, see);
        }
        StmtKind::Require { condition, message } => {
            walk_expr(condition, see);
            message.iter().for_each(|e| walk_expr(e, see));
        }
        StmtKind::Train(body) => walk(body, see),
    }
}

/// The same for an expression.
pub(super) fn walk_expr<'a>(e: &'a ast::Expr, see: &mut dyn FnMut(Seen<'a>)) {
    see(Seen::Expr(e));
    match &e.kind {
        ExprKind::Int(_)
        | ExprKind::Float(_)
        | ExprKind::Bool(_)
        | ExprKind::Pair(..)
        | ExprKind::Name(_)
        | ExprKind::Error => {}
        ExprKind::Str(parts) => parts.iter().for_each(|p| {
            if let ast::StrPart::Expr(e) = p {
                walk_expr(e, see);
            }
        }),
        ExprKind::List(items) | ExprKind::Tuple(items) => items.iter().for_each(|e| walk_expr(e, see)),
        ExprKind::Paren(a) | ExprKind::Unary(_, a) => walk_expr(a, see),
        ExprKind::Binary(_, a, b) | ExprKind::Range(a, b) => {
            walk_expr(a, see);
            walk_expr(b, see);
        }
        ExprKind::Call { callee, args } => {
            walk_expr(callee, see);
            args.iter().for_each(|a| walk_expr(&a.value, see));
        }
        ExprKind::Pipe { value, stage } => {
            walk_expr(value, see);
            walk_expr(stage, see);
        }
        ExprKind::As { value, path } => {
            walk_expr(value, see);
            path.parts.iter().for_each(|p| {
                if let ast::PathPart::Expr(e) = p {
                    walk_expr(e, see);
                }
            });
        }
        ExprKind::Index { value, subscripts } => {
            walk_expr(value, see);
            for s in subscripts {
                match s {
                    ast::Subscript::At(e) => walk_expr(e, see),
                    ast::Subscript::Slice(a, b) => a.iter().chain(b).for_each(|e| walk_expr(e, see)),
                }
            }
        }
        ExprKind::Field { value, .. } => walk_expr(value, see),
        ExprKind::If { arms, otherwise } => {
            for (condition, body) in arms {
                walk_expr(condition, see);
                walk(body, see);
            }
            otherwise.iter().for_each(|b| walk(b, see));
        }
    }
}

/// Every name that is used in a block.
pub(super) fn names_in(block: &ast::Block) -> Vec<&str> {
    let mut out = vec![];
    walk(block, &mut |seen| {
        if let Seen::Expr(ast::Expr { kind: ExprKind::Name(n), .. }) = seen {
            out.push(n.as_str());
        }
    });
    out
}
