//! A reader of the binary form of one value: numbers, most significant byte first.

use super::scalar::bad_value;
use super::wire::size;
use crate::error::Result;

/// What is left of a value of one type. Reading past the end is `BAD_VALUE`.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    type_name: &'static str,
}

impl<'a> Reader<'a> {
    /// From the beginning of `v`; `type_name` is for the error.
    pub(crate) fn new(v: &'a [u8], type_name: &'static str) -> Self {
        Self { rest: v, type_name }
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (first, rest) =
            self.rest.split_first_chunk().ok_or_else(|| bad_value(self.type_name))?;
        self.rest = rest;
        Ok(*first)
    }

    pub(crate) fn u8(&mut self) -> Result<u8> {
        self.array().map(u8::from_be_bytes)
    }

    pub(crate) fn u16(&mut self) -> Result<u16> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64> {
        self.array().map(u64::from_be_bytes)
    }

    pub(crate) fn f32(&mut self) -> Result<f32> {
        self.array().map(f32::from_be_bytes)
    }

    pub(crate) fn f64(&mut self) -> Result<f64> {
        self.array().map(f64::from_be_bytes)
    }

    /// A count in 32 bits of things of at least `bytes` bytes each, which are all there.
    pub(crate) fn count(&mut self, bytes: usize) -> Result<usize> {
        let count = size(self.u32()?);
        let fits = count.checked_mul(bytes).is_some_and(|all| all <= self.rest.len());
        // Bits stand eight to a byte.
        let fits = fits && (bytes > 0 || count / 8 <= self.rest.len());
        if fits { Ok(count) } else { Err(bad_value(self.type_name)) }
    }

    /// The next `count` bytes.
    pub(crate) fn take(&mut self, count: usize) -> Result<&'a [u8]> {
        let split = self.rest.split_at_checked(count);
        let (taken, rest) = split.ok_or_else(|| bad_value(self.type_name))?;
        self.rest = rest;
        Ok(taken)
    }

    /// A length in 32 bits and that many bytes; None where the length is -1.
    pub(crate) fn value(&mut self) -> Result<Option<&'a [u8]>> {
        match self.u32()? {
            u32::MAX => Ok(None),
            length => self.take(size(length)).map(Some),
        }
    }

    /// Bytes up to a zero, which is taken as well.
    pub(crate) fn c_string(&mut self) -> Result<&'a [u8]> {
        let end = self.rest.iter().position(|&b| b == 0);
        let text = self.take(end.ok_or_else(|| bad_value(self.type_name))?)?;
        self.take(1).map(|_| text)
    }

    /// All that is left.
    pub(crate) fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.rest)
    }

    /// Nothing may be left.
    pub(crate) fn end(&self) -> Result<()> {
        if self.rest.is_empty() { Ok(()) } else { Err(bad_value(self.type_name)) }
    }
}
