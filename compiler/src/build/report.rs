//! Diagnostics of the evaluator: where they point and what they tell besides.
//!
//! An error in the text of the standard library is shown at the place where the author used it,
//! with a note of the line in the library; one inside a block has labels on the calls that led
//! to it; one about shapes has the layers that led to the operand.

use std::fmt::Write;

use nnc_dsl::{Diagnostic, Severity, Span};

use super::eval::Evaluator;
use super::values::Reported;
use crate::graph::op::OpError;
use crate::graph::{NodeId, Op};

/// Errors after which a run gives up.
const MAX_ERRORS: usize = 50;
/// Layers in the chain of a shape error.
const MAX_CHAIN: usize = 6;
/// Calls that are labelled around an error.
const MAX_CALLS: usize = 3;

impl Evaluator<'_> {
    /// Says something, unless it was said already of the same place.
    pub(super) fn report(&mut self, d: Diagnostic) -> Reported {
        let known = |x: &Diagnostic| x.title == d.title && x.primary == d.primary;
        if !self.diagnostics.iter().any(known) {
            self.diagnostics.push(d);
            let errors = self.diagnostics.iter().filter(|d| d.severity == Severity::Error).count();
            self.stopped |= errors >= MAX_ERRORS;
        }
        Reported
    }

    /// An error at a place.
    pub(super) fn error(
        &mut self,
        title: impl Into<String>,
        span: Span,
        message: impl Into<String>,
    ) -> Reported {
        let d = self.located(title, span, message);
        self.report(d)
    }

    /// An error with a hint.
    pub(super) fn error_help(
        &mut self,
        title: impl Into<String>,
        span: Span,
        message: impl Into<String>,
        help: Option<String>,
    ) -> Reported {
        let mut d = self.located(title, span, message);
        d.help = help;
        self.report(d)
    }

    /// An error after which nothing more is evaluated.
    pub(super) fn stop(
        &mut self,
        title: impl Into<String>,
        span: Span,
        message: impl Into<String>,
    ) -> Reported {
        let mut d = self.located(title, span, message);
        d.secondary.clear();
        let reported = self.report(d);
        self.stopped = true;
        reported
    }

    /// A diagnostic at a place: at the author's text, with the calls that led there.
    pub(super) fn located(
        &self,
        title: impl Into<String>,
        span: Span,
        message: impl Into<String>,
    ) -> Diagnostic {
        let user = self.blamed(span).1;
        let mut d = Diagnostic::error(title, user, message);
        if self.modules.is_std(span.file)
            && let Some(frame) = self.frames.last()
        {
            let place = self.map.location(span);
            d = d.note(format!(
                "found in `{}` of the standard library, {place}",
                frame.function.ast.name.name
            ));
        }
        self.with_calls(d)
    }

    /// Labels the calls of the author's blocks that are in progress.
    fn with_calls(&self, mut d: Diagnostic) -> Diagnostic {
        let frames = self.frames.iter().rev().filter(|f| !f.function.std && !f.root);
        let mut seen: Vec<Span> = d.primary.iter().map(|l| l.span).collect();
        for frame in frames {
            if seen.contains(&frame.call) || self.modules.is_std(frame.call.file) {
                continue;
            }
            if seen.len() > MAX_CALLS {
                break;
            }
            seen.push(frame.call);
            d = d.label(frame.call, format!("in this use of `{}`", frame.function.ast.name.name));
        }
        d
    }

    /// The author's text that a span belongs to: itself, or the use of the library it is part of.
    pub(super) fn user_span(&self, span: Span) -> Span {
        if !self.modules.is_std(span.file) {
            return span;
        }
        let calls = self.frames.iter().rev().map(|f| f.call);
        calls.into_iter().find(|c| !self.modules.is_std(c.file)).unwrap_or(span)
    }

    /// The author's text that is to blame for a piece of text: where that is a parameter's name in
    /// the library, the argument that the author gave for it (with the parameter's name).
    pub(super) fn blamed(&self, span: Span) -> (Option<String>, Span) {
        if self.modules.is_std(span.file)
            && let Some(frame) = self.frames.last()
            && let Some(&argument) = frame.arguments.get(self.map.text(span))
            && !self.modules.is_std(argument.file)
        {
            return (Some(self.map.text(span).to_string()), argument);
        }
        (None, self.user_span(span))
    }

    /// Whether a span is in the author's text.
    pub(super) fn module_is_users(&self, span: Span) -> bool {
        !self.modules.is_std(span.file)
    }

    /// Two layers with one name.
    pub(super) fn duplicate_name(&mut self, full: &str, span: Span, other: Span) -> Reported {
        let mut d = self.located(format!("two layers are named `{full}`"), span, "named again here");
        let help = if span == other {
            "in a loop or a block that is used twice, give the name a computed part: `as name.{i}`"
        } else {
            "rename one, or declare a `layer` and apply it twice to share its parameters"
        };
        if span != other {
            d.secondary.insert(0, nnc_dsl::Label { span: other, message: "first named here".to_string() });
        }
        d.help = Some(help.to_string());
        self.report(d)
    }

    /// An operation that cannot be applied to its operands.
    pub(super) fn shape_error(
        &mut self,
        op: &Op,
        operands: &[NodeId],
        name: &str,
        span: Span,
        e: OpError,
    ) -> Reported {
        let layer = name.rsplit('.').next().unwrap_or("");
        let what = if layer.is_empty() { op.name() } else { name };
        let types: Vec<String> = operands.iter().map(|&n| self.graph.node(n).ty.to_string()).collect();
        let message = match types.len() {
            0 => String::new(),
            1 => format!("applied to {}", types[0]),
            _ => format!("`{}` of {}", op.name(), types.join(" and ")),
        };
        let mut d = self.located(format!("`{what}`: {}", e.message), span, message);
        d.help = e.help;
        let computed = |n: &NodeId| !self.graph.node(*n).op.is_source();
        let culprits: Vec<NodeId> = match e.operand.and_then(|i| operands.get(i)).filter(|n| computed(n)) {
            Some(&n) => vec![n],
            None => operands.iter().copied().filter(computed).take(2).collect(),
        };
        for chain in culprits.iter().rev().filter_map(|&n| self.chain(n)) {
            d.notes.insert(0, chain);
        }
        self.report(d)
    }

    /// The layers that led to a value, the first one first; none if it is a source itself.
    pub(super) fn chain(&self, node: NodeId) -> Option<String> {
        let mut rows: Vec<(String, String, String)> = vec![];
        let mut at = Some(node);
        let mut more = false;
        while let Some(n) = at {
            let node = self.graph.node(n);
            let name = if node.name.is_empty() { node.op.name() } else { &node.name };
            // A layer of several operations is one row: that of its result.
            if rows.last().is_none_or(|r| r.0 != name) {
                if rows.len() == MAX_CHAIN {
                    more = true;
                    break;
                }
                let place = node.spans.first().map_or(String::new(), |s| self.map.location(*s));
                rows.push((name.to_string(), node.ty.to_string(), place));
            }
            let operands = self.graph.operands(n);
            at = operands
                .iter()
                .copied()
                .find(|&o| !matches!(self.graph.node(o).op, Op::Parameter(_) | Op::Constant(_)));
        }
        if rows.len() < 2 && !more {
            return None;
        }
        let width = |f: fn(&(String, String, String)) -> &str| {
            rows.iter().map(|r| f(r).chars().count()).max().unwrap_or(0)
        };
        let (names, types) = (width(|r| &r.0), width(|r| &r.1));
        let mut out = "the layers that led there:".to_string();
        if more {
            out.push_str("\n  …");
        }
        for (name, ty, place) in rows.iter().rev() {
            let _ = write!(out, "\n  {name:names$}  {ty:types$}  {place}");
        }
        Some(out)
    }
}
