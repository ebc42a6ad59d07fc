//! What the targets are fed with: sound inputs, and what becomes of them by mutation.

use frazil::postgres::pgoutput::{Message, OldTuple, Tuple, WireColumn, WireRelation};
use frazil::progress::Lsn;
use rand::Rng;
use rand::rngs::StdRng;
use rand::seq::IndexedRandom;

use super::targets::types;

/// A sound input of the target.
pub(super) fn sound(target: &str, r: &mut StdRng) -> Vec<u8> {
    match target {
        "pgoutput" if r.random() => [vec![0], messages(r).choose(r).unwrap().0.clone()].concat(),
        "pgoutput" => (0..r.random_range(1..5))
            .fold(vec![1], |stream, _| [stream, frame(&messages(r).choose(r).unwrap().0)].concat()),
        "copy_binary" => copy(r),
        "numeric" => numeric(r),
        "arrays" => {
            let element = r.random_range(0..types().len());
            let scalars = types().len() / 2;
            [vec![u8::try_from(element % scalars).unwrap()], array(r, element % scalars)].concat()
        }
        "text_values" => {
            [vec![r.random()], SEEDS_OF_TEXT.choose(r).unwrap().as_bytes().to_vec()].concat()
        }
        _ => SEEDS_OF_CONFIG.choose(r).unwrap().as_bytes().to_vec(),
    }
}

const SEEDS_OF_TEXT: [&str; 24] = [
    "-12.50",
    "NaN",
    "-Infinity",
    "1.7976931348623157e+308",
    "5e-324",
    "t",
    "2024-02-29",
    "4714-11-24 BC",
    "infinity",
    "294276-12-31 23:59:59.999999+00",
    "2000-01-01 00:00:00.1-15:59:59",
    "24:00:00",
    "12:00:00.123456+05:30",
    "-1 years -2 mons +3 days -04:05:06.789",
    "\\x00ff",
    "00000000-0000-4000-8000-00000000000a",
    "{1,NULL,-3}",
    "[0:1]={7,8}",
    "{{1,2},{3,4}}",
    "{\"a\\\"b\",\"\",NULL,\"NULL\"}",
    "{\"2000-01-01 00:00:00+00\",infinity}",
    "{\"b\": 1e400, \"a\": [null]}",
    "18446744073709551615",
    "99999999999999999999999999999999999999",
];

const SEEDS_OF_CONFIG: [&str; 9] = [
    include_str!("../../docs/frazil.yaml"),
    "source: {url: 'postgres://u:p@h:5432/db?sslmode=require'}\nlake: {into: /tmp/l}\ncommit: {interval: 5s}\n",
    "a: &a [x, x]\nb: &b [*a, *a]\nc: [*b, *b]\n",
    "postgres://user:p%40ss@[::1]:5432,h2:1/db?sslmode=verify-full&options=-c%20a%3Db",
    "host=/tmp port=5432 user='a b' password='q\\'x' dbname=d sslmode=disable",
    "public.*,!public.secret_*,\"odd schema\".\"t\"\"x\"",
    "16/B374D848",
    "COMMIT__INTERVAL=5s\nSOURCE__URL=postgres://h/d\nLAKE__INTO=/tmp/l\nMEMORY__WINDOW_BYTES_MAX=1GiB",
    "catalog: {uri: 'http://127.0.0.1:19120/iceberg', warehouse: w}\nstorage: {region: r}\n",
];

/// A few changes that break the shape: cut, lengths and counts that lie, bytes that are no UTF-8,
/// parts that are doubled or gone.
pub(super) fn mutate(r: &mut StdRng, bytes: &mut Vec<u8>) {
    const WORDS: [u32; 8] = [u32::MAX, 0x7fff_ffff, 0x8000_0000, 0, 1, 0x00ff_ffff, 0x4000_0000, 7];
    for _ in 0..r.random_range(1..5) {
        let at = r.random_range(0..=bytes.len());
        let to = (at + r.random_range(0..12)).min(bytes.len());
        match r.random_range(0..9) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..to)),
            2 => drop(bytes.splice(at..at, bytes[at..to].to_vec())),
            3 => drop(bytes.splice(at..to, WORDS.choose(r).unwrap().to_be_bytes())),
            4 => drop(bytes.splice(at..to, r.random::<u16>().to_be_bytes())),
            5 => drop(bytes.splice(at..to, *b"\xff\xc3(")),
            6 => drop(bytes.splice(at..at, (0..8).map(|_| r.random::<u8>()))),
            7 => drop(bytes.splice(at..at, SEEDS_OF_TEXT.choose(r).unwrap().bytes())),
            _ => {
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << r.random_range(0..8);
                }
            }
        }
    }
}

/// CopyData with XLogData in it.
fn frame(pgoutput: &[u8]) -> Vec<u8> {
    let length = u32::try_from(pgoutput.len() + 29).unwrap();
    [&b"d"[..], &length.to_be_bytes(), b"w", &[3; 24], pgoutput].concat()
}

/// A message in the making.
#[derive(Default)]
struct Wire(Vec<u8>);

impl Wire {
    fn of(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
        [&[tag][..], &parts.concat()].concat()
    }

    fn tuple(&mut self, r: &mut StdRng) -> Tuple {
        let columns = r.random_range(0..6_u16);
        self.0.extend(columns.to_be_bytes());
        let at = u32::try_from(self.0.len()).unwrap();
        for _ in 0..columns {
            match r.random_range(0..4) {
                0 => self.0.push(b'n'),
                1 => self.0.push(b'u'),
                kind => {
                    let value = random_bytes(r, 9);
                    self.0.push(if kind == 2 { b't' } else { b'b' });
                    self.0.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
                    self.0.extend(value);
                }
            }
        }
        Tuple { at, columns }
    }
}

fn random_bytes(r: &mut StdRng, most: usize) -> Vec<u8> {
    (0..r.random_range(0..=most)).map(|_| r.random()).collect()
}

/// One message of each kind that has no tuple, and some that have: the bytes and what they say.
pub(super) fn messages(r: &mut StdRng) -> Vec<(Vec<u8>, Message)> {
    let (one, two, time_us, xid): (u64, u64, i64, u32) = r.random();
    let (a, b, t, x) =
        (one.to_be_bytes(), two.to_be_bytes(), time_us.to_be_bytes(), xid.to_be_bytes());
    let (one, two) = (Lsn(one), Lsn(two));
    let gid = || "gid".to_owned();
    let mut all = changes(r);
    all.extend([
        (
            Wire::of(b'B', &[&a, &t, &x]),
            Message::Begin { final_lsn: one, commit_time_us: time_us, xid },
        ),
        (
            Wire::of(b'C', &[&[0], &a, &b, &t]),
            Message::Commit { commit_lsn: one, end_lsn: two, commit_time_us: time_us },
        ),
        (Wire::of(b'O', &[&a, b"gid\0"]), Message::Origin { commit_lsn: one, name: gid() }),
        (
            Wire::of(b'Y', &[&x, b"\0gid\0"]),
            Message::Type { oid: xid, namespace: String::new(), name: gid() },
        ),
        (
            Wire::of(b'T', &[&[0, 0, 0, 2, 3], &x, &x]),
            Message::Truncate { oids: vec![xid; 2], cascade: true, restart_identity: true },
        ),
        (
            Wire::of(b'M', &[&[1], &a, b"gid\0", &[0, 0, 0, 3], b"\xff\x00x"]),
            Message::LogicalMessage {
                transactional: true,
                lsn: one,
                prefix: 10..13,
                content: 18..21,
            },
        ),
        (Wire::of(b'R', &[&x, b"s\0t\0f", &[0, 1, 1], b"c\0", &x, &[0xff; 4]]), relation(xid)),
        (Wire::of(b'S', &[&x, &[1]]), Message::StreamStart { xid, first: true }),
        (Wire::of(b'E', &[]), Message::StreamStop),
        (
            Wire::of(b'c', &[&x, &[0], &a, &b, &t]),
            Message::StreamCommit { xid, commit_lsn: one, end_lsn: two, commit_time_us: time_us },
        ),
        (Wire::of(b'A', &[&x, &x]), Message::StreamAbort { xid, subxid: xid }),
    ]);
    all
}

fn relation(oid: u32) -> Message {
    let column = WireColumn { key: true, name: "c".to_owned(), type_oid: oid, typmod: -1 };
    let (namespace, name) = ("s".to_owned(), "t".to_owned());
    Message::Relation(WireRelation { oid, namespace, name, identity: b'f', columns: vec![column] })
}

/// INSERT, UPDATE in its three forms, DELETE.
fn changes(r: &mut StdRng) -> Vec<(Vec<u8>, Message)> {
    let mut all = Vec::new();
    for form in 0..5 {
        let oid: u32 = r.random();
        let mut wire = Wire(vec![if form == 0 {
            b'I'
        } else if form < 4 {
            b'U'
        } else {
            b'D'
        }]);
        wire.0.extend(oid.to_be_bytes());
        let old = match form {
            2 | 4 => Some((b'K', OldTuple::Key)),
            3 => Some((b'O', OldTuple::Full)),
            _ => None,
        };
        let old = old.map(|(tag, kind)| {
            wire.0.push(tag);
            (kind, wire.tuple(r))
        });
        let message = match (form, old) {
            (4, Some(old)) => Message::Delete { oid, old },
            (form, old) => {
                wire.0.push(b'N');
                let new = wire.tuple(r);
                if form == 0 {
                    Message::Insert { oid, new }
                } else {
                    Message::Update { oid, old, new }
                }
            }
        };
        all.push((wire.0, message));
    }
    all
}

/// Binary values, by the index of their type in [`types`]: right in length, for the most part in
/// content too.
fn value(r: &mut StdRng, t: usize) -> Vec<u8> {
    match t {
        0 => vec![r.random_range(0..2)],
        1 => r.random::<i16>().to_be_bytes().to_vec(),
        2 | 4 | 6 | 16 => r.random::<u32>().to_be_bytes().to_vec(),
        8..=12 => numeric(r),
        13 => SEEDS_OF_TEXT.choose(r).unwrap().as_bytes().to_vec(),
        14 => b"\x01{\"a\": 1}".to_vec(),
        17 => r.random_range(0..=86_400_000_000_i64).to_be_bytes().to_vec(),
        18 => {
            let zone = r.random_range(-57_599..57_600_i32).to_be_bytes();
            [&r.random_range(0..86_400_000_000_i64).to_be_bytes()[..], &zone].concat()
        }
        3 | 5 | 7 | 19 | 20 => r.random::<u64>().to_be_bytes().to_vec(),
        21 | 22 => (0..16).map(|_| r.random()).collect(),
        _ => random_bytes(r, 20),
    }
}

/// numeric's binary form: digits to the base of 10,000, weight, sign, scale.
fn numeric(r: &mut StdRng) -> Vec<u8> {
    let digits: Vec<u16> = (0..r.random_range(0..12)).map(|_| r.random_range(0..10_000)).collect();
    let weight = r.random_range(-12..12_i16);
    let sign = *[0_u16, 0, 0, 0x4000, 0x4000, 0xC000, 0xD000, 0xF000].choose(r).unwrap();
    let scale = r.random_range(0..40_u16);
    let head = [u16::try_from(digits.len()).unwrap(), weight.cast_unsigned(), sign, scale];
    head.into_iter().chain(digits).flat_map(u16::to_be_bytes).collect()
}

fn array(r: &mut StdRng, element: usize) -> Vec<u8> {
    let dimensions = *[1_u32, 1, 1, 1, 2, 0].choose(r).unwrap();
    let length = r.random_range(0..4_u32);
    let mut bytes: Vec<u8> = [dimensions, 1, 25].into_iter().flat_map(u32::to_be_bytes).collect();
    for _ in 0..dimensions {
        bytes.extend([length, r.random_range(0..2)].into_iter().flat_map(u32::to_be_bytes));
    }
    let count = if dimensions == 0 { 0 } else { length.pow(dimensions) };
    for _ in 0..count {
        field(r, element, &mut bytes);
    }
    bytes
}

/// As in COPY: a length, or -1 for NULL, and the value.
fn field(r: &mut StdRng, t: usize, bytes: &mut Vec<u8>) {
    if r.random_range(0..8) == 0 {
        return bytes.extend([0xff; 4]);
    }
    let scalars = types().len() / 2;
    let value = if t < scalars { value(r, t) } else { array(r, t - scalars) };
    bytes.extend(u32::try_from(value.len()).unwrap().to_be_bytes());
    bytes.extend(value);
}

fn copy(r: &mut StdRng) -> Vec<u8> {
    let count = r.random_range(1..=8_u8);
    let types: Vec<u8> =
        (0..count).map(|_| r.random_range(0..u8::try_from(types().len()).unwrap())).collect();
    let mut bytes = [&[count - 1][..], &types].concat();
    for _ in 0..r.random_range(0..4) {
        bytes.extend([0, count]);
        types.iter().for_each(|&t| field(r, t.into(), &mut bytes));
    }
    bytes.extend([0xff, 0xff]);
    bytes
}
