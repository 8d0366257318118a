//! Names of layers: paths through scopes, with automatic numbers for what is not named.
//!
//! A layer that is named `as features.0` is `features.0` within the scope it stands in; one that
//! is not is numbered by its kind there: `conv1`, `conv2`, `dense1`. Parameters are
//! called after the scope that declares them: `features.0.weight`.

use std::collections::HashMap;

use nnc_dsl::Span;

/// A scope of layer names.
struct NameScope {
    /// Its path, empty at the top.
    path: String,
    /// The last number given, by kind.
    counters: HashMap<String, usize>,
    /// Whether this is another application of a shared layer: its names exist already.
    reuse: bool,
}

struct Claim {
    span: Span,
    explicit: bool,
}

/// The scopes that are open and the names that are taken.
pub(super) struct Names {
    scopes: Vec<NameScope>,
    claims: HashMap<String, Claim>,
}

impl Names {
    pub fn new() -> Names {
        let top = NameScope { path: String::new(), counters: HashMap::new(), reuse: false };
        Names { scopes: vec![top], claims: HashMap::new() }
    }

    fn top(&self) -> &NameScope {
        self.scopes.last().expect("the top scope is never left")
    }

    /// The path of the current scope.
    pub fn path(&self) -> &str {
        &self.top().path
    }

    /// Whether the current scope is another application of a shared layer.
    pub fn reuse(&self) -> bool {
        self.top().reuse
    }

    /// The full path of a name in the current scope.
    pub fn join(&self, name: &str) -> String {
        let path = self.path();
        if path.is_empty() { name.to_string() } else { format!("{path}.{name}") }
    }

    /// Takes a full path that the author wrote.
    ///
    /// # Errors
    /// Where the name was taken already.
    pub fn claim(&mut self, full: &str, span: Span) -> Result<(), Span> {
        if self.reuse() {
            return Ok(());
        }
        if let Some(other) = self.claims.get(full) {
            return Err(other.span);
        }
        self.claims.insert(full.to_string(), Claim { span, explicit: true });
        Ok(())
    }

    /// Whether a name in the current scope is taken.
    pub fn is_claimed(&self, name: &str) -> bool {
        self.claims.contains_key(&self.join(name))
    }

    /// The full path of the next layer of a kind: the next number that is free.
    pub fn number(&mut self, kind: &str, span: Span) -> String {
        let reuse = self.reuse();
        loop {
            let counter =
                self.scopes.last_mut().expect("never empty").counters.entry(kind.to_string()).or_insert(0);
            *counter += 1;
            let full = { format!("{kind}{counter}") };
            let full = self.join(&full);
            match self.claims.get(&full) {
                Some(c) if c.explicit || !reuse => continue,
                _ => {}
            }
            self.claims.insert(full.clone(), Claim { span, explicit: false });
            return full;
        }
    }

    /// Opens a scope; `reuse` as for a further application of a shared layer.
    pub fn enter(&mut self, path: String, reuse: bool) {
        let reuse = reuse || self.reuse();
        self.scopes.push(NameScope { path, counters: HashMap::new(), reuse });
    }

    /// Closes it.
    pub fn leave(&mut self) {
        self.scopes.pop();
    }
}
