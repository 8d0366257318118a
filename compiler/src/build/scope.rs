//! Variables: what `let` binds, block by block, call by call.

use std::collections::{HashMap, VecDeque};
use std::rc::Rc;

use nnc_dsl::Span;

use super::modules::FunctionDef;
use super::values::{Argument, Value};

/// A call in progress.
pub(super) struct Frame {
    /// What was called.
    pub function: Rc<FunctionDef>,
    /// Where it was called.
    pub call: Span,
    /// Its variables, outermost block first.
    blocks: Vec<HashMap<String, Value>>,
    /// Where the arguments of its parameters stand.
    pub arguments: HashMap<String, Span>,
    /// For a net that another one calls: the tensors for its inputs.
    pub inputs: VecDeque<Argument>,
    /// The same, given by name.
    pub named_inputs: HashMap<String, Argument>,
    /// For a net: its outputs so far.
    pub outputs: Vec<(String, Value)>,
    /// Whether it is the net that is built.
    pub root: bool,
}

impl Frame {
    pub fn new(function: Rc<FunctionDef>, call: Span) -> Frame {
        Frame {
            function,
            call,
            blocks: vec![HashMap::new()],
            arguments: HashMap::new(),
            inputs: VecDeque::new(),
            named_inputs: HashMap::new(),
            outputs: vec![],
            root: false,
        }
    }

    /// Opens a block.
    pub fn open(&mut self) {
        self.blocks.push(HashMap::new());
    }

    /// Closes it: its names are gone.
    pub fn close(&mut self) {
        self.blocks.pop();
    }

    /// Binds a name in the innermost block.
    pub fn bind(&mut self, name: &str, value: Value) {
        if let Some(block) = self.blocks.last_mut() {
            block.insert(name.to_string(), value);
        }
    }

    /// Re-binds a name where it is bound; false if it is not.
    pub fn rebind(&mut self, name: &str, value: Value) -> bool {
        match self.blocks.iter_mut().rev().find_map(|b| b.get_mut(name)) {
            Some(slot) => {
                *slot = value;
                true
            }
            None => false,
        }
    }

    /// The value of a name.
    pub fn get(&self, name: &str) -> Option<&Value> {
        self.blocks.iter().rev().find_map(|b| b.get(name))
    }

    /// All names that are bound.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.blocks.iter().flat_map(|b| b.keys().map(String::as_str))
    }
}
