//! PTX text to tokens. Comments end here.

use crate::error::Error;

/// A piece of the text.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Token<'a> {
    /// A name, directive or opcode with its dots: `add.rn.f32`, `.reg`, `%tid.x`, `$L1`.
    Word(&'a str),
    /// A literal that starts with a digit.
    Number(&'a str),
    /// What stands between quotes.
    Text(&'a str),
    /// One other character.
    Mark(char),
    /// After the last.
    End,
}

impl std::fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Token::Word(t) | Token::Number(t) => write!(f, "`{t}`"),
            Token::Text(t) => write!(f, "\"{t}\""),
            Token::Mark(c) => write!(f, "`{c}`"),
            Token::End => f.write_str("the end of the text"),
        }
    }
}

fn error(line: u32, message: impl Into<String>) -> Error {
    Error::Parse { line, message: message.into() }
}

/// All tokens with their lines; the last is [`Token::End`].
pub(crate) fn tokens(text: &str) -> Result<Vec<(Token<'_>, u32)>, Error> {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let (mut at, mut line) = (0, 1);
    while at < bytes.len() {
        let rest = &bytes[at..];
        let length = match rest[0] {
            b'\n' => {
                line += 1;
                1
            }
            b' ' | b'\t' | b'\r' => 1,
            b'/' if rest.starts_with(b"//") => rest.iter().position(|&b| b == b'\n').unwrap_or(rest.len()),
            b'/' if rest.starts_with(b"/*") => {
                let end = rest[2..].windows(2).position(|w| w == b"*/");
                let length = end.ok_or_else(|| error(line, "the comment does not end"))? + 4;
                line += count_lines(&rest[..length]);
                length
            }
            b'"' => {
                let end = rest[1..].iter().position(|&b| b == b'"' || b == b'\n');
                let end = end
                    .filter(|&e| rest[e + 1] == b'"')
                    .ok_or_else(|| error(line, "the string does not end"))?;
                out.push((Token::Text(&text[at + 1..at + 1 + end]), line));
                end + 2
            }
            b'0'..=b'9' => {
                let length = number_length(rest);
                out.push((Token::Number(&text[at..at + length]), line));
                length
            }
            b if starts_word(b) => {
                let length = word_length(rest);
                out.push((Token::Word(&text[at..at + length]), line));
                length
            }
            b if b.is_ascii_graphic() => {
                out.push((Token::Mark(b as char), line));
                1
            }
            _ => return Err(error(line, "a character that PTX does not have")),
        };
        at += length;
    }
    out.push((Token::End, line));
    Ok(out)
}

fn count_lines(text: &[u8]) -> u32 {
    text.iter().filter(|&&b| b == b'\n').count() as u32
}

fn starts_word(b: u8) -> bool {
    b.is_ascii_alphabetic() || matches!(b, b'_' | b'$' | b'%' | b'.')
}

/// Words hold `::` (as in `.L2::128B`), but not the single colon behind a label.
fn word_length(text: &[u8]) -> usize {
    let mut i = 0;
    while i < text.len() {
        if text[i..].starts_with(b"::") {
            i += 2;
        } else if starts_word(text[i]) || text[i].is_ascii_digit() {
            i += 1;
        } else {
            break;
        }
    }
    i
}

fn number_length(text: &[u8]) -> usize {
    let decimal = !(text.len() > 1 && text[0] == b'0' && text[1].is_ascii_alphabetic());
    let mut i = 0;
    while i < text.len() {
        let b = text[i];
        let exponent_sign =
            decimal && matches!(b, b'+' | b'-') && i > 0 && matches!(text[i - 1], b'e' | b'E');
        if !(b.is_ascii_alphanumeric() || b == b'.' || exponent_sign) {
            break;
        }
        i += 1;
    }
    i
}

/// A literal's value.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Literal {
    Int(i128),
    /// `0f3F800000`: the bits of an f32.
    Single(u32),
    /// `1.5`, `0d3FF0000000000000`.
    Double(f64),
}

/// Reads a number token.
pub(crate) fn literal(text: &str) -> Option<Literal> {
    let digits = |from: usize, radix| {
        let digits = text.get(from..)?;
        let digits = digits.strip_suffix(['U', 'u']).unwrap_or(digits);
        u64::from_str_radix(digits, radix).ok().map(|v| Literal::Int(v.into()))
    };
    let exact = |length: usize| {
        let digits = text.get(2..)?;
        (digits.len() == length && digits.bytes().all(|b| b.is_ascii_hexdigit()))
            .then(|| u64::from_str_radix(digits, 16).ok())
            .flatten()
    };
    match text.get(..2) {
        Some("0x" | "0X") => digits(2, 16),
        Some("0b" | "0B") => digits(2, 2),
        Some("0f" | "0F") => exact(8).map(|v| Literal::Single(v as u32)),
        Some("0d" | "0D") => exact(16).map(|v| Literal::Double(f64::from_bits(v))),
        _ if text.contains(['.', 'e', 'E']) => text.parse().ok().map(Literal::Double),
        _ if text.len() > 1 && text.starts_with('0') && !text.ends_with(['U', 'u']) => digits(1, 8),
        _ => digits(0, 10),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_numbers_and_comments() {
        let text = "L1: @!%p bra.uni L1; // end\n/* a\nb */ ld.global.L2::128B.v4.f32 1e-3 0f3F800000";
        let found = tokens(text).unwrap();
        let words: Vec<String> = found.iter().map(|(t, l)| format!("{l}{t}")).collect();
        let expected = "1`L1` 1`:` 1`@` 1`!` 1`%p` 1`bra.uni` 1`L1` 1`;` 3`ld.global.L2::128B.v4.f32` 3`1e-3` \
                        3`0f3F800000`";
        assert_eq!(words[..words.len() - 1].join(" "), expected);
    }

    #[test]
    fn literals() {
        assert_eq!(literal("0x1F"), Some(Literal::Int(31)));
        assert_eq!(literal("017"), Some(Literal::Int(15)));
        assert_eq!(literal("42U"), Some(Literal::Int(42)));
        assert_eq!(literal("0f3F800000"), Some(Literal::Single(0x3f80_0000)));
        assert_eq!(literal("1e-3"), Some(Literal::Double(1e-3)));
        assert_eq!(literal("0f3F8"), None);
        assert_eq!(literal("12ab"), None);
    }
}
