//! What is in one set and not in another, however many there are of either.
//!
//! ```text
//!   kept paths ───▶ ┌ 64 buckets, by hash ┐ ──▶ bucket by bucket: candidates that are not kept
//!   candidates ───▶ └ memory, then disk   ┘
//! ```
//!
//! Paths are compared by hashes of 128 bits. Should two ever be alike, a candidate is taken for kept,
//! and stays.

use std::collections::HashSet;
use std::fs::File;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::{BufReader, BufWriter, Read, Seek, Write};

use icefield_query::Result;

use crate::invalid;
use crate::reachable::Kind;

const BUCKETS: usize = 64;
/// Bytes held in memory before buckets go to disk.
const MEMORY_BYTES: usize = 64 << 20;

type Key = [u8; 16];

/// A path that may go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Candidate {
    pub(crate) path: String,
    pub(crate) kind: Kind,
    /// Bytes, if known.
    pub(crate) bytes: u64,
}

/// Two sets of paths being collected.
#[derive(Debug)]
pub(crate) struct SortedOut {
    buckets: Vec<Bucket>,
    memory: usize,
    memory_max: usize,
}

#[derive(Debug, Default)]
struct Bucket {
    kept: Vec<Key>,
    candidates: Vec<Candidate>,
    kept_file: Option<BufWriter<File>>,
    candidate_file: Option<BufWriter<File>>,
}

fn key(path: &str) -> Key {
    let hash = |seed: u8| {
        let mut hasher = DefaultHasher::new();
        seed.hash(&mut hasher);
        path.hash(&mut hasher);
        hasher.finish().to_le_bytes()
    };
    let mut key = [0; 16];
    for (to, from) in key.iter_mut().zip(hash(1).into_iter().chain(hash(2))) {
        *to = from;
    }
    key
}

fn failed(error: std::io::Error) -> icefield_query::Error {
    invalid(format!("a temporary file cannot be used: {error}"))
        .with_hint("TMPDIR says in which folder temporary files go")
}

impl SortedOut {
    pub(crate) fn new() -> Self {
        Self::with_memory(MEMORY_BYTES)
    }

    fn with_memory(memory_max: usize) -> Self {
        let buckets = (0..BUCKETS).map(|_| Bucket::default()).collect();
        Self { buckets, memory: 0, memory_max }
    }

    fn bucket(&mut self, key: &Key) -> Option<&mut Bucket> {
        let place = usize::from(key.first().copied().unwrap_or(0)) % BUCKETS;
        self.buckets.get_mut(place)
    }

    /// A path that stays. It may be named often.
    pub(crate) fn keep(&mut self, path: &str) -> Result<()> {
        let key = key(path);
        if let Some(bucket) = self.bucket(&key) {
            bucket.kept.push(key);
        }
        self.memory += size_of::<Key>();
        self.spill_if_full()
    }

    /// A path that goes, unless it stays. It may be named often.
    pub(crate) fn candidate(&mut self, candidate: Candidate) -> Result<()> {
        let key = key(&candidate.path);
        self.memory += candidate.path.len() + size_of::<Candidate>();
        if let Some(bucket) = self.bucket(&key) {
            bucket.candidates.push(candidate);
        }
        self.spill_if_full()
    }

    /// Whether nothing may go.
    pub(crate) fn is_empty(&self) -> bool {
        self.buckets.iter().all(|it| it.candidates.is_empty() && it.candidate_file.is_none())
    }

    fn spill_if_full(&mut self) -> Result<()> {
        if self.memory <= self.memory_max {
            return Ok(());
        }
        self.memory = 0;
        self.buckets.iter_mut().try_for_each(Bucket::spill).map_err(failed)
    }

    /// The candidates that do not stay, each once, bucket by bucket.
    pub(crate) fn into_gone(self) -> impl Iterator<Item = Result<Vec<Candidate>>> {
        self.buckets.into_iter().map(|it| it.gone().map_err(failed))
    }
}

fn scratch(file: &mut Option<BufWriter<File>>) -> std::io::Result<&mut BufWriter<File>> {
    Ok(match file {
        Some(file) => file,
        None => file.insert(BufWriter::new(tempfile::tempfile()?)),
    })
}

impl Bucket {
    fn spill(&mut self) -> std::io::Result<()> {
        if !self.kept.is_empty() {
            let file = scratch(&mut self.kept_file)?;
            for key in std::mem::take(&mut self.kept) {
                file.write_all(&key)?;
            }
        }
        if !self.candidates.is_empty() {
            let file = scratch(&mut self.candidate_file)?;
            for it in std::mem::take(&mut self.candidates) {
                file.write_all(&[it.kind as u8])?;
                file.write_all(&it.bytes.to_le_bytes())?;
                file.write_all(&(it.path.len() as u64).to_le_bytes())?;
                file.write_all(it.path.as_bytes())?;
            }
        }
        Ok(())
    }

    fn gone(mut self) -> std::io::Result<Vec<Candidate>> {
        let mut seen: HashSet<Key> = self.kept.drain(..).collect();
        if let Some(mut file) = read_again(self.kept_file.take())? {
            let mut key = Key::default();
            while read(&mut file, &mut key)? {
                seen.insert(key);
            }
        }
        let mut gone = Vec::new();
        let mut add = |it: Candidate| {
            if seen.insert(key(&it.path)) {
                gone.push(it);
            }
        };
        if let Some(mut file) = read_again(self.candidate_file.take())? {
            let mut head = [0; 17];
            while read(&mut file, &mut head)? {
                let number = |from: usize| {
                    let bytes = head.get(from..from + 8).and_then(|it| it.try_into().ok());
                    u64::from_le_bytes(bytes.unwrap_or_default())
                };
                let length = usize::try_from(number(9)).unwrap_or(0);
                let mut path = vec![0; length];
                file.read_exact(&mut path)?;
                let path = String::from_utf8_lossy(&path).into_owned();
                let kind = Kind::from_byte(head.first().copied().unwrap_or(0));
                add(Candidate { path, kind, bytes: number(1) });
            }
        }
        self.candidates.drain(..).for_each(add);
        gone.sort();
        Ok(gone)
    }
}

fn read_again(file: Option<BufWriter<File>>) -> std::io::Result<Option<BufReader<File>>> {
    let Some(file) = file else { return Ok(None) };
    let mut file = file.into_inner().map_err(std::io::IntoInnerError::into_error)?;
    file.rewind()?;
    Ok(Some(BufReader::new(file)))
}

/// Fills `bytes`; false at the end of the file.
fn read(file: &mut BufReader<File>, bytes: &mut [u8]) -> std::io::Result<bool> {
    match file.read_exact(bytes) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_stays_in_memory_and_on_disk() {
        for memory in [1 << 20, 1000] {
            let mut sets = SortedOut::with_memory(memory);
            for number in 0..500_u64 {
                let path = format!("s3://b/t/data/{number}.parquet");
                let (kind, bytes) = (Kind::Data, number);
                sets.candidate(Candidate { path: path.clone(), kind, bytes }).unwrap();
                sets.candidate(Candidate { path: path.clone(), kind, bytes }).unwrap();
                if number % 3 != 0 {
                    sets.keep(&path).unwrap();
                    sets.keep(&path).unwrap();
                }
            }
            let gone: Vec<_> = sets.into_gone().flat_map(Result::unwrap).collect();
            assert_eq!(gone.len(), 167, "with {memory} bytes of memory");
            assert!(gone.iter().all(|it| it.bytes % 3 == 0));
        }
    }
}
