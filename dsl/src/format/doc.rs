//! A small document printer in the manner of Wadler: groups are laid out flat where they fit, else broken.

/// The widest line that is laid out flat.
const WIDTH: usize = 100;

/// One step of indentation.
const INDENT: usize = 4;

/// Text with possible line ends.
#[derive(Clone, Debug)]
pub struct Doc {
    kind: Kind,
    /// True if it cannot be laid out on one line.
    pub hard: bool,
}

#[derive(Clone, Debug)]
enum Kind {
    Text(String),
    /// A line end where the group is broken, else this text.
    Line(&'static str),
    /// A line end.
    Hard,
    /// An empty line, at the beginning of a line.
    Blank,
    /// This text where the group is broken.
    IfBroken(&'static str),
    /// A comment that goes to the end of the line.
    Trailing(String),
    /// A comment on a line of its own.
    OwnLine(String),
    Concat(Vec<Doc>),
    Indent(Box<Doc>),
    /// Lines begin at the column at which this begins; only what must be broken is.
    Align(Box<Doc>),
    Group {
        doc: Box<Doc>,
        broken: bool,
    },
}

impl Doc {
    fn new(kind: Kind, hard: bool) -> Doc {
        Doc { kind, hard }
    }

    /// Text without line ends.
    pub fn text(text: impl Into<String>) -> Doc {
        Doc::new(Kind::Text(text.into()), false)
    }

    /// A line end or `flat`.
    pub fn line(flat: &'static str) -> Doc {
        Doc::new(Kind::Line(flat), false)
    }

    /// A line end.
    pub fn hard() -> Doc {
        Doc::new(Kind::Hard, true)
    }

    /// An empty line.
    pub fn blank() -> Doc {
        Doc::new(Kind::Blank, true)
    }

    /// Text of broken groups.
    pub fn if_broken(text: &'static str) -> Doc {
        Doc::new(Kind::IfBroken(text), false)
    }

    /// A comment at the end of the line.
    pub fn trailing(text: &str) -> Doc {
        Doc::new(Kind::Trailing(text.into()), false)
    }

    /// A comment of its own line.
    pub fn own_line(text: &str) -> Doc {
        Doc::new(Kind::OwnLine(text.into()), true)
    }

    /// One behind the other.
    pub fn concat(docs: impl IntoIterator<Item = Doc>) -> Doc {
        let docs: Vec<Doc> = docs.into_iter().collect();
        let hard = docs.iter().any(|d| d.hard);
        Doc::new(Kind::Concat(docs), hard)
    }

    /// One step further to the right.
    pub fn indent(self) -> Doc {
        let hard = self.hard;
        Doc::new(Kind::Indent(Box::new(self)), hard)
    }

    /// Lines below begin where this begins; nothing in it is broken for its width.
    pub fn align(self) -> Doc {
        let hard = self.hard;
        Doc::new(Kind::Align(Box::new(self)), hard)
    }

    /// Flat where it fits; broken where it cannot be flat.
    pub fn group(self) -> Doc {
        let broken = self.hard;
        Doc::new(Kind::Group { doc: Box::new(self), broken }, broken)
    }

    /// Flat where its first line fits, whatever is inside.
    pub fn loose_group(self) -> Doc {
        let hard = self.hard;
        Doc::new(Kind::Group { doc: Box::new(self), broken: false }, hard)
    }
}

/// The text of a document; comments at line ends are aligned over consecutive lines.
pub fn print(doc: &Doc) -> String {
    let mut printer = Printer { lines: vec![], line: String::new(), comment: String::new(), indent: 0 };
    let mut stack = vec![(0, Mode::Broken, doc)];
    while let Some((indent, mode, doc)) = stack.pop() {
        printer.step(indent, mode, doc, &mut stack);
    }
    printer.finish()
}

#[derive(Clone, Copy, PartialEq)]
enum Mode {
    Flat,
    Broken,
}

type Stack<'a> = Vec<(usize, Mode, &'a Doc)>;

struct Printer {
    /// Finished lines: code and comment.
    lines: Vec<(String, String)>,
    line: String,
    comment: String,
    indent: usize,
}

impl Printer {
    fn step<'a>(&mut self, indent: usize, mode: Mode, doc: &'a Doc, stack: &mut Stack<'a>) {
        match &doc.kind {
            Kind::Text(text) => self.write(text),
            Kind::IfBroken(text) if mode == Mode::Broken => self.write(text),
            Kind::IfBroken(_) => {}
            Kind::Line(flat) if mode == Mode::Flat => self.write(flat),
            Kind::Line(_) | Kind::Hard => self.newline(indent),
            Kind::Blank => {
                self.newline(indent);
                if self.lines.last().is_some_and(|(code, comment)| !code.is_empty() || !comment.is_empty()) {
                    self.lines.push(Default::default());
                }
            }
            Kind::Trailing(text) => {
                if !self.comment.is_empty() {
                    self.comment.push(' ');
                }
                self.comment.push_str(text);
            }
            Kind::OwnLine(text) => {
                self.newline(indent);
                self.write(text);
                self.newline(indent);
            }
            Kind::Concat(docs) => stack.extend(docs.iter().rev().map(|d| (indent, mode, d))),
            // What is flat begins no line, so what is broken within it is indented from the line it stands on.
            Kind::Indent(doc) if mode == Mode::Flat => stack.push((indent, mode, doc)),
            Kind::Indent(doc) => stack.push((indent + INDENT, mode, doc)),
            Kind::Align(doc) => {
                let column = if self.line.is_empty() { self.indent } else { self.line.chars().count() };
                stack.push((column, Mode::Flat, doc));
            }
            Kind::Group { doc, broken } => {
                let flat = !broken && (mode == Mode::Flat || self.fits(indent, doc, stack));
                stack.push((indent, if flat { Mode::Flat } else { Mode::Broken }, doc));
            }
        }
    }

    fn write(&mut self, text: &str) {
        if self.line.is_empty() {
            if text.trim().is_empty() {
                return;
            }
            self.line.extend(std::iter::repeat_n(' ', self.indent));
        }
        self.line.push_str(text);
    }

    /// Ends the line if there is anything on it.
    fn newline(&mut self, indent: usize) {
        if self.line.is_empty() && !self.comment.is_empty() {
            let alone = std::mem::take(&mut self.comment);
            self.write(&alone);
        }
        self.indent = indent;
        if !self.line.is_empty() || !self.comment.is_empty() {
            let line = std::mem::take(&mut self.line);
            self.lines.push((line.trim_end().to_owned(), std::mem::take(&mut self.comment)));
        }
    }

    /// True if `doc`, laid out flat, and what follows up to the next possible line end fit the line.
    fn fits(&self, indent: usize, doc: &Doc, rest: &Stack<'_>) -> bool {
        let used = if self.line.is_empty() { self.indent } else { self.line.chars().count() };
        let Some(mut left) = WIDTH.checked_sub(used) else { return false };
        let mut stack = vec![(indent, Mode::Flat, doc)];
        let mut behind = rest.iter().rev();
        loop {
            let Some((_, mode, doc)) = stack.pop().or_else(|| behind.next().copied()) else { return true };
            let within = behind.len() == rest.len();
            let text = match &doc.kind {
                Kind::Text(text) => text.as_str(),
                Kind::IfBroken(text) if mode == Mode::Broken => text,
                Kind::Line(flat) if within && mode == Mode::Flat => flat,
                Kind::Line(_) | Kind::Hard | Kind::Blank | Kind::OwnLine(_) => return true,
                Kind::IfBroken(_) | Kind::Trailing(_) => "",
                Kind::Concat(docs) => {
                    stack.extend(docs.iter().rev().map(|d| (0, mode, d)));
                    ""
                }
                Kind::Indent(doc) | Kind::Align(doc) => {
                    stack.push((0, mode, doc));
                    ""
                }
                Kind::Group { doc, broken } => {
                    stack.push((0, if *broken { Mode::Broken } else { mode }, doc));
                    ""
                }
            };
            match left.checked_sub(text.chars().count()) {
                Some(l) => left = l,
                None => return false,
            }
        }
    }

    fn finish(mut self) -> String {
        self.newline(0);
        while self.lines.last().is_some_and(|(code, comment)| code.is_empty() && comment.is_empty()) {
            self.lines.pop();
        }
        let mut text = String::new();
        let mut at = 0;
        while at < self.lines.len() {
            let run = self.lines[at..].iter().take_while(|(_, comment)| !comment.is_empty()).count();
            let widest =
                self.lines[at..at + run].iter().map(|(code, _)| code.chars().count()).max().unwrap_or(0);
            for (code, comment) in &self.lines[at..at + run] {
                text.push_str(&format!("{code:widest$}  {comment}\n"));
            }
            at += run;
            if let Some((code, _)) = self.lines.get(at) {
                text.push_str(code);
                text.push('\n');
                at += 1;
            }
        }
        text
    }
}
