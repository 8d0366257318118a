//! `nnc check`: every error and warning of programs.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nnc::dsl::ast::Item;
use nnc::dsl::{Diagnostic, Severity, SourceMap};
use nnc::error::{SourceError, render_diagnostics};
use nnc::{Error, Source};

use super::args::{NetArgs, STDIN, open_source};
use super::{Failure, Outcome, terminal};

/// Check programs: report every error and warning
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  nnc check net.nn                      every net of the file, with its default parameters
  nnc check examples/*.nn
  nnc check resnet.nn --set depth=50    with a parameter of the net set
  cat net.nn | nnc check -              from standard input

Exit code: 0 if there are no errors (warnings are allowed), else 1.")]
pub struct Args {
    /// The programs (.nn); `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    #[command(flatten)]
    net: NetArgs,
}

pub fn run(args: &Args) -> Outcome {
    let mut failed = false;
    for file in &args.files {
        match check(file, args) {
            Ok(said) => terminal::print(&format!("{}: {said}\n", file_name(file)))?,
            Err(e) => {
                terminal::error_line(&e.render(terminal::color()));
                failed = true;
            }
        }
    }
    if failed { Err(Failure::Reported) } else { Ok(()) }
}

/// What is to be said of a file without errors.
fn check(file: &Path, args: &Args) -> nnc::error::Result<&'static str> {
    let source = open_source(file)?;
    let nets = match &args.net.net {
        Some(name) => vec![name.clone()],
        None => nets(&source),
    };
    if nets.is_empty() && source.text().contains("block ") {
        return check_blocks(&source);
    }
    let options = args.net.options();
    // Without any, the builder says what is missing.
    let variants = if nets.is_empty() {
        vec![options]
    } else {
        nets.into_iter().map(|net| options.clone().net(net)).collect()
    };
    let (mut errors, mut warnings, mut sources) = (vec![], vec![], Arc::default());
    for variant in variants {
        match source.network(&variant) {
            Ok(network) => {
                add_new(&mut warnings, network.warnings().to_vec());
                sources = network.sources().clone();
            }
            Err(Error::Source(e)) => {
                add_new(&mut errors, e.diagnostics);
                sources = e.sources;
            }
            Err(e) => return Err(e),
        }
    }
    if !errors.is_empty() {
        add_new(&mut errors, warnings);
        return Err(Error::Source(SourceError { sources, diagnostics: errors }));
    }
    show(&sources, warnings);
    Ok("no errors")
}

/// A file of blocks, for `use "blocks.nn"`: its syntax. A block has types only where it is used.
fn check_blocks(source: &Source) -> nnc::error::Result<&'static str> {
    let diagnostics = source.syntax();
    if diagnostics.iter().any(|d| d.severity == Severity::Error) {
        let sources = Arc::new(source.sources().clone());
        return Err(Error::Source(SourceError { sources, diagnostics }));
    }
    show(source.sources(), diagnostics);
    Ok("no errors in its syntax; its blocks are checked in the nets that use them")
}

/// Nets of one file share what is wrong with the file itself.
fn add_new(all: &mut Vec<Diagnostic>, some: Vec<Diagnostic>) {
    some.into_iter().for_each(|d| {
        if !all.contains(&d) {
            all.push(d);
        }
    });
}

fn show(sources: &SourceMap, warnings: Vec<Diagnostic>) {
    if !warnings.is_empty() {
        terminal::error_line(&render_diagnostics(sources, &warnings, terminal::color()));
    }
}

/// The names of a source's nets.
fn nets(source: &Source) -> Vec<String> {
    let Some((root, _)) = source.sources().files().next() else { return vec![] };
    let (module, _) = nnc::dsl::parse(source.sources(), root);
    let net = |item| match item {
        Item::Net(net) => Some(net.name.name),
        _ => None,
    };
    module.items.into_iter().filter_map(net).collect()
}

fn file_name(file: &Path) -> String {
    if file == Path::new(STDIN) { "<stdin>".into() } else { file.display().to_string() }
}
