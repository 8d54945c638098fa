//! Decoded columns of data files, kept in memory for the queries to come.
//!
//! A data file never changes, and neither do the files that delete rows of it, so what is left of its
//! columns is right for good.
//!
//! ```text
//!   the first statement that reads a file   is remembered; it is read as if there were no cache
//!   the second                              keeps the columns that it decodes, by row group
//!   from then on                            these columns come from memory, others from the file
//! ```
//!
//! So a single statement pays nothing, and neither does one that is content with a few rows (LIMIT). Where there is no room, a chunk takes the place of those last used
//! before its file was last read, and of no others: a table larger than the cache, read again and again,
//! finds a part of itself there each time, where evicting what is oldest would leave it nothing.
//!
//! Memory is the queries' first: what they reserve is taken from the cache ([`crate::memory`]).

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use arrow::array::{Array, ArrayData, ArrayRef};

/// Files remembered, beside those of which something is kept, before all others are forgotten.
const FILES_MAX: usize = 1 << 17;
/// What an entry takes beside its values.
const ENTRY_BYTES: usize = 256;

/// One column of one row group, in the order of its rows. How the rows are cut into arrays is not the
/// same for all columns.
pub(crate) type Chunk = Arc<[ArrayRef]>;

/// See the module's head.
#[derive(Debug, Default)]
pub(crate) struct ColumnCache {
    /// Bytes that it may hold when nobody else needs them.
    limit: usize,
    /// Bytes that it may hold now.
    allowed: AtomicUsize,
    /// Bytes that it holds.
    held: AtomicUsize,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    /// Counts what happens.
    now: u64,
    files: HashMap<Arc<str>, Seen>,
    /// Files that were left when files were last forgotten.
    files_left: usize,
    chunks: HashMap<Place, Entry>,
    by_age: BTreeMap<u64, Place>,
}

/// When a file was read.
#[derive(Debug, Clone, Copy)]
struct Seen {
    statement: u64,
    at: u64,
    /// By the statement before.
    before: Option<u64>,
}

/// Where a chunk is from.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Place {
    file: Arc<str>,
    group: usize,
    column: usize,
}

#[derive(Debug)]
struct Entry {
    /// `None` while it is being read.
    arrays: Option<Chunk>,
    bytes: usize,
    used_at: u64,
}

/// A file that has been read by an earlier statement.
#[derive(Debug, Clone)]
pub(crate) struct Visit {
    cache: Arc<ColumnCache>,
    file: Arc<str>,
    before: u64,
}

/// A chunk that is about to be read.
#[derive(Debug)]
pub(crate) struct Filling {
    cache: Arc<ColumnCache>,
    place: Place,
    arrays: Vec<ArrayRef>,
}

impl ColumnCache {
    /// A cache of at most `limit` bytes; of none if that is 0.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit, allowed: AtomicUsize::new(limit), ..Self::default() }
    }

    /// Notes that `statement` reads a file. `None` if no other did before. `file` says which it is, and
    /// what is deleted of it.
    pub(crate) fn visit(self: &Arc<Self>, file: &str, statement: u64) -> Option<Visit> {
        if self.limit == 0 {
            return None;
        }
        let mut inner = self.lock();
        inner.now += 1;
        let now = inner.now;
        let (file, before) = match inner.files.get_key_value(file) {
            Some((file, seen)) => (Arc::clone(file), Some(*seen)),
            None => (Arc::from(file), None),
        };
        let before = match before {
            Some(seen) if seen.statement == statement => seen.before,
            other => other.map(|it| it.at),
        };
        if inner.files.len() >= inner.files_left + FILES_MAX {
            let Inner { files, files_left, chunks, .. } = &mut *inner;
            let kept: HashSet<&str> = chunks.keys().map(|it| it.file.as_ref()).collect();
            files.retain(|it, _| kept.contains(it.as_ref()));
            *files_left = files.len();
        }
        inner.files.insert(Arc::clone(&file), Seen { statement, at: now, before });
        before.map(|before| Visit { cache: Arc::clone(self), file, before })
    }

    /// Has room for `reserved` bytes that queries need out of `limit`, which is theirs and the cache's.
    pub(crate) fn leave(&self, limit: usize, reserved: usize) {
        let allowed = limit.saturating_sub(reserved).min(self.limit);
        self.allowed.store(allowed, Ordering::Relaxed);
        if self.held() > allowed {
            let mut inner = self.lock();
            while self.held() > allowed {
                let Some((_, oldest)) = inner.by_age.pop_first() else { break };
                self.drop_chunk(&mut inner, &oldest);
            }
        }
    }

    /// Bytes that it holds.
    pub(crate) fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn drop_chunk(&self, inner: &mut Inner, place: &Place) {
        if let Some(entry) = inner.chunks.remove(place) {
            inner.by_age.remove(&entry.used_at);
            self.held.fetch_sub(entry.bytes, Ordering::Relaxed);
        }
    }

    /// Makes room for a chunk of a file last read at `before`.
    fn make_room(&self, inner: &mut Inner, bytes: usize, before: u64) -> bool {
        let allowed = self.allowed.load(Ordering::Relaxed);
        if bytes > allowed {
            return false;
        }
        while self.held() + bytes > allowed {
            let oldest = inner.by_age.first_key_value().map(|(at, it)| (*at, it.clone()));
            match oldest {
                Some((at, place)) if at < before => self.drop_chunk(inner, &place),
                _ => return false,
            }
        }
        true
    }
}

impl Visit {
    /// A column of a row group, if it is there.
    pub(crate) fn get(&self, group: usize, column: usize) -> Option<Chunk> {
        let place = Place { file: Arc::clone(&self.file), group, column };
        let mut inner = self.cache.lock();
        let Inner { now, chunks, by_age, .. } = &mut *inner;
        let entry = chunks.get_mut(&place)?;
        let arrays = entry.arrays.clone()?;
        *now += 1;
        by_age.remove(&entry.used_at);
        by_age.insert(*now, place);
        entry.used_at = *now;
        Some(arrays)
    }

    /// Asks for room for a column that will take about `bytes`. `None` if there is none, or if somebody
    /// else is reading it.
    pub(crate) fn begin(&self, group: usize, column: usize, bytes: usize) -> Option<Filling> {
        let place = Place { file: Arc::clone(&self.file), group, column };
        let mut inner = self.cache.lock();
        let bytes = bytes.saturating_add(ENTRY_BYTES);
        if inner.chunks.contains_key(&place)
            || !self.cache.make_room(&mut inner, bytes, self.before)
        {
            return None;
        }
        self.cache.held.fetch_add(bytes, Ordering::Relaxed);
        // Not in `by_age`: nothing evicts what is being read.
        let entry = Entry { arrays: None, bytes, used_at: 0 };
        inner.chunks.insert(place.clone(), entry);
        Some(Filling { cache: Arc::clone(&self.cache), place, arrays: Vec::new() })
    }
}

impl Filling {
    /// The next rows.
    pub(crate) fn push(&mut self, array: &ArrayRef) {
        self.arrays.push(Arc::clone(array));
    }

    /// That was all. Dropped before, nothing is kept.
    pub(crate) fn finish(mut self) {
        let arrays: Chunk = std::mem::take(&mut self.arrays).into();
        let bytes = size_of(&arrays) + ENTRY_BYTES;
        let cache = Arc::clone(&self.cache);
        let mut inner = cache.lock();
        let Inner { now, chunks, by_age, .. } = &mut *inner;
        let Some(entry) = chunks.get_mut(&self.place) else { return };
        *now += 1;
        by_age.insert(*now, self.place.clone());
        cache.held.fetch_add(bytes, Ordering::Relaxed);
        cache.held.fetch_sub(entry.bytes, Ordering::Relaxed);
        *entry = Entry { arrays: Some(arrays), bytes, used_at: *now };
    }
}

impl Drop for Filling {
    fn drop(&mut self) {
        let mut inner = self.cache.lock();
        if inner.chunks.get(&self.place).is_some_and(|it| it.arrays.is_none()) {
            self.cache.drop_chunk(&mut inner, &self.place);
        }
    }
}

/// Bytes of all buffers, each once: text of one page or dictionary is shared by many arrays.
fn size_of(arrays: &[ArrayRef]) -> usize {
    fn add(data: &ArrayData, known: &mut HashSet<usize>, bytes: &mut usize) {
        let nulls = data.nulls().map(|it| it.buffer());
        for buffer in data.buffers().iter().chain(nulls) {
            if known.insert(buffer.data_ptr().addr().get()) {
                *bytes += buffer.capacity();
            }
        }
        data.child_data().iter().for_each(|it| add(it, known, bytes));
    }
    let (mut known, mut bytes) = (HashSet::new(), 0);
    for array in arrays {
        add(&array.to_data(), &mut known, &mut bytes);
        bytes +=
            size_of_val(array) + array.get_array_memory_size() - array.get_buffer_memory_size();
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::Int64Array;

    /// Reads a chunk of 8,000 bytes of a file; says whether it was there.
    fn read(cache: &Arc<ColumnCache>, file: usize, statement: u64) -> bool {
        let Some(visit) = cache.visit(&format!("f{file}"), statement) else { return false };
        if visit.get(0, 0).is_some() {
            return true;
        }
        if let Some(mut filling) = visit.begin(0, 0, 8000) {
            let array: ArrayRef = Arc::new(Int64Array::from_iter_values(0..1000));
            filling.push(&array);
            filling.finish();
        }
        false
    }

    fn hits(cache: &Arc<ColumnCache>, files: std::ops::Range<usize>, statement: u64) -> usize {
        files.filter(|it| read(cache, *it, statement)).count()
    }

    #[test]
    fn the_second_statement_keeps() {
        let cache = Arc::new(ColumnCache::new(1 << 20));
        assert!(!read(&cache, 0, 1) && !read(&cache, 0, 1));
        assert_eq!(cache.held(), 0);
        assert!(!read(&cache, 0, 2));
        assert!(cache.held() >= 8000);
        assert!(read(&cache, 0, 2) && read(&cache, 0, 3));
    }

    #[test]
    fn scans_that_do_not_fit_find_a_part_and_others_come_in_later() {
        let cache = Arc::new(ColumnCache::new(100_000));
        for statement in 1..6 {
            let found = hits(&cache, 0..30, statement);
            assert!(statement < 3 || (8..30).contains(&found), "{found} in {statement}");
        }
        for statement in 6..9 {
            hits(&cache, 100..108, statement);
        }
        assert_eq!(hits(&cache, 100..108, 9), 8);
        assert!(cache.held() <= 100_000);
    }

    #[test]
    fn what_is_given_up_and_what_was_not_finished_is_gone() {
        let cache = Arc::new(ColumnCache::new(1 << 20));
        hits(&cache, 0..10, 1);
        hits(&cache, 0..10, 2);
        assert_eq!(hits(&cache, 0..10, 3), 10);
        cache.leave(1 << 20, (1 << 20) - 50_000);
        assert!(cache.held() <= 50_000);
        assert!((1..10).contains(&hits(&cache, 0..10, 4)));
        cache.leave(1 << 20, 2 << 20);
        assert_eq!(cache.held(), 0);
        cache.leave(1 << 20, 0);
        let visit = cache.visit("f0", 5).unwrap();
        let filling = visit.begin(0, 0, 8000);
        assert!(
            filling.is_some() && visit.begin(0, 0, 8000).is_none() && visit.get(0, 0).is_none()
        );
        drop(filling);
        assert_eq!(cache.held(), 0);
        assert!(visit.begin(0, 0, 8000).is_some());
    }
}
