//! The data path's kernels without a server and without files: for the instruction counts
//! (`bench/instructions.rs`) and for the tests that count allocations. A promise to nobody else.

use std::sync::Arc;

use arrow_array::RecordBatch;
use iceberg::{NamespaceIdent, TableIdent};

use crate::error::Result;
use crate::iceberg::data_files;
use crate::initial_snapshot::Rows;
use crate::pipeline::{
    BATCH_ROWS, Intake, ParquetTarget, Step, key_arrays, key_decoder, row_decoder,
};
use crate::postgres::stream::MESSAGE_BYTES_MAX;
use crate::progress::Lsn;
use crate::window::decode::{Decoded, TupleDecoder};
use crate::window::outcome::Outcome;
use crate::window::relation::Relation;
use crate::window::segment::Segment;
use crate::window::wire::WalTuple;

/// What one table's rows go through.
pub struct Kernels {
    target: ParquetTarget,
}

/// Bytes as the socket would have filled them in.
pub struct Received(Intake);

/// A COPY's bytes as the socket would have filled them in.
pub struct Copied {
    rows: Rows,
    decoder: TupleDecoder,
}

impl Kernels {
    /// For rows of `relation`.
    ///
    /// # Errors
    /// None for a sound relation.
    pub fn new(relation: Relation) -> Result<Self> {
        let namespace = NamespaceIdent::new(relation.namespace.clone());
        let ident = TableIdent::new(namespace, relation.name.clone());
        Ok(Self { target: ParquetTarget::new(String::new(), ident, Arc::new(relation))? })
    }

    /// `frames` in a receive buffer: whole source transactions of this table.
    pub fn received(&self, frames: &[u8]) -> Received {
        let relation = &self.target.relation;
        let mut intake = Intake::of_one_table(relation, Lsn::ZERO, MESSAGE_BYTES_MAX);
        intake.receive_buffer().extend_from_slice(frames);
        Received(intake)
    }

    /// Settles a segment and decodes what is left of it: rows, then keys to delete.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn decode(&self, segment: Segment) -> Result<Vec<RecordBatch>> {
        let (buf, outcomes) = segment.settle()?;
        let mut batches = Vec::new();
        for outcome in outcomes {
            self.rows(&buf, outcome, &mut batches)?;
        }
        Ok(batches)
    }

    fn rows(&self, buf: &[u8], mut outcome: Outcome, into: &mut Vec<RecordBatch>) -> Result<()> {
        let (relation, shape) = (&self.target.relation, &self.target.plain);
        let mut decoder = row_decoder(relation, shape)?;
        for chunk in outcome.rows.chunks_mut(BATCH_ROWS) {
            decoder.decode::<WalTuple>(buf, chunk)?;
            into.push(self.batch(&decoder.finish()?)?);
        }
        let mut decoder = key_decoder(relation, shape)?;
        for chunk in outcome.deletes.chunks_mut(BATCH_ROWS) {
            decoder.decode::<WalTuple>(buf, chunk)?;
            into.push(shape.layout.key_rows(&key_arrays(decoder.finish()?))?);
        }
        Ok(())
    }

    fn batch(&self, decoded: &Decoded) -> Result<RecordBatch> {
        self.target.plain.layout.rows(&decoded.columns, &[], decoded.rows)
    }

    /// The backend's `messages` of one COPY.
    ///
    /// # Errors
    /// None for a sound relation.
    pub fn copied(&self, messages: &[u8]) -> Result<Copied> {
        let decoder = row_decoder(&self.target.relation, &self.target.plain)?;
        let mut rows = Rows::default();
        rows.buf.extend_from_slice(messages);
        Ok(Copied { rows, decoder })
    }

    /// Frames and decodes the rows of a COPY.
    ///
    /// # Errors
    /// Those of the decoder.
    pub fn copy(&self, copied: &mut Copied) -> Result<RecordBatch> {
        copied.rows.gather()?;
        self.batch(&copied.rows.decode(&mut copied.decoder)?)
    }

    /// The bytes of a Parquet file of these rows.
    ///
    /// # Errors
    /// `LAKE_IO` where the encoder refuses them.
    pub fn encode(&self, rows: &[RecordBatch]) -> Result<Vec<u8>> {
        data_files::encode(&self.target.plain.schema, rows, &self.target.hints)
    }
}

impl Received {
    /// Frames, parses and folds all that was received; gives the number of source transactions.
    ///
    /// # Errors
    /// Those of the intake.
    pub fn fold(&mut self) -> Result<u64> {
        let mut ended = 0;
        loop {
            match self.0.step()? {
                Step::Drained | Step::SegmentFull => return Ok(ended),
                Step::TransactionEnd(_) => ended += 1,
                _ => {}
            }
        }
    }

    /// What was folded.
    pub fn into_segment(mut self) -> Option<Segment> {
        self.0.take_segment()
    }
}
