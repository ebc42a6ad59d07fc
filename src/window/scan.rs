//! A reader of short ASCII texts of fixed shape, as Postgres's output functions write them.

use super::scalar::bad_value;
use crate::error::{Error, Result};

/// What is left of a text of one type.
pub(crate) struct Scan<'a> {
    rest: &'a [u8],
    type_name: &'static str,
}

impl<'a> Scan<'a> {
    /// From the beginning of `text`; `type_name` is for the error.
    pub(crate) fn new(text: &'a str, type_name: &'static str) -> Self {
        Self { rest: text.as_bytes(), type_name }
    }

    /// `BAD_VALUE` for this type.
    pub(crate) fn bad(&self) -> Error {
        bad_value(self.type_name)
    }

    /// Takes `byte` if it comes next.
    pub(crate) fn eat(&mut self, byte: u8) -> bool {
        self.eat_all(&[byte])
    }

    /// Takes `bytes` if they come next.
    pub(crate) fn eat_all(&mut self, bytes: &[u8]) -> bool {
        let rest = self.rest.strip_prefix(bytes);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    /// Takes `byte`, which has to come next.
    pub(crate) fn expect(&mut self, byte: u8) -> Result<()> {
        if self.eat(byte) { Ok(()) } else { Err(self.bad()) }
    }

    /// Takes a number of `min` to `max` (at most 18) places.
    pub(crate) fn number(&mut self, min: usize, max: usize) -> Result<i64> {
        let places = self.rest.iter().take_while(|b| b.is_ascii_digit()).count();
        let Some((digits, rest)) = self.rest.split_at_checked(places) else {
            return Err(self.bad());
        };
        if places < min || places > max {
            return Err(self.bad());
        }
        self.rest = rest;
        Ok(digits.iter().fold(0, |n, b| n * 10 + i64::from(b - b'0')))
    }

    /// Takes one to six places after a point, as microseconds.
    pub(crate) fn fraction(&mut self) -> Result<i64> {
        let before = self.rest.len();
        let number = self.number(1, 6)?;
        let missing = 6_usize.saturating_sub(before - self.rest.len());
        Ok((0..missing).fold(number, |n, _| n * 10))
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.bad()) }
    }
}
