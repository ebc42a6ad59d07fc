//! Intake: frames the receive buffer and folds each change where it lies. Nothing is copied but the
//! beginning of a message that has not arrived whole when its segment closes.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::Arc;

use crate::error::{Error, Result};
use crate::postgres::ddl_message::DDL_PREFIX;
use crate::postgres::pgoutput::{self, Message, WireRelation};
use crate::postgres::stream::{Frame, next_frame};
use crate::progress::Lsn;
use crate::window::relation::Relation;
use crate::window::segment::Segment;

use super::held::{HEAD_BYTES, Held};
use super::oversized;
use super::refresh::ResyncWish;
use super::streamed::Streamed;

/// Raw bytes of one segment. Measured (`docs/performance.md`): larger ones cost memory and cache
/// misses in the fold, smaller ones files.
pub(crate) const SEGMENT_BYTES: usize = 16 << 20;
/// [`SEGMENT_BYTES`], or what a test asks for by the fail point `segment_bytes`.
fn segment_bytes() -> usize {
    fail::fail_point!("segment_bytes", |bytes| {
        bytes.and_then(|bytes| bytes.parse().ok()).unwrap_or(SEGMENT_BYTES)
    });
    SEGMENT_BYTES
}

/// Room kept beyond that for what a read brings at once.
const SEGMENT_SLACK: usize = 2 << 20;
/// 2000-01-01 UTC, from which Postgres counts, in microseconds since 1970-01-01 UTC.
const POSTGRES_EPOCH_US: i64 = 946_684_800_000_000;
/// The prefix of the logical messages that frazil itself emits (`frazil wait --now`).
pub(crate) const MESSAGE_PREFIX: &str = "frazil";

/// What the intake needs the conductor for.
#[derive(Debug)]
pub(crate) enum Step {
    /// No whole message is left.
    Drained,
    /// The segment is large enough to be written.
    SegmentFull,
    /// A table was described that is not known like this.
    Relation(WireRelation),
    /// A source transaction is complete.
    TransactionEnd(TransactionEnd),
    /// Somebody wishes tables to be copied afresh.
    Resync(ResyncWish),
    /// The source's event triggers say something.
    Ddl(Vec<u8>),
    /// The server says where its WAL ends, and may ask for an answer.
    Keepalive { wal_end: Lsn, reply: bool },
    /// The server ended the stream.
    Closed,
}

/// The end of a source transaction.
#[derive(Debug, Clone, Copy)]
pub(crate) struct TransactionEnd {
    /// Where it ends: the position to acknowledge once it is in the lake.
    pub(crate) end_lsn: Lsn,
    /// When it was committed, in microseconds since 1970-01-01 UTC.
    pub(crate) commit_time_us: i64,
    /// When the server sent it, by the same clock.
    pub(crate) sent_us: i64,
    /// Whether it changed a table that is followed, or asked to be seen.
    pub(crate) is_wanted: bool,
}

#[derive(Debug)]
enum Known {
    Followed(Arc<Relation>, WireRelation),
    /// Published, but not selected by `--tables`.
    Ignored,
    /// Being copied afresh: its changes wait for the copy.
    Held(Box<Held>),
}

#[derive(Debug, Clone)]
struct OpenTransaction {
    final_lsn: Lsn,
    xid: u32,
    /// Where its BEGIN stands, while that is in the current segment.
    begins_at: Option<usize>,
    is_wanted: bool,
}

/// See the module.
#[derive(Debug)]
pub(crate) struct Intake {
    segment: Segment,
    at: usize,
    relations: HashMap<u32, Known, foldhash::fast::FixedState>,
    open: Option<OpenTransaction>,
    /// The source transaction that the segment begins within.
    carried: Option<OpenTransaction>,
    /// P at the start: a source transaction with a smaller commit_lsn is in the lake (case 2).
    resume_lsn: Lsn,
    /// The same for tables that are ahead of P, in a catalog that commits tables one by one.
    ahead: HashMap<u32, Lsn>,
    /// The end of the last source transaction that was taken.
    ended_lsn: Lsn,
    max_message_bytes: usize,
    segment_bytes: usize,
    is_cut: bool,
    /// What had arrived after the cut, from the beginning of a message on.
    after_cut: Vec<u8>,
    /// The frame that is looked at.
    frame: Range<usize>,
    /// When the server sent it.
    sent_us: i64,
    /// Tables whose changes in the open source transaction are held.
    held_open: Vec<u32>,
    streamed: Streamed,
    /// Changes of other tables are none of its business.
    only: Option<u32>,
}

impl Intake {
    /// An intake that resumes at `resume_lsn` (tables that are `ahead` later) and refuses messages
    /// over `max_message_bytes`.
    pub(crate) fn new(resume_lsn: Lsn, ahead: HashMap<u32, Lsn>, max_message_bytes: usize) -> Self {
        Self {
            segment: Segment::with_rest(&[], SEGMENT_BYTES + SEGMENT_SLACK),
            at: 0,
            relations: HashMap::default(),
            open: None,
            carried: None,
            resume_lsn,
            ahead,
            ended_lsn: resume_lsn,
            max_message_bytes,
            segment_bytes: segment_bytes(),
            is_cut: false,
            after_cut: Vec::new(),
            frame: 0..0,
            sent_us: 0,
            held_open: Vec::new(),
            streamed: Streamed::default(),
            only: None,
        }
    }

    /// An intake for the changes of one table, from the source transaction that commits at
    /// `resume_lsn` on.
    pub(crate) fn of_one_table(
        relation: &Arc<Relation>,
        resume_lsn: Lsn,
        max_message_bytes: usize,
    ) -> Self {
        let mut intake = Self::new(resume_lsn, HashMap::new(), max_message_bytes);
        intake.only = Some(relation.oid);
        let wire = WireRelation {
            oid: relation.oid,
            namespace: String::new(),
            name: String::new(),
            identity: 0,
            columns: Vec::new(),
        };
        intake.follow(Arc::clone(relation), wire);
        intake
    }

    /// Where the socket writes.
    pub(crate) fn receive_buffer(&mut self) -> &mut Vec<u8> {
        &mut self.segment.buf
    }

    /// Bytes held.
    pub(crate) fn bytes(&self) -> usize {
        self.segment.bytes()
    }

    /// Whether what arrives is within a source transaction. One that the server streams, and that
    /// pauses, does not count.
    pub(crate) fn in_transaction(&self) -> bool {
        self.open.is_some() || self.streamed.is_in_chunk() || self.streamed.is_replaying()
    }

    /// Whether [`Intake::refill`] has more, which comes before what the server sends.
    pub(crate) fn is_replaying(&self) -> bool {
        self.streamed.is_replaying()
    }

    /// Reads back more of a streamed source transaction that has committed.
    pub(crate) fn refill(&mut self) -> Result<()> {
        self.streamed.refill(&mut self.segment.buf)
    }

    /// The transaction id of the source transaction that is open.
    pub(crate) fn open_xid(&self) -> Option<u32> {
        self.open.as_ref().map(|open| open.xid)
    }

    /// Where the source transaction that is open commits.
    pub(crate) fn open_commit_lsn(&self) -> Option<Lsn> {
        self.open.as_ref().map(|open| open.final_lsn)
    }

    /// Whether nothing more may be read: see [`Intake::cut_open_transaction`].
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut
    }

    /// Goes on to the next event the conductor is needed for.
    pub(crate) fn step(&mut self) -> Result<Step> {
        loop {
            if self.at >= self.segment_bytes {
                return Ok(Step::SegmentFull);
            }
            let frame_at = self.at;
            let found = next_frame(&self.segment.buf, &mut self.at, self.max_message_bytes);
            let Some(frame) = found.map_err(|e| self.with_place(e))? else {
                return Ok(Step::Drained);
            };
            self.frame = frame_at..self.at;
            let step = match frame {
                Frame::XLogData { body, wal_start, sent_us, .. } => {
                    self.sent_us = sent_us;
                    self.message(body.start, body.end, frame_at)
                        .map_err(|e| e.with_lsn(wal_start))?
                }
                Frame::Keepalive { wal_end, reply, .. } => Some(Step::Keepalive { wal_end, reply }),
                Frame::CopyDone => Some(Step::Closed),
                _ => None,
            };
            if let Some(step) = step {
                return Ok(step);
            }
        }
    }

    /// Where the stream is: in the source transaction that commits here, or behind the one that
    /// ends here.
    fn place(&self) -> Lsn {
        self.open.as_ref().map_or(self.ended_lsn, |open| open.final_lsn)
    }

    /// The error with where the stream is and, if a value is too large, whose it is.
    #[cold]
    fn with_place(&self, error: Error) -> Error {
        let error = error.with_lsn(self.place());
        let found = oversized::value_of(&self.segment.buf, self.at);
        let Some((oid, column)) = found.filter(|_| error.code() == "VALUE_TOO_LARGE") else {
            return error;
        };
        let Some(Known::Followed(relation, _)) = self.relations.get(&oid) else { return error };
        let error = error.with_table(relation.display());
        match column.and_then(|column| relation.columns.get(column)) {
            Some(column) => error.with_column(&column.name),
            None => error,
        }
    }

    fn message(&mut self, start: usize, end: usize, frame_at: usize) -> Result<Option<Step>> {
        if self.streamed.is_in_chunk() {
            let frame = start.saturating_sub(HEAD_BYTES)..end;
            self.streamed.keep(self.segment.buf.get(frame).unwrap_or_default())?;
            self.pass_over(start);
            return Ok(None);
        }
        match pgoutput::parse(&self.segment.buf, start, end)? {
            Message::Insert { oid, new } => {
                self.change(oid, |relation, segment| {
                    let (buf, fold) = segment.fold(relation);
                    fold.insert(buf, new)
                })?;
            }
            Message::Update { oid, old, new } => {
                self.change(oid, |relation, segment| {
                    let (buf, fold) = segment.fold(relation);
                    fold.update(buf, old, new)
                })?;
            }
            Message::Delete { oid, old } => {
                self.change(oid, |relation, segment| {
                    let (buf, fold) = segment.fold(relation);
                    fold.delete(buf, old)
                })?;
            }
            Message::Truncate { oids, .. } => self.truncate(&oids)?,
            Message::Begin { final_lsn, xid, .. } => self.begin(final_lsn, xid, frame_at)?,
            Message::Commit { end_lsn, commit_time_us, .. } => {
                return self
                    .commit(end_lsn, commit_time_us.saturating_add(POSTGRES_EPOCH_US))
                    .map(Some);
            }
            Message::Relation(wire) => return Ok(self.relation(wire)),
            Message::LogicalMessage { transactional: true, prefix, content, .. } => {
                return Ok(self.logical_message(prefix, content));
            }
            // Outside transactions, or of no consequence for the lake (case 25).
            Message::LogicalMessage { .. } | Message::Origin { .. } | Message::Type { .. } => {}
            other => self.streamed(&other, start)?,
        }
        Ok(None)
    }

    /// A message about source transactions that the server streams before they commit.
    fn streamed(&mut self, message: &Message, start: usize) -> Result<()> {
        if let Some(open) = &self.open {
            let at = open.final_lsn;
            let message = format!("{message:?} within the transaction that commits at {at}");
            return Err(Error::fatal("PROTOCOL", message));
        }
        let (buf, at) = (&mut self.segment.buf, self.at);
        self.streamed.control(message, || buf.split_off(at))?;
        self.pass_over(start);
        Ok(())
    }

    /// Who reads the receive buffer once more must not find this message: it becomes one of a kind
    /// that is passed over.
    fn pass_over(&mut self, message_at: usize) {
        let tag = message_at.checked_sub(HEAD_BYTES).and_then(|at| self.segment.buf.get_mut(at));
        if let Some(tag) = tag {
            *tag = b'S';
        }
    }

    fn begin(&mut self, final_lsn: Lsn, xid: u32, frame_at: usize) -> Result<()> {
        if let Some(open) = &self.open {
            let message =
                format!("BEGIN within the transaction that commits at {}", open.final_lsn);
            return Err(Error::fatal("PROTOCOL", message));
        }
        let begins_at = Some(frame_at);
        self.open = Some(OpenTransaction { final_lsn, xid, begins_at, is_wanted: false });
        Ok(())
    }

    fn commit(&mut self, end_lsn: Lsn, commit_time_us: i64) -> Result<Step> {
        let open = self
            .open
            .take()
            .ok_or_else(|| Error::fatal("PROTOCOL", "COMMIT without BEGIN").with_lsn(end_lsn))?;
        let is_wanted = open.is_wanted;
        self.ended_lsn = end_lsn;
        for oid in self.held_open.drain(..) {
            if let Some(Known::Held(held)) = self.relations.get_mut(&oid) {
                held.commit(self.segment.buf.get(self.frame.clone()).unwrap_or_default())?;
            }
        }
        let sent_us = self.sent_us.saturating_add(POSTGRES_EPOCH_US);
        Ok(Step::TransactionEnd(TransactionEnd { end_lsn, commit_time_us, sent_us, is_wanted }))
    }

    /// Applies one change, if the lake does not hold its transaction already and the table is
    /// followed.
    fn change(
        &mut self,
        oid: u32,
        apply: impl FnOnce(&Arc<Relation>, &mut Segment) -> Result<()>,
    ) -> Result<()> {
        let Some(open) = &mut self.open else {
            return Err(Error::fatal("PROTOCOL", "a change outside a transaction"));
        };
        let is_ahead = |at: &Lsn| open.final_lsn < *at;
        if open.final_lsn < self.resume_lsn
            || (!self.ahead.is_empty() && self.ahead.get(&oid).is_some_and(is_ahead))
        {
            return Ok(());
        }
        match self.relations.get_mut(&oid) {
            Some(Known::Followed(relation, _)) => {
                open.is_wanted = true;
                apply(relation, &mut self.segment)
            }
            Some(Known::Ignored) => Ok(()),
            Some(Known::Held(held)) => {
                open.is_wanted = true;
                if !self.held_open.contains(&oid) {
                    self.held_open.push(oid);
                }
                let frame = self.segment.buf.get(self.frame.clone()).unwrap_or_default();
                held.change(open.final_lsn, frame)
            }
            None if self.only.is_some_and(|only| only != oid) => Ok(()),
            None => Err(Error::fatal(
                "UNKNOWN_RELATION",
                format!("a change of the table with oid {oid}, which was never described"),
            )
            .with_cure(
                "start again: the server describes its tables anew; if it repeats, report it",
            )),
        }
    }

    fn truncate(&mut self, oids: &[u32]) -> Result<()> {
        for &oid in oids {
            self.change(oid, |relation, segment| {
                segment.fold(relation).1.truncate();
                Ok(())
            })?;
        }
        Ok(())
    }

    /// A logical message within a source transaction that the lake does not hold: ours asks to be
    /// seen, and may say something.
    fn logical_message(&mut self, prefix: Range<usize>, content: Range<usize>) -> Option<Step> {
        let open = self.open.as_mut().filter(|open| open.final_lsn >= self.resume_lsn)?;
        let text = |range| std::str::from_utf8(self.segment.buf.get(range)?).ok();
        match text(prefix)? {
            MESSAGE_PREFIX => open.is_wanted = true,
            ResyncWish::PREFIX => {
                open.is_wanted = true;
                return ResyncWish::parse(text(content)?).map(Step::Resync);
            }
            DDL_PREFIX => return self.segment.buf.get(content).map(|c| Step::Ddl(c.to_vec())),
            _ => {}
        }
        None
    }

    /// What was found in the open source transaction is worth a lake commit.
    pub(crate) fn want(&mut self) {
        if let Some(open) = &mut self.open {
            open.is_wanted = true;
        }
    }

    fn relation(&mut self, wire: WireRelation) -> Option<Step> {
        match self.relations.get_mut(&wire.oid) {
            Some(Known::Ignored) => None,
            Some(Known::Held(held)) => {
                held.describe(self.open.as_ref().map_or(Lsn::ZERO, |open| open.final_lsn), wire);
                None
            }
            _ => Some(Step::Relation(wire)),
        }
    }

    /// Whether the table is known exactly as `wire` describes it.
    pub(crate) fn knows(&self, wire: &WireRelation) -> bool {
        matches!(self.relations.get(&wire.oid), Some(Known::Followed(_, known)) if known == wire)
    }

    /// From here on tuples of the table are read as `relation`.
    pub(crate) fn follow(&mut self, relation: Arc<Relation>, wire: WireRelation) {
        self.relations.insert(relation.oid, Known::Followed(relation, wire));
    }

    /// Changes of this table are not wanted.
    pub(crate) fn ignore(&mut self, oid: u32) {
        self.relations.insert(oid, Known::Ignored);
    }

    /// From here on changes of this table wait for its copy; those that wait already are dropped.
    /// `wire`: its last description, where the stream gave one.
    pub(crate) fn hold(&mut self, oid: u32, wire: Option<WireRelation>) {
        let last = match self.relations.remove(&oid) {
            Some(Known::Followed(_, wire)) => Some(wire),
            Some(Known::Held(held)) => held.into_last_shape(),
            Some(Known::Ignored) | None => None,
        };
        let mut held = Box::<Held>::default();
        if let Some(wire) = wire.or(last) {
            held.describe(Lsn::ZERO, wire);
        }
        self.held_open.retain(|open| *open != oid);
        self.relations.insert(oid, Known::Held(held));
    }

    /// Ends the wait: what was held. The table is unknown until it is followed or described again.
    pub(crate) fn release(&mut self, oid: u32) -> Option<Held> {
        match self.relations.remove(&oid) {
            Some(Known::Held(held)) => Some(*held),
            Some(other) => {
                self.relations.insert(oid, other);
                None
            }
            None => None,
        }
    }

    /// Closes the segment. `None` when no followed table changed in it.
    pub(crate) fn take_segment(&mut self) -> Option<Segment> {
        let rest = self.segment.buf.get(self.at..).unwrap_or_default();
        if self.segment.has_changes() {
            let next = Segment::with_rest(rest, SEGMENT_BYTES + SEGMENT_SLACK);
            let mut full = std::mem::replace(&mut self.segment, next);
            full.buf.truncate(self.at);
            self.moved_on();
            return Some(full);
        }
        self.segment.buf.drain(..self.at);
        self.moved_on();
        None
    }

    fn moved_on(&mut self) {
        self.at = 0;
        if let Some(open) = &mut self.open {
            open.begins_at = None;
        }
        self.carried = self.open.clone();
    }

    /// Stops reading at the end of the last complete source transaction. `false` when the one that
    /// is arriving reaches back into segments already closed: it is read to its end instead.
    pub(crate) fn cut_open_transaction(&mut self) -> Result<bool> {
        if self.is_cut {
            return Ok(true);
        }
        let end = match &self.open {
            None => self.at,
            Some(OpenTransaction { begins_at: Some(at), .. }) => *at,
            Some(_) => return Ok(false),
        };
        self.stop_reading();
        self.open = self.carried.clone();
        self.segment.buf.truncate(end);
        self.segment.clear_folds();
        self.at = 0;
        while !matches!(self.step()?, Step::Drained | Step::SegmentFull) {}
        Ok(true)
    }

    fn stop_reading(&mut self) {
        if !self.is_cut {
            // What comes once more after the cut must not be held twice, and who leaves adopts
            // nothing.
            for known in self.relations.values_mut().filter(|k| matches!(k, Known::Held(_))) {
                *known = Known::Ignored;
            }
            self.after_cut = self.unread();
            self.streamed.forget();
            self.is_cut = true;
        }
    }

    /// What has arrived and was not taken, from the beginning of a message on: the stream can be
    /// ended cleanly only from there.
    pub(crate) fn unread(&self) -> Vec<u8> {
        match self.is_cut {
            true => self.after_cut.clone(),
            false => match self.streamed.behind_replay() {
                Some(rest) => rest.to_vec(),
                None => self.segment.buf.get(self.at..).unwrap_or_default().to_vec(),
            },
        }
    }

    /// Drops everything that has arrived since the last lake commit.
    pub(crate) fn forget(&mut self) {
        self.stop_reading();
        self.open = None;
        self.at = 0;
        self.segment = Segment::default();
    }
}
