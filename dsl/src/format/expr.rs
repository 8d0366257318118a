//! The layout of expressions.

use super::Formatter;
use super::doc::Doc;
use crate::ast::{Arg, Block, Expr, ExprKind, PathPart, Subscript, UnaryOp};
use crate::token::{Keyword, TokenKind};

impl Formatter<'_> {
    pub(super) fn expr(&mut self, expr: &Expr) -> Doc {
        match &expr.kind {
            ExprKind::Pipe { .. } | ExprKind::Binary(..) => self.chain(expr),
            ExprKind::Range(from, to) => Doc::concat([self.expr(from), self.take(), self.expr(to)]),
            ExprKind::Unary(UnaryOp::Neg, value) => Doc::concat([self.take(), self.expr(value)]),
            ExprKind::Unary(UnaryOp::Not, value) => Doc::concat([self.word(), self.expr(value)]),
            ExprKind::List(items) => {
                let plain = items.iter().all(|i| matches!(i.kind, ExprKind::Int(_) | ExprKind::Float(_)));
                self.bracketed(items.len(), plain, |f, i| f.expr(&items[i]))
            }
            ExprKind::Tuple(parts) if parts.len() == 1 => {
                let docs = [self.take(), self.expr(&parts[0]), self.take(), self.take()];
                Doc::concat(docs)
            }
            ExprKind::Tuple(parts) => self.bracketed(parts.len(), false, |f, i| f.expr(&parts[i])),
            ExprKind::Paren(inner) => self.parenthesised(inner),
            ExprKind::Call { callee, args } => {
                let callee = self.expr(callee);
                Doc::concat([callee, self.bracketed(args.len(), false, |f, i| f.arg(&args[i]))])
            }
            ExprKind::As { value, path } => {
                let mut docs = vec![self.expr(value), Doc::text(" "), self.word()];
                docs.push(self.path(&path.parts, path.span.end));
                Doc::concat(docs)
            }
            ExprKind::Index { value, subscripts } => {
                let value = self.expr(value);
                let all = self.bracketed(subscripts.len(), false, |f, i| f.subscript(&subscripts[i]));
                Doc::concat([value, all])
            }
            ExprKind::Field { value, .. } => Doc::concat([self.expr(value), self.take(), self.take()]),
            ExprKind::If { arms, otherwise } => self.conditional(arms, otherwise.as_ref()),
            ExprKind::Int(_)
            | ExprKind::Float(_)
            | ExprKind::Bool(_)
            | ExprKind::Str(_)
            | ExprKind::Pair(..)
            | ExprKind::Name(_)
            | ExprKind::Error => self.take(),
        }
    }

    /// A pipe, or operators of any kind: the operands side by side, or one link a line. Where the author broke the
    /// line, it stays broken, and elsewhere only what is too long is.
    fn chain(&mut self, expr: &Expr) -> Doc {
        let mut links = Vec::new();
        let mut head = expr;
        loop {
            match &head.kind {
                ExprKind::Pipe { value, stage } if is_pipe(expr) => {
                    links.push((&**stage, 1));
                    head = value;
                }
                ExprKind::Binary(op, left, right) if !is_pipe(expr) => {
                    links.push((&**right, if op.symbol() == "not in" { 2 } else { 1 }));
                    head = left;
                }
                _ => break,
            }
        }
        links.reverse();
        let mut docs = vec![self.expr(head)];
        let mut parts = Vec::new();
        let mut kept = false;
        for (operand, tokens) in links {
            let broken = (0..=tokens).any(|i| {
                let at = (self.at + i).min(self.tokens.len() - 1);
                self.tokens[at].first_of_line
            });
            let mut link = Vec::new();
            for _ in 0..tokens {
                link.push(self.word());
            }
            link.push(self.expr(operand));
            kept |= broken;
            parts.push((broken, Doc::concat(link)));
        }
        if !kept {
            docs.extend(parts.into_iter().map(|(_, link)| Doc::concat([Doc::line(" "), link]).indent()));
            return Doc::concat(docs).loose_group();
        }
        // Up to the first line end the links stand on the head's line.
        let first = parts.iter().position(|(broken, _)| *broken).unwrap_or(parts.len());
        let below = parts.split_off(first);
        let sides = |(broken, link)| [if broken { Doc::hard() } else { Doc::text(" ") }, link];
        docs.extend(parts.into_iter().flat_map(sides));
        docs.push(Doc::concat(below.into_iter().flat_map(sides)).indent());
        Doc::concat(docs).group()
    }

    fn parenthesised(&mut self, inner: &Expr) -> Doc {
        let before = Doc::concat(self.leading(false, true));
        let open = self.take();
        let inner = self.expr(inner);
        let last = Doc::concat(self.leading(false, true));
        let close = self.bare();
        let body = Doc::concat([Doc::line(""), inner, last]).indent();
        let group = Doc::concat([open, body, Doc::line(""), close]).group();
        let behind = self.trailing();
        Doc::concat([before, group].into_iter().chain(behind))
    }

    /// `(…)` or `[…]` with commas between the elements. `fill`: as many elements as fit on a line.
    pub(super) fn bracketed(
        &mut self,
        count: usize,
        fill: bool,
        mut each: impl FnMut(&mut Self, usize) -> Doc,
    ) -> Doc {
        let before = Doc::concat(self.leading(false, true));
        let comment = self.comment;
        let open = self.take();
        let author = count > 0 && self.token().first_of_line;
        let mut parts = Vec::new();
        for i in 0..count {
            let begins = self.token().first_of_line;
            let above = self.leading(false, true);
            let element = Doc::concat(above.into_iter().chain([each(self, i)]));
            let behind = self.skip(TokenKind::Comma);
            parts.push((begins, element, behind));
        }
        let last = Doc::concat(self.leading(false, true));
        let commented = self.comment > comment;
        let close = self.bare();
        let hard = commented || author || last.hard || parts.iter().any(|p| p.1.hard);
        let mut body = Vec::new();
        for (i, (begins, element, behind)) in parts.into_iter().enumerate() {
            // In a row the element is measured together with the line end before it.
            let in_row = i > 0 && if hard { author && !begins } else { fill };
            if in_row {
                body.push(Doc::concat([Doc::line(" "), element]).loose_group());
            } else {
                let flat = if i == 0 { "" } else { " " };
                body.extend([if hard { Doc::hard() } else { Doc::line(flat) }, element]);
            }
            body.push(if hard || i + 1 < count { Doc::text(",") } else { Doc::if_broken(",") });
            body.push(behind);
        }
        body.push(last);
        let edge = if hard { Doc::hard() } else { Doc::line("") };
        let edge = if count == 0 && !hard { Doc::concat([]) } else { edge };
        let group = Doc::concat([open, Doc::concat(body).indent(), edge, close]).group();
        let behind = self.trailing();
        Doc::concat([before, group].into_iter().chain(behind))
    }

    fn arg(&mut self, arg: &Arg) -> Doc {
        match arg.name {
            Some(_) => Doc::concat([self.word(), self.word(), self.expr(&arg.value)]),
            None => self.expr(&arg.value),
        }
    }

    fn subscript(&mut self, subscript: &Subscript) -> Doc {
        match subscript {
            Subscript::At(at) => self.expr(at),
            Subscript::Slice(from, to) => {
                let from = from.as_ref().map(|e| self.expr(e));
                let colon = self.take();
                let to = to.as_ref().map(|e| self.expr(e));
                Doc::concat(from.into_iter().chain([colon]).chain(to))
            }
        }
    }

    /// The pieces of a path stand together without spaces; `end` is where it ends.
    fn path(&mut self, parts: &[PathPart], end: u32) -> Doc {
        let mut exprs = parts.iter().flat_map(|part| match part {
            PathPart::Name(_) => vec![],
            PathPart::Expr(value) => match &value.kind {
                // Glued pieces, unless it is a string in braces.
                ExprKind::Str(pieces) if !self.text[value.span.start as usize..].starts_with('"') => {
                    let computed = pieces.iter().filter_map(|p| match p {
                        crate::ast::StrPart::Expr(e) => Some(e),
                        crate::ast::StrPart::Text(_) => None,
                    });
                    computed.collect()
                }
                _ => vec![value],
            },
        });
        let mut values: Vec<&Expr> = exprs.by_ref().collect();
        drop(exprs);
        values.reverse();
        let mut docs = Vec::new();
        while self.token().start < end {
            let computed = self.is(TokenKind::BraceOpen);
            docs.push(self.take());
            if computed && let Some(value) = values.pop() {
                docs.push(self.expr(value));
            }
        }
        Doc::concat(docs)
    }

    fn conditional(&mut self, arms: &[(Expr, Block)], otherwise: Option<&Block>) -> Doc {
        let blocks: Vec<&Block> = arms.iter().map(|(_, b)| b).chain(otherwise).collect();
        let rows = self.else_begins_line(&blocks) && blocks.iter().all(|b| self.stays_inline(b));
        let mut docs = Vec::new();
        for (i, (condition, body)) in arms.iter().enumerate() {
            if i > 0 {
                docs.extend([self.gap_before_else(rows), self.word()]);
            }
            docs.extend([self.word(), self.expr(condition), Doc::text(" ")]);
            docs.push(if rows { self.inline_block(body) } else { self.block(body) });
        }
        if let Some(body) = otherwise {
            docs.extend([self.gap_before_else(rows), self.word()]);
            docs.push(if rows { self.inline_block(body) } else { self.block(body) });
        }
        if rows { Doc::concat(docs).align() } else { Doc::concat(docs) }
    }

    fn gap_before_else(&self, rows: bool) -> Doc {
        if rows { Doc::hard() } else { Doc::text(" ") }
    }

    /// True if the author wrote an `else` below its `if`.
    fn else_begins_line(&self, blocks: &[&Block]) -> bool {
        blocks[..blocks.len() - 1].iter().any(|b| {
            let behind = self.tokens.partition_point(|t| t.start < b.span.end);
            self.tokens
                .get(behind)
                .is_some_and(|t| t.kind == TokenKind::Key(Keyword::Else) && t.first_of_line)
        })
    }

    /// True if the block has one statement at most, no comment, and its braces on the line of what is in them.
    fn stays_inline(&self, block: &Block) -> bool {
        let first = self.tokens.partition_point(|t| t.start < block.span.start);
        let behind = self.tokens.partition_point(|t| t.start < block.span.end);
        let comment = self.comments.iter().any(|c| (block.span.start..block.span.end).contains(&c.start));
        let inside = [first + 1, behind - 1]; // what is behind the one brace, and the other brace
        !comment && block.stmts.len() <= 1 && inside.iter().all(|&i| !self.tokens[i].first_of_line)
    }
}

fn is_pipe(expr: &Expr) -> bool {
    matches!(expr.kind, ExprKind::Pipe { .. })
}
