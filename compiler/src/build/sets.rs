//! `--set name=text`: values for parameters, converted to the type of their default.

use super::values::Value;

/// The value of `text` for a parameter with that default.
///
/// # Errors
/// What was expected, where the text is not that.
pub(super) fn convert(text: &str, default: Option<&Value>) -> Result<Value, String> {
    let text = text.trim();
    match default {
        Some(Value::Int(n)) => {
            text.parse().map(Value::Int).map_err(|_| format!("expected an integer such as {n}"))
        }
        Some(Value::Float(x)) => text
            .parse()
            .ok()
            .filter(|x: &f64| x.is_finite())
            .map(Value::Float)
            .ok_or_else(|| format!("expected a number such as {x:?}")),
        Some(Value::Bool(_)) => {
            text.parse().map(Value::Bool).map_err(|_| "expected `true` or `false`".to_string())
        }
        Some(Value::Str(_)) => Ok(Value::string(text)),
        Some(Value::Pair(h, w)) => size(text).ok_or_else(|| format!("expected a size such as {h}x{w}")),
        Some(Value::List(items)) => {
            let inner = text.strip_prefix('[').and_then(|t| t.strip_suffix(']')).unwrap_or(text);
            let parts: Vec<&str> = inner.split(',').map(str::trim).filter(|p| !p.is_empty()).collect();
            let parts: Result<Vec<Value>, String> =
                parts.into_iter().map(|p| convert(p, items.first())).collect();
            parts.map(Value::list).map_err(|e| format!("in a list: {e}"))
        }
        _ => Ok(guess(text)),
    }
}

/// The value that a text looks like.
fn guess(text: &str) -> Value {
    if let Ok(n) = text.parse() {
        return Value::Int(n);
    }
    if let Some(x) = text.parse().ok().filter(|x: &f64| x.is_finite()) {
        return Value::Float(x);
    }
    match text {
        "true" => Value::Bool(true),
        "false" => Value::Bool(false),
        "none" => Value::None,
        _ if text.starts_with('[') => {
            convert(text, Some(&Value::list(vec![]))).unwrap_or_else(|_| Value::string(text))
        }
        _ => size(text).unwrap_or_else(|| Value::string(text)),
    }
}

fn size(text: &str) -> Option<Value> {
    let (h, w) = text.split_once('x').unwrap_or((text, text));
    Some(Value::Pair(h.parse().ok()?, w.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::{Value, convert};
    use crate::graph::Graph;

    fn shown(text: &str, default: Option<Value>) -> String {
        let g = Graph::new("");
        convert(text, default.as_ref()).map_or_else(|e| format!("error: {e}"), |v| v.describe(&g))
    }

    #[test]
    fn texts_become_the_type_of_the_default() {
        assert_eq!(shown("1.1", Some(Value::string("1.0"))), "the string \"1.1\"");
        assert_eq!(shown("18", Some(Value::Int(50))), "the integer 18");
        assert_eq!(shown("many", Some(Value::Int(50))), "error: expected an integer such as 50");
        assert_eq!(shown("1", Some(Value::Float(0.5))), "the number 1.0");
        assert_eq!(shown("5x7", Some(Value::Pair(3, 3))), "the size 5x7");
        assert_eq!(shown("1, 2", Some(Value::list(vec![Value::Int(0)]))), "a list of 2");
        assert_eq!(shown("yes", Some(Value::Bool(true))), "error: expected `true` or `false`");
        assert_eq!(shown("2.5", None), "the number 2.5");
    }
}
