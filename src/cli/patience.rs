//! What a run that failed gets: another try after a pause, or its end.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};

use crate::error::{Error, Kind, Result};

/// First and longest pause before a temporary trouble is tried again.
pub(crate) const RETRY: (Duration, Duration) =
    (Duration::from_millis(200), Duration::from_secs(15));
/// How many times in a row a run that must end by itself (`--until-caught-up`, `only`) tries.
const RETRIES_MAX: usize = 12;
/// How many times Postgres may fail to decode one source transaction (case 169).
const DECODING_TRIES: usize = 3;
/// What the server sent does not fit together. A new connection has every table described again,
/// which may mend it; a second one would not (case 168).
const ONCE_MORE: [&str; 4] = ["BAD_MESSAGE", "COLUMN_COUNT", "PROTOCOL", "UNKNOWN_RELATION"];

/// The tries of one run.
#[derive(Debug)]
pub(crate) struct Patience {
    pauses: ExponentialBackoff,
    /// Tries since the last lake commit.
    tries: usize,
    /// Tries since then because of something in [`ONCE_MORE`].
    once_more: usize,
    /// The last failure to decode, with its position, and how many there were of it in a row.
    decoding: Option<(String, usize)>,
    /// Whether the run must end by itself.
    ends: bool,
}

impl Patience {
    /// For a run that must end by itself, or one that goes on for ever.
    pub(crate) fn new(ends: bool) -> Self {
        Self { pauses: pauses(), tries: 0, once_more: 0, decoding: None, ends }
    }

    /// A lake commit was made: pauses are short again.
    pub(crate) fn renew(&mut self) {
        (self.pauses, self.tries, self.once_more) = (pauses(), 0, 0);
    }

    /// The pause before the next try, with what to say of it; or the error that ends the run.
    pub(crate) fn after(&mut self, error: Error) -> Result<(Duration, Error)> {
        self.tries += 1;
        let error = match error.code() {
            "DECODING" => self.after_decoding(error)?,
            code if ONCE_MORE.contains(&code) => {
                self.once_more += 1;
                if self.once_more > 1 {
                    return Err(error);
                }
                error
            }
            _ if !matches!(error.kind(), Kind::Transient | Kind::Conflict) => return Err(error),
            _ => error,
        };
        if self.ends && self.tries > RETRIES_MAX {
            return Err(error);
        }
        Ok((self.pauses.next().unwrap_or(RETRY.1), error))
    }

    fn after_decoding(&mut self, error: Error) -> Result<Error> {
        let what = error.to_string();
        let times = match &self.decoding {
            Some((last, times)) if *last == what => times + 1,
            _ => 1,
        };
        self.decoding = Some((what, times));
        if times < DECODING_TRIES {
            return Ok(error);
        }
        let message = format!("Postgres has failed {times} times to decode a source transaction");
        let poison = Error::fatal("POISON_TRANSACTION", message).with_cure(POISON_CURE);
        Err(match error.lsn() {
            Some(lsn) => poison.with_lsn(lsn),
            None => poison,
        }
        .with_source(error))
    }
}

const POISON_CURE: &str = "correct or delete the value at the source; then let the slot pass it: \
    SELECT pg_replication_slot_advance('<slot>', pg_current_wal_lsn()), and start with \
    source.on_slot_loss: resync, which copies the tables afresh";

fn pauses() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(RETRY.0)
        .with_max_delay(RETRY.1)
        .with_jitter()
        .without_max_times()
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::progress::Lsn;

    fn decoding(message: &str, lsn: u64) -> Error {
        Error::transient("DECODING", message).with_lsn(Lsn(lsn))
    }

    // cases: 169 stops POISON_TRANSACTION
    #[test]
    fn the_third_equal_failure_to_decode_is_the_last() {
        let mut patience = Patience::new(false);
        patience.after(decoding("XX000", 7)).unwrap();
        patience.after(decoding("XX000", 7)).unwrap();
        // Another place, another error: each is counted for itself.
        patience.after(decoding("XX000", 8)).unwrap();
        patience.after(decoding("22021", 8)).unwrap();
        patience.renew();
        patience.after(decoding("22021", 8)).unwrap();
        let poison = patience.after(decoding("22021", 8)).unwrap_err();
        assert_eq!((poison.code(), poison.lsn()), ("POISON_TRANSACTION", Some(Lsn(8))));
        assert!(poison.to_string().contains("22021") && poison.cure().is_some(), "{poison}");
    }

    // cases: 168 stops UNKNOWN_RELATION
    #[test]
    fn what_does_not_fit_together_is_tried_once_more() {
        for code in ONCE_MORE {
            let mut patience = Patience::new(false);
            patience.after(Error::fatal(code, "once")).unwrap();
            assert_eq!(patience.after(Error::fatal(code, "twice")).unwrap_err().code(), code);
            patience.renew();
            patience.after(Error::fatal(code, "later")).unwrap();
        }
    }

    #[test]
    fn temporary_trouble_is_tried_for_ever_unless_the_run_must_end() {
        let trouble = || Error::transient("CONNECTION", "gone");
        let mut patience = Patience::new(false);
        assert!((0..1000).all(|_| patience.after(trouble()).is_ok_and(|p| p.0 <= RETRY.1 * 2)));
        let mut patience = Patience::new(true);
        let tries = (0..1000).take_while(|_| patience.after(trouble()).is_ok()).count();
        assert_eq!(tries, RETRIES_MAX);
        let fatal = Error::fatal("SLOT_LOST", "gone");
        assert_eq!(Patience::new(false).after(fatal).unwrap_err().code(), "SLOT_LOST");
    }
}
