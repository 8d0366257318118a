//! Diagnostics to text, the way rustc shows them, with annotate-snippets.
//!
//! The same diagnostics give the same text; colour (ANSI escapes) is the only difference between terminal and file.

use std::ops::Range;

use annotate_snippets::renderer::DecorStyle;
use annotate_snippets::{Annotation, AnnotationKind, Group, Level, Origin, Renderer, Snippet};

use crate::diagnostic::{Diagnostic, Label, Severity};
use crate::source::{FileId, SourceFile, SourceMap};

/// Columns of an excerpt; longer lines are cut around what is pointed at.
const WIDTH: usize = 120;

/// A line of as many bytes is long: it is not shown as a whole.
const LONG_LINE: usize = 250;

/// Bytes between the first label in a long line and the others that are shown.
const NEAR: usize = 50;

/// The text of all diagnostics, a blank line between them; ends in a line end unless there are none.
pub fn render(map: &SourceMap, diagnostics: &[Diagnostic], color: bool) -> String {
    let renderer = if color { Renderer::styled() } else { Renderer::plain() };
    let renderer = renderer.decor_style(DecorStyle::Ascii).term_width(WIDTH);
    let mut text = String::new();
    for diagnostic in diagnostics {
        if !text.is_empty() {
            text.push('\n');
        }
        let rendered = renderer.render(&[group(map, diagnostic)]);
        for line in rendered.lines() {
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
    text
}

fn group<'a>(map: &'a SourceMap, diagnostic: &'a Diagnostic) -> Group<'a> {
    let level = match diagnostic.severity {
        Severity::Error => Level::ERROR,
        Severity::Warning => Level::WARNING,
    };
    let title = level.primary_title(diagnostic.title.as_str());
    let mut group = Group::with_title(title);
    for (file, labels) in by_file(diagnostic) {
        group = excerpt(group, map.file(file), &labels);
    }
    for note in &diagnostic.notes {
        group = group.element(Level::NOTE.message(note.as_str()));
    }
    if let Some(help) = &diagnostic.help {
        group = group.element(Level::HELP.message(help.as_str()));
    }
    group
}

/// A label and whether it is a primary one.
type Mark<'a> = (&'a Label, AnnotationKind);

/// The labels of each file, the file of the first label first.
fn by_file(diagnostic: &Diagnostic) -> Vec<(FileId, Vec<Mark<'_>>)> {
    let primary = diagnostic.primary.iter().map(|l| (l, AnnotationKind::Primary));
    let secondary = diagnostic.secondary.iter().map(|l| (l, AnnotationKind::Context));
    let mut files: Vec<(FileId, Vec<Mark<'_>>)> = Vec::new();
    for mark in primary.chain(secondary) {
        let file = mark.0.span.file;
        match files.iter_mut().find(|(f, _)| *f == file) {
            Some((_, marks)) => marks.push(mark),
            None => files.push((file, vec![mark])),
        }
    }
    files
}

fn excerpt<'a>(group: Group<'a>, file: &'a SourceFile, marks: &[Mark<'a>]) -> Group<'a> {
    let text = file.text.as_str();
    let (marks, ranges) = readable(text, marks);
    let first = ranges.iter().map(|r| r.start).min().unwrap_or(0);
    let last = ranges.iter().map(|r| r.end).max().unwrap_or(0);
    let start = text[..first].rfind('\n').map_or(0, |i| i + 1);
    let end = text[last..].find('\n').map_or(text.len(), |i| last + i);
    // The carriage return of a line end is not shown; a blank takes its place, so that offsets stay.
    let mut window = text[start..end].replace("\r\n", " \n");
    if window.ends_with('\r') {
        window.replace_range(window.len() - 1.., " ");
    }
    let line = file.line_of(start);
    let annotations = marks.iter().zip(&ranges).map(|(mark, range)| annotation(*mark, range, start));
    // An excerpt of no text at all has no line to show.
    if window.is_empty() {
        let place = Origin::path(file.name.as_str()).line(line).char_column(1);
        return group.element(place);
    }
    group.element(Snippet::source(window).path(file.name.as_str()).line_start(line).annotations(annotations))
}

fn annotation<'a>((label, kind): Mark<'a>, range: &Range<usize>, start: usize) -> Annotation<'a> {
    let annotation = kind.span(range.start - start..range.end - start);
    if label.message.is_empty() { annotation } else { annotation.label(label.message.as_str()) }
}

/// The labels with their ranges: in a long line only what is near the first one, and not all of a long range.
fn readable<'a>(text: &str, marks: &[Mark<'a>]) -> (Vec<Mark<'a>>, Vec<Range<usize>>) {
    let is_long = |at: usize| {
        let before = text[..at].bytes().rev().take(LONG_LINE).position(|b| b == b'\n');
        let behind = text[at..].bytes().take(LONG_LINE).position(|b| b == b'\n');
        before.unwrap_or(at.min(LONG_LINE)) + behind.unwrap_or((text.len() - at).min(LONG_LINE)) >= LONG_LINE
    };
    let mut first = None;
    let shown = marks.iter().filter_map(|mark| {
        let mut range = within(text, mark.0);
        let long = is_long(range.start);
        let first = *first.get_or_insert(range.start);
        if long && range.start.abs_diff(first) > NEAR {
            return None;
        }
        if long && range.len() > NEAR {
            range.end = text.floor_char_boundary(range.start + NEAR);
        }
        Some((*mark, range))
    });
    shown.unzip()
}

/// The label's range, made to lie within the text and on characters' borders.
fn within(text: &str, label: &Label) -> Range<usize> {
    let start = text.floor_char_boundary((label.span.start as usize).min(text.len()));
    let end = text.floor_char_boundary((label.span.end as usize).min(text.len()));
    start..end.max(start)
}
