//! Types whose values have a fixed width in Arrow: from the binary and the text form to one number.
//!
//! Sources: the send and output functions of each type in postgres/src/backend/utils/adt. The
//! mapping is `docs/types.md`.

use std::marker::PhantomData;
use std::str::FromStr;

use arrow_array::ArrowPrimitiveType;
use arrow_array::types::{
    Date32Type, Decimal128Type, Float32Type, Float64Type, Int32Type, Int64Type,
    Time64MicrosecondType, TimestampMicrosecondType,
};

use super::{datetime, numeric};
use crate::error::{Error, Kind, Result};

/// One Postgres type as numbers of one Arrow type. `None` is a value that the Arrow type can't
/// hold.
pub(crate) trait Scalar {
    /// The Arrow type.
    type Arrow: ArrowPrimitiveType;

    /// From the type's send function. `BAD_VALUE` where it isn't such a form.
    fn binary(&self, v: &[u8]) -> Result<Option<Native<Self>>>;

    /// From the type's output function, under the pinned settings. `BAD_VALUE` as above.
    fn text(&self, text: &str) -> Result<Option<Native<Self>>>;
}

/// The number that an Arrow array of the type holds.
pub(crate) type Native<S> = <<S as Scalar>::Arrow as ArrowPrimitiveType>::Native;

/// A value that its Postgres type cannot have sent.
#[cold]
pub(crate) fn bad_value(type_name: &str) -> Error {
    Error::new(
        Kind::Table,
        "BAD_VALUE",
        format!("a value is not a {type_name} as Postgres sends it"),
    )
    .with_cure("resync the table; if it repeats, report it with the column's type")
}

/// Exactly `N` bytes.
#[inline(always)]
pub(crate) fn exact<const N: usize>(v: &[u8], type_name: &str) -> Result<[u8; N]> {
    v.try_into().map_err(|_| bad_value(type_name))
}

/// A text form that Rust reads as Postgres writes it.
fn parse<T: FromStr>(text: &str, type_name: &str) -> Result<T> {
    text.parse().map_err(|_| bad_value(type_name))
}

/// `bool`: one byte, `t` or `f`.
#[inline(always)]
pub(crate) fn boolean(v: &[u8]) -> Result<bool> {
    match v {
        [0] => Ok(false),
        [1] => Ok(true),
        _ => Err(bad_value("bool")),
    }
}

/// As [`boolean`], from text.
pub(crate) fn boolean_of_text(text: &[u8]) -> Result<bool> {
    match text {
        b"f" => Ok(false),
        b"t" => Ok(true),
        _ => Err(bad_value("bool")),
    }
}

/// A number sent as `W` and stored as the Arrow type `A`, which holds all of them.
pub(crate) struct Plain<W, A>(PhantomData<(W, A)>);

impl<W, A> Plain<W, A> {
    /// There is nothing to set.
    pub(crate) const NEW: Self = Self(PhantomData);
}

macro_rules! plain {
    ($wire:ty, $arrow:ty, $name:literal) => {
        impl Scalar for Plain<$wire, $arrow> {
            type Arrow = $arrow;

            #[inline(always)]
            fn binary(&self, v: &[u8]) -> Result<Option<Native<Self>>> {
                Ok(Some(<$wire>::from_be_bytes(exact(v, $name)?).into()))
            }

            fn text(&self, text: &str) -> Result<Option<Native<Self>>> {
                Ok(Some(parse::<$wire>(text, $name)?.into()))
            }
        }
    };
}

plain!(i16, Int32Type, "int2");
plain!(i32, Int32Type, "int4");
plain!(i64, Int64Type, "int8");
plain!(u32, Int64Type, "oid");
plain!(u64, Decimal128Type, "xid8");
plain!(f32, Float32Type, "float4");
plain!(f64, Float64Type, "float8");

/// `numeric(p,s)`.
pub(crate) struct Decimal {
    /// Digits in all.
    pub(crate) precision: u8,
    /// Digits after the point.
    pub(crate) scale: i8,
}

impl Scalar for Decimal {
    type Arrow = Decimal128Type;

    #[inline(always)]
    fn binary(&self, v: &[u8]) -> Result<Option<i128>> {
        numeric::decimal(v, self.precision, self.scale)
    }

    fn text(&self, text: &str) -> Result<Option<i128>> {
        numeric::decimal_of_text(text, self.precision, self.scale)
    }
}

/// `money`: units of the smallest coin.
pub(crate) struct Money;

impl Scalar for Money {
    type Arrow = Decimal128Type;

    #[inline(always)]
    fn binary(&self, v: &[u8]) -> Result<Option<i128>> {
        Ok(Some(i64::from_be_bytes(exact(v, "money")?).into()))
    }

    fn text(&self, text: &str) -> Result<Option<i128>> {
        numeric::money_of_text(text).map(|units| Some(units.into()))
    }
}

macro_rules! temporal {
    ($name:ident, $arrow:ty, $binary:path, $text:path, $doc:literal) => {
        #[doc = $doc]
        pub(crate) struct $name;

        impl Scalar for $name {
            type Arrow = $arrow;

            #[inline(always)]
            fn binary(&self, v: &[u8]) -> Result<Option<Native<Self>>> {
                $binary(v)
            }

            fn text(&self, text: &str) -> Result<Option<Native<Self>>> {
                $text(text)
            }
        }
    };
}

temporal!(Date, Date32Type, datetime::date, datetime::date_of_text, "`date`: days since 1970.");
temporal!(
    Time,
    Time64MicrosecondType,
    datetime::time,
    datetime::time_of_text,
    "`time`: microseconds since midnight."
);
temporal!(
    Timestamp,
    TimestampMicrosecondType,
    datetime::timestamp,
    datetime::timestamp_of_text,
    "`timestamp` and, in UTC, `timestamptz`: microseconds since 1970."
);
