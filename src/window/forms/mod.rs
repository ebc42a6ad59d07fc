//! The text of types that are stored as text, from their binary form: the same bytes as the output
//! function gives, so that binary mode, text mode and COPY agree to the byte.
//!
//! Sources: the send and output functions in postgres/src/backend/utils/adt and in the extensions.

mod geometric;
mod network;
mod range;
mod search;
pub(crate) mod vector;

pub(crate) use geometric::{point, point_of_text, render_point};
pub(crate) use range::{Range, RangeText, is_space, push_quoted, render_range};

use crate::error::Result;
use crate::window::array::Array;
use crate::window::reader::Reader;
use crate::window::relation::{PgType, TextForm};
use crate::window::render::render;
use crate::window::scalar::{bad_value, exact};

/// Appends the text of `v`, a value of a type with the text form `form`.
pub(crate) fn render_form(form: &TextForm, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    match form {
        TextForm::Bits => bits(v, out),
        TextForm::Network => network::network(v, out),
        TextForm::Mac => network::mac(v, out),
        TextForm::Lsn => lsn(v, out),
        TextForm::Tid => tid(v, out),
        TextForm::Line => geometric::line(v, out),
        TextForm::Segment => geometric::segment(v, out),
        TextForm::Box => geometric::rectangle(v, out),
        TextForm::Path => geometric::path(v, out),
        TextForm::Polygon => geometric::polygon(v, out),
        TextForm::Circle => geometric::circle(v, out),
        TextForm::Words(element) => words(element, v, out),
        TextForm::TsVector => search::tsvector(v, out),
        TextForm::TsQuery => search::tsquery(v, out),
        TextForm::Versioned => versioned(v, out),
        TextForm::Snapshot => snapshot(v, out),
        TextForm::SparseVector => vector::sparse(v, out),
        TextForm::Range(element) => render_range(element, v, out),
        TextForm::Multirange(element) => range::multirange(element, v, out),
    }
}

/// varbit.c: the count of bits, then the bits, the most significant first.
fn bits(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "bit");
    let count = reader.count(0)?;
    let bytes = reader.rest();
    if bytes.len() != count.div_ceil(8) {
        return Err(bad_value("bit"));
    }
    let all = bytes.iter().flat_map(|byte| (0..8).rev().map(move |n| b'0' + (byte >> n & 1)));
    out.extend(all.take(count));
    Ok(())
}

/// The boolean of a `bit(1)`.
pub(crate) fn bit(v: &[u8]) -> Result<bool> {
    match v {
        [0, 0, 0, 1, byte] => Ok(byte & 0x80 != 0),
        _ => Err(bad_value("bit(1)")),
    }
}

/// pg_lsn.c.
fn lsn(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let lsn = u64::from_be_bytes(exact(v, "pg_lsn")?);
    out.extend_from_slice(format!("{:X}/{:X}", lsn >> 32, lsn & 0xffff_ffff).as_bytes());
    Ok(())
}

/// tid.c.
fn tid(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "tid");
    let (block, item) = (reader.u32()?, reader.u16()?);
    reader.end()?;
    out.extend_from_slice(format!("({block},{item})").as_bytes());
    Ok(())
}

/// int.c, oid.c: `1 2 3`.
fn words(element: &PgType, v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut first = true;
    Array::read(v)?.try_each(|word| {
        if !std::mem::take(&mut first) {
            out.push(b' ');
        }
        render(element, word.ok_or_else(|| bad_value("vector"))?, out).map(|()| true)
    })?;
    Ok(())
}

/// Version 1, then the text.
pub(crate) fn versioned(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    out.extend_from_slice(v.strip_prefix(&[1]).ok_or_else(|| bad_value("versioned text"))?);
    Ok(())
}

/// xid8funcs.c: `xmin:xmax:xid,xid`.
fn snapshot(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "pg_snapshot");
    let count = reader.count(0)?;
    out.extend_from_slice(format!("{}:{}:", reader.u64()?, reader.u64()?).as_bytes());
    for n in 0..count {
        let comma = if n > 0 { "," } else { "" };
        out.extend_from_slice(format!("{comma}{}", reader.u64()?).as_bytes());
    }
    reader.end()
}
