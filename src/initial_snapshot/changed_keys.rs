//! The keys of all rows that changed between two positions, from the pipeline's own slot, which is
//! read and never acknowledged.
//!
//! ```text
//!   slot ──► BEGIN commit_lsn >= L1 ... < L2 ──► old and new keys, as text, once each ──► K
//! ```
//! Values come as text: so a key is also a literal of SQL. The stream has reached L2 when a source
//! transaction begins that commits there or later, or when the server says between two of them that
//! it has come so far. What a table needs to be told apart is small; one with too much of it is
//! given up, and copied from the beginning instead.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::timeout;

use crate::error::{Error, Result};
use crate::postgres::dsn::Source;
use crate::postgres::pgoutput::{self, Message, OldTuple, Tuple};
use crate::postgres::session::Session;
use crate::postgres::stream::{Frame, ReplicationStream, StreamOptions, next_frame};
use crate::progress::Lsn;
use crate::window::relation::Relation;
use crate::window::wire::{Field, Framing, WalTuple};

/// Silence after which the server is asked how far it is.
const ASK_AFTER: Duration = Duration::from_millis(200);
/// What a key costs in memory beside its bytes, about.
const KEY_OVERHEAD: usize = 48;

/// What is read.
pub(super) struct Gap<'a> {
    pub(super) source: &'a Source,
    pub(super) slot: &'a str,
    pub(super) publications: &'a [String],
    /// L1: source transactions that commit before are no business of ours.
    pub(super) from: Lsn,
    /// L2: neither are those that commit here or later.
    pub(super) to: Lsn,
    /// Bytes that all keys together may take.
    pub(super) bytes_max: usize,
    pub(super) max_message_bytes: usize,
}

/// What changed of one table.
#[derive(Debug)]
pub(super) enum Changed {
    /// Rows with these keys, and no others; the fields of a key behind each other, as in a tuple.
    Keys(HashSet<Box<[u8]>>),
    /// It can't be said which, because of this.
    All(&'static str),
}

impl Changed {
    /// Whether nothing did.
    pub(super) fn is_nothing(&self) -> bool {
        matches!(self, Self::Keys(keys) if keys.is_empty())
    }
}

/// Keys in the making.
struct Keys<'a> {
    relations: HashMap<u32, &'a Relation>,
    changed: HashMap<u32, Changed>,
    bytes: usize,
    bytes_max: usize,
}

impl Gap<'_> {
    /// Reads what changed of `relations`, by oid.
    ///
    /// # Errors
    /// Those of the connection and of decoding.
    pub(super) async fn read(
        &self,
        relations: impl Iterator<Item = &Relation>,
    ) -> Result<HashMap<u32, Changed>> {
        let relations: HashMap<u32, &Relation> = relations.map(|r| (r.oid, r)).collect();
        let nothing = |oid: &u32| (*oid, Changed::Keys(HashSet::new()));
        let changed = relations.keys().map(nothing).collect();
        let mut keys = Keys { relations, changed, bytes: 0, bytes_max: self.bytes_max };
        let session = Session::connect(self.source, "initial-snapshot").await?;
        let options = StreamOptions {
            slot: self.slot.to_owned(),
            start: self.from,
            publications: self.publications.to_vec(),
            protocol: 1,
            binary: false,
            messages: false,
            streaming: false,
            two_phase: false,
            // Rows that were replicated to the source have changed too.
            origin: None,
        };
        let mut stream = session.start_replication(&options).await?;
        let (mut buf, mut pos) = (Vec::new(), 0);
        let mut open = None;
        loop {
            while let Some(frame) = next_frame(&buf, &mut pos, self.max_message_bytes)? {
                if self.take(&buf, frame, (&mut open, &mut keys), &mut stream).await? {
                    return Ok(keys.changed);
                }
            }
            buf.drain(..pos);
            pos = 0;
            match timeout(ASK_AFTER, stream.read(&mut buf)).await {
                Ok(read) => read.map(|_| ())?,
                Err(_) => stream.send_status(self.from, Lsn::ZERO, true).await?,
            }
        }
    }

    /// Takes one frame; whether L2 is reached. `open`: where the source transaction commits.
    async fn take(
        &self,
        buf: &[u8],
        frame: Frame,
        (open, keys): (&mut Option<Lsn>, &mut Keys<'_>),
        stream: &mut ReplicationStream,
    ) -> Result<bool> {
        let body = match frame {
            Frame::XLogData { body, .. } => body,
            Frame::Keepalive { wal_end, reply, .. } => {
                if reply {
                    stream.send_status(self.from, Lsn::ZERO, false).await?;
                }
                return Ok(open.is_none() && wal_end >= self.to);
            }
            Frame::CopyDone => {
                return Err(Error::transient("SERVER_CLOSED", "the server ended the stream"));
            }
            _ => return Ok(false),
        };
        match pgoutput::parse(buf, body.start, body.end)? {
            Message::Begin { final_lsn, .. } if final_lsn >= self.to => return Ok(true),
            Message::Begin { final_lsn, .. } => *open = Some(final_lsn),
            Message::Commit { .. } => *open = None,
            message if open.is_some_and(|at| at >= self.from) => keys.take(buf, &message)?,
            _ => {}
        }
        Ok(false)
    }
}

impl Keys<'_> {
    fn take(&mut self, buf: &[u8], message: &Message) -> Result<()> {
        match message {
            Message::Insert { oid, new } => self.add(buf, *oid, *new, None),
            Message::Update { oid, old, new } => {
                let before = old.map(|(_, old)| old);
                if let Some(old) = before {
                    self.add(buf, *oid, old, None)?;
                }
                self.add(buf, *oid, *new, before)
            }
            Message::Delete { oid, old: (OldTuple::Key | OldTuple::Full, old) } => {
                self.add(buf, *oid, *old, None)
            }
            Message::Truncate { oids, .. } => {
                for oid in oids {
                    self.give_up(*oid, "it was truncated");
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }

    /// Adds the key of `tuple`; what it leaves out as unchanged TOAST stands in `before`.
    fn add(&mut self, buf: &[u8], oid: u32, tuple: Tuple, before: Option<Tuple>) -> Result<()> {
        let Some(relation) = self.relations.get(&oid) else { return Ok(()) };
        if relation.key.is_empty() {
            self.give_up(oid, "it has changed, and has no key");
            return Ok(());
        }
        let key = match before {
            None => key_of(buf, relation, tuple)?,
            Some(before) => match key_of(buf, relation, tuple)? {
                Some(key) => Some(key),
                None => key_of(buf, relation, before)?,
            },
        };
        let Some(key) = key else {
            self.give_up(oid, "a row has changed whose key was not sent whole");
            return Ok(());
        };
        let cost = key.len() + KEY_OVERHEAD;
        if let Some(Changed::Keys(keys)) = self.changed.get_mut(&oid)
            && keys.insert(key)
        {
            self.bytes += cost;
        }
        while self.bytes > self.bytes_max {
            self.give_up_largest();
        }
        Ok(())
    }

    fn give_up_largest(&mut self) {
        let largest = self.changed.iter().max_by_key(|(_, changed)| cost_of(changed));
        match largest.map(|(oid, _)| *oid) {
            Some(oid) => self.give_up(oid, "too much of it has changed since"),
            None => self.bytes = 0,
        }
    }

    fn give_up(&mut self, oid: u32, why: &'static str) {
        if let Some(changed) = self.changed.get_mut(&oid) {
            let freed = cost_of(changed);
            if matches!(changed, Changed::Keys(_)) {
                *changed = Changed::All(why);
            }
            self.bytes = self.bytes.saturating_sub(freed);
        }
    }
}

fn cost_of(changed: &Changed) -> usize {
    match changed {
        Changed::Keys(keys) => keys.iter().map(|key| key.len() + KEY_OVERHEAD).sum(),
        Changed::All(_) => 0,
    }
}

/// The key's fields as they stand in the tuple; `None` where one is not there, or NULL, or can't be
/// written in SQL.
fn key_of(buf: &[u8], relation: &Relation, tuple: Tuple) -> Result<Option<Box<[u8]>>> {
    if usize::from(tuple.columns) != relation.columns.len() {
        return Ok(None);
    }
    let (mut cursor, mut key) = (tuple.at, Vec::new());
    for column in 0..=relation.key.last().copied().unwrap_or(0) {
        let field = WalTuple::next(buf, &mut cursor)?;
        if relation.key.binary_search(&column).is_err() {
            continue;
        }
        match field {
            Field::Text(text) if std::str::from_utf8(text).is_ok() => put_text(&mut key, text)?,
            _ => return Ok(None),
        }
    }
    Ok(Some(key.into()))
}

fn put_text(into: &mut Vec<u8>, text: &[u8]) -> Result<()> {
    let length = u32::try_from(text.len())
        .map_err(|_| Error::fatal("BAD_MESSAGE", "a key of more than 4 GiB"))?;
    into.push(b't');
    into.extend_from_slice(&length.to_be_bytes());
    into.extend_from_slice(text);
    Ok(())
}

/// The texts of a key's fields.
pub(super) fn texts(key: &[u8], fields: usize) -> Result<Vec<&[u8]>> {
    let mut cursor = 0;
    let mut texts = Vec::with_capacity(fields);
    for _ in 0..fields {
        if let Field::Text(text) = WalTuple::next(key, &mut cursor)? {
            texts.push(text);
        }
    }
    Ok(texts)
}

/// Tuples of `relation` that have nothing but these keys, and where each begins.
pub(super) fn tuples<'a>(
    relation: &Relation,
    keys: impl Iterator<Item = &'a [u8]>,
) -> Result<(Vec<u8>, Vec<u32>)> {
    let (mut buf, mut starts) = (Vec::new(), Vec::new());
    for key in keys {
        let start = u32::try_from(buf.len())
            .map_err(|_| Error::fatal("BAD_MESSAGE", "keys of more than 4 GiB"))?;
        starts.push(start);
        let mut texts = texts(key, relation.key.len())?.into_iter();
        for column in 0..relation.columns.len() {
            match relation.key.binary_search(&column) {
                Ok(_) => put_text(&mut buf, texts.next().unwrap_or_default())?,
                Err(_) => buf.push(b'n'),
            }
        }
    }
    Ok((buf, starts))
}
