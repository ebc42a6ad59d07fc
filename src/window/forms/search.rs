//! Full-text search: tsvector.c, tsquery.c.

use crate::error::Result;
use crate::window::reader::Reader;
use crate::window::scalar::bad_value;

/// Appends `'lexeme':1A,2 'other'`: words, each with its positions (14 bits) and weights (2 bits; D
/// is not shown).
pub(super) fn tsvector(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "tsvector");
    let count = reader.count(3)?;
    for n in 0..count {
        if n > 0 {
            out.push(b' ');
        }
        push_lexeme(reader.c_string()?, out);
        for place in 0..reader.u16()? {
            out.push(if place == 0 { b':' } else { b',' });
            let entry = reader.u16()?;
            out.extend_from_slice((entry & 0x3fff).to_string().as_bytes());
            match entry >> 14 {
                3 => out.push(b'A'),
                2 => out.push(b'B'),
                1 => out.push(b'C'),
                _ => {}
            }
        }
    }
    reader.end()
}

/// In quotes; quotes and backslashes twice.
fn push_lexeme(text: &[u8], out: &mut Vec<u8>) {
    out.push(b'\'');
    for &byte in text {
        if matches!(byte, b'\'' | b'\\') {
            out.push(byte);
        }
        out.push(byte);
    }
    out.push(b'\'');
}

const VALUE: u8 = 1;
const OPERATOR: u8 = 2;
const NOT: u8 = 1;
const AND: u8 = 2;
const OR: u8 = 3;
const PHRASE: u8 = 4;

/// A part of a query with the operator at its top.
struct Part {
    text: Vec<u8>,
    operator: Option<u8>,
}

impl Part {
    /// With the parentheses it needs below `parent`. A phrase to the right of a phrase needs them
    /// too.
    fn below(self, parent: u8, right: bool) -> Vec<u8> {
        let Some(operator) = self.operator else { return self.text };
        let weaker = priority(operator) < priority(parent);
        if weaker || (right && parent == PHRASE && operator == PHRASE) {
            return [b"( ".as_slice(), &self.text, b" )"].concat();
        }
        self.text
    }
}

fn priority(operator: u8) -> u8 {
    match operator {
        NOT => 4,
        PHRASE => 3,
        AND => 2,
        _ => 1,
    }
}

/// What stands in one item of the wire's list.
enum Item<'a> {
    Value { weights: u8, prefix: bool, text: &'a [u8] },
    Operator { operator: u8, distance: u16 },
}

/// Appends a query. On the wire operators come before their operands, the right one first; so from
/// its end the list is worked off with a stack.
pub(super) fn tsquery(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let bad = || bad_value("tsquery");
    let mut reader = Reader::new(v, "tsquery");
    let count = reader.count(2)?;
    let items = (0..count).map(|_| item(&mut reader)).collect::<Result<Vec<_>>>()?;
    reader.end()?;
    let mut stack: Vec<Part> = Vec::new();
    for item in items.into_iter().rev() {
        let part = match item {
            Item::Value { weights, prefix, text } => value(weights, prefix, text),
            Item::Operator { operator: NOT, .. } => {
                let operand = stack.pop().ok_or_else(bad)?.below(NOT, false);
                Part { text: [b"!".as_slice(), &operand].concat(), operator: Some(NOT) }
            }
            Item::Operator { operator, distance } => {
                let right = stack.pop().ok_or_else(bad)?.below(operator, true);
                let left = stack.pop().ok_or_else(bad)?.below(operator, false);
                joined(left, operator, distance, &right)
            }
        };
        stack.push(part);
    }
    match stack.pop() {
        Some(part) if stack.is_empty() => out.extend_from_slice(&part.text),
        None => {}
        Some(_) => return Err(bad()),
    }
    Ok(())
}

fn item<'a>(reader: &mut Reader<'a>) -> Result<Item<'a>> {
    match reader.u8()? {
        VALUE => {
            let (weights, prefix) = (reader.u8()?, reader.u8()? != 0);
            Ok(Item::Value { weights, prefix, text: reader.c_string()? })
        }
        OPERATOR => {
            let operator = reader.u8()?;
            let distance = if operator == PHRASE { reader.u16()? } else { 0 };
            match operator {
                NOT | AND | OR | PHRASE => Ok(Item::Operator { operator, distance }),
                _ => Err(bad_value("tsquery")),
            }
        }
        _ => Err(bad_value("tsquery")),
    }
}

fn value(weights: u8, prefix: bool, lexeme: &[u8]) -> Part {
    let mut text = Vec::new();
    push_lexeme(lexeme, &mut text);
    if weights != 0 || prefix {
        text.push(b':');
        text.extend(prefix.then_some(b'*'));
        let letters = [(8, b'A'), (4, b'B'), (2, b'C'), (1, b'D')];
        text.extend(letters.iter().filter(|(bit, _)| weights & bit != 0).map(|(_, letter)| letter));
    }
    Part { text, operator: None }
}

fn joined(left: Vec<u8>, operator: u8, distance: u16, right: &[u8]) -> Part {
    let mut text = left;
    match operator {
        AND => text.extend_from_slice(b" & "),
        OR => text.extend_from_slice(b" | "),
        _ if distance == 1 => text.extend_from_slice(b" <-> "),
        _ => text.extend_from_slice(format!(" <{distance}> ").as_bytes()),
    }
    text.extend_from_slice(right);
    Part { text, operator: Some(operator) }
}
