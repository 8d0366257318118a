//! Reads the graph's text form, see [`print`](super::print). The result is what the text says:
//! types are taken as written, [`verify`](super::verify::verify) tells whether they are right.

use std::collections::HashMap;

use super::text::Scanner;
use super::{Graph, Group, GroupId, Layout, NodeId, Op, Output, Placement, Update};

/// A text that is not a graph's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {message}")]
pub struct ParseError {
    /// Counted from 1.
    pub line: usize,
    /// What is wrong.
    pub message: String,
}

/// The graph of that text. Comments (`//` at the start of a line) and empty lines are skipped.
pub fn parse(text: &str) -> Result<Graph, ParseError> {
    let mut parser = Parser::default();
    let mut last = 1;
    for (i, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with("//") {
            continue;
        }
        last = i + 1;
        parser.line = i + 1;
        parser.read(line).map_err(|message| ParseError { line: i + 1, message })?;
    }
    if parser.state != State::After {
        return Err(ParseError { line: last, message: "the graph is not closed: expected `}`".to_string() });
    }
    parser.finish()
}

#[derive(Clone, Copy, Debug, PartialEq, Default)]
enum State {
    #[default]
    Before,
    Graph,
    Group(GroupId),
    After,
}

#[derive(Default)]
struct Parser {
    graph: Graph,
    state: State,
    line: usize,
    nodes: HashMap<u32, NodeId>,
    groups: HashMap<GroupId, Group>,
    /// Placements name concatenations of later lines: resolved at the end.
    placements: Vec<(usize, NodeId, u32, usize)>,
}

impl Parser {
    fn read(&mut self, line: &str) -> Result<(), String> {
        let mut s = Scanner::new(line);
        match self.state {
            State::Before => {
                s.expect("graph")?;
                self.graph.name = s.name()?;
                s.expect("{")?;
                self.state = State::Graph;
            }
            State::After => return Err("nothing may follow the graph".to_string()),
            State::Group(_) if s.skip("}") => self.state = State::Graph,
            State::Graph if s.skip("}") => self.state = State::After,
            State::Graph if s.skip("group ") => self.group(&mut s)?,
            State::Graph if s.skip("output ") => {
                let name = s.name()?;
                s.expect("=")?;
                let node = self.operand(&mut s)?;
                self.graph.outputs.push(Output { name, node });
            }
            State::Graph if s.skip("update ") => {
                let parameter = self.operand(&mut s)?;
                s.expect("=")?;
                let value = self.operand(&mut s)?;
                self.graph.updates.push(Update { parameter, value });
            }
            State::Graph | State::Group(_) => self.node(&mut s)?,
        }
        if s.is_end() { Ok(()) } else { Err(s.expected("the end of the line")) }
    }

    /// `g0 conv2d + relu {`: the operations' names are for the reader only.
    fn group(&mut self, s: &mut Scanner) -> Result<(), String> {
        s.expect("g")?;
        let id = GroupId(s.number()?);
        s.take_while(|c| c != '{');
        s.expect("{")?;
        if self.groups.insert(id, Group { anchor: None, nodes: vec![] }).is_some() {
            return Err(format!("group g{} is there twice", id.0));
        }
        self.state = State::Group(id);
        Ok(())
    }

    fn node(&mut self, s: &mut Scanner) -> Result<(), String> {
        s.expect("%")?;
        let number: u32 = s.number()?;
        s.expect("=")?;
        let op_name = s.word();
        let mut name = String::new();
        if s.rest().starts_with('"') {
            name = s.string()?;
        }
        let mut operands = vec![];
        while s.rest().starts_with('%') || !operands.is_empty() && s.skip(",") {
            operands.push(self.operand(s)?);
        }
        let mut attributes = "";
        if s.skip("{") {
            attributes = s.take_while(|c| c != '}');
            s.expect("}")?;
        }
        let op = Op::parse(op_name, attributes)?;
        s.expect(":")?;
        let ty = s.tensor_type()?;
        let id = self.graph.add_typed(op, &operands, ty, &name, None);
        if self.nodes.insert(number, id).is_some() {
            return Err(format!("%{number} is there twice"));
        }
        let anchor = self.decisions(s, id)?;
        if let State::Group(g) = self.state {
            self.graph.node_mut(id).group = Some(g);
            if let Some(group) = self.groups.get_mut(&g) {
                group.nodes.push(id);
                group.anchor = if anchor { Some(id) } else { group.anchor };
            }
        } else if anchor {
            return Err("an anchor must be in a group".to_string());
        }
        Ok(())
    }

    /// What follows the type: layout, placement, name. True for the group's anchor.
    fn decisions(&mut self, s: &mut Scanner, id: NodeId) -> Result<bool, String> {
        if s.skip("blocked") {
            self.graph.node_mut(id).layout = Layout::Blocked(s.number()?);
        } else if s.skip("channels_last") {
            self.graph.node_mut(id).layout = Layout::ChannelsLast;
        }
        let anchor = s.skip("anchor");
        if s.skip("into") {
            s.expect("%")?;
            let into = s.number()?;
            s.expect("at")?;
            self.placements.push((self.line, id, into, s.number()?));
        }
        if s.skip("@") {
            self.graph.node_mut(id).name = s.name()?;
        }
        Ok(anchor)
    }

    fn operand(&self, s: &mut Scanner) -> Result<NodeId, String> {
        s.expect("%")?;
        let number: u32 = s.number()?;
        self.nodes.get(&number).copied().ok_or_else(|| format!("%{number} is not defined before its use"))
    }

    fn finish(mut self) -> Result<Graph, ParseError> {
        for (line, id, into, offset) in self.placements {
            let into = self.nodes.get(&into).copied().ok_or_else(|| ParseError {
                line,
                message: format!("%{into}, into which this is placed, is not there"),
            })?;
            self.graph.node_mut(id).placement = Some(Placement { into, offset });
        }
        for g in 0..self.groups.len() as u32 {
            let group = self.groups.remove(&GroupId(g)).ok_or_else(|| ParseError {
                line: self.line,
                message: format!("groups must be numbered from 0 without gaps: g{g} is missing"),
            })?;
            self.graph.groups.push(group);
        }
        Ok(self.graph)
    }
}
