//! What was written to a bucket a moment ago: manifests and their lists, which the next lake commit
//! reads. Their names hold a fresh uuid each, so an object never says anything else later.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use bytes::Bytes;

/// Bytes of all that is kept; the oldest goes first.
const BYTES_MAX: usize = 8 << 20;
/// Larger objects are not kept.
const OBJECT_BYTES_MAX: usize = 64 << 10;

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Recent(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    objects: HashMap<String, Bytes>,
    order: VecDeque<String>,
    bytes: usize,
}

impl Recent {
    pub(super) fn get(&self, location: &str) -> Option<Bytes> {
        self.kept().objects.get(location).cloned()
    }

    pub(super) fn keep(&self, location: &str, bytes: &Bytes) {
        if !location.ends_with(".avro") || bytes.len() > OBJECT_BYTES_MAX {
            return;
        }
        let mut kept = self.kept();
        // A copy: the bytes may be a part of something much larger.
        let bytes = Bytes::copy_from_slice(bytes);
        kept.bytes += bytes.len();
        if let Some(old) = kept.objects.insert(location.to_owned(), bytes) {
            kept.bytes -= old.len();
        } else {
            kept.order.push_back(location.to_owned());
        }
        while kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.order.pop_front() else { return };
            kept.forget(&oldest);
        }
    }

    pub(super) fn forget(&self, location: &str) {
        let mut kept = self.kept();
        if kept.forget(location) {
            kept.order.retain(|other| other != location);
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    /// Whether it was there. Its place in the order is the caller's.
    fn forget(&mut self, location: &str) -> bool {
        let Some(old) = self.objects.remove(location) else { return false };
        self.bytes -= old.len();
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_goes_and_only_small_manifests_come() {
        let recent = Recent::default();
        let (small, large) =
            (Bytes::from(vec![1; OBJECT_BYTES_MAX]), vec![1; OBJECT_BYTES_MAX + 1]);
        recent.keep("large.avro", &large.into());
        recent.keep("rows.parquet", &small);
        let most = BYTES_MAX / OBJECT_BYTES_MAX;
        for number in 0..=most {
            recent.keep(&format!("{number}.avro"), &small);
        }
        for (location, is_kept) in
            [("large.avro", false), ("rows.parquet", false), ("0.avro", false), ("1.avro", true)]
        {
            assert_eq!(recent.get(location).is_some(), is_kept, "{location}");
        }
        recent.forget("1.avro");
        assert!(recent.get("1.avro").is_none());
        let kept = recent.kept();
        assert_eq!(kept.order.len(), kept.objects.len());
    }
}
