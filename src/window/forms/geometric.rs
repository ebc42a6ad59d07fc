//! Points and shapes of points: geo_ops.c. Every coordinate is a `float8`.

use crate::error::Result;
use crate::window::float::render_float8;
use crate::window::reader::Reader;
use crate::window::scalar::bad_value;

/// Bytes of a point.
const POINT_BYTES: usize = 16;

/// A binary `point`: x and y.
pub(crate) fn point(v: &[u8]) -> Result<(f64, f64)> {
    let mut reader = Reader::new(v, "point");
    let point = (reader.f64()?, reader.f64()?);
    reader.end()?;
    Ok(point)
}

/// A `point` in text: `(1,-0.5)`.
pub(crate) fn point_of_text(v: &[u8]) -> Result<(f64, f64)> {
    let bad = || bad_value("point");
    let text = str::from_utf8(v).map_err(|_| bad())?;
    let inside = text.strip_prefix('(').and_then(|t| t.strip_suffix(')')).ok_or_else(bad)?;
    let (x, y) = inside.split_once(',').ok_or_else(bad)?;
    Ok((x.parse().map_err(|_| bad())?, y.parse().map_err(|_| bad())?))
}

/// Appends the text of a binary `point`.
pub(crate) fn render_point(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "point");
    push_points(&mut reader, 1, out)?;
    reader.end()
}

/// `{A,B,C}`.
pub(super) fn line(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "line");
    for before in *b"{,," {
        out.push(before);
        render_float8(reader.f64()?, out);
    }
    out.push(b'}');
    reader.end()
}

/// `[(x,y),(x,y)]`.
pub(super) fn segment(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "lseg");
    out.push(b'[');
    push_points(&mut reader, 2, out)?;
    out.push(b']');
    reader.end()
}

/// `(x,y),(x,y)`: upper right, lower left.
pub(super) fn rectangle(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "box");
    push_points(&mut reader, 2, out)?;
    reader.end()
}

/// `((x,y),...)` where it is closed, `[(x,y),...]` where it is open.
pub(super) fn path(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "path");
    let closed = reader.u8()? != 0;
    let count = reader.count(POINT_BYTES)?;
    out.push(if closed { b'(' } else { b'[' });
    push_points(&mut reader, count, out)?;
    out.push(if closed { b')' } else { b']' });
    reader.end()
}

/// `((x,y),...)`.
pub(super) fn polygon(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "polygon");
    let count = reader.count(POINT_BYTES)?;
    out.push(b'(');
    push_points(&mut reader, count, out)?;
    out.push(b')');
    reader.end()
}

/// `<(x,y),r>`.
pub(super) fn circle(v: &[u8], out: &mut Vec<u8>) -> Result<()> {
    let mut reader = Reader::new(v, "circle");
    out.push(b'<');
    push_points(&mut reader, 1, out)?;
    out.push(b',');
    render_float8(reader.f64()?, out);
    out.push(b'>');
    reader.end()
}

fn push_points(reader: &mut Reader<'_>, count: usize, out: &mut Vec<u8>) -> Result<()> {
    for n in 0..count {
        out.extend_from_slice(if n > 0 { b",(" } else { b"(" });
        render_float8(reader.f64()?, out);
        out.push(b',');
        render_float8(reader.f64()?, out);
        out.push(b')');
    }
    Ok(())
}
