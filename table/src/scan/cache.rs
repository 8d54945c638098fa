//! Manifest lists and manifests kept in memory, by path. A path never changes content, so what is
//! kept is never stale; when it grows too large, what was used longest ago goes.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use crate::manifest::list::ManifestFile;
use crate::manifest::read::Manifest;

/// Bytes of parsed manifests kept.
const MANIFEST_BYTES_MAX: usize = 512 << 20;
/// Manifest lines kept, over all lists.
const LINES_MAX: usize = 200_000;

/// Both caches of one process.
#[derive(Debug)]
pub(crate) struct Cache {
    lists: Mutex<Recent<Vec<ManifestFile>>>,
    manifests: Mutex<Recent<Manifest>>,
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            lists: Mutex::new(Recent::new(LINES_MAX)),
            manifests: Mutex::new(Recent::new(MANIFEST_BYTES_MAX)),
        }
    }
}

impl Cache {
    pub(crate) fn list(&self, path: &str) -> Option<Arc<Vec<ManifestFile>>> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).get(path)
    }

    pub(crate) fn keep_list(&self, path: &str, lines: &Arc<Vec<ManifestFile>>) {
        let weight = lines.len() + 1;
        self.lists.lock().unwrap_or_else(PoisonError::into_inner).keep(path, lines, weight);
    }

    pub(crate) fn manifest(&self, path: &str) -> Option<Arc<Manifest>> {
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).get(path)
    }

    pub(crate) fn keep_manifest(&self, path: &str, manifest: &Arc<Manifest>) {
        // Twice its size, for the bounds that will be cut out of it.
        let weight = manifest.memory_bytes() * 2;
        self.manifests.lock().unwrap_or_else(PoisonError::into_inner).keep(path, manifest, weight);
    }
}

/// Values by key, limited by weight.
#[derive(Debug)]
struct Recent<T> {
    kept: HashMap<String, (Arc<T>, usize, u64)>,
    weight: usize,
    weight_max: usize,
    clock: u64,
}

impl<T> Recent<T> {
    fn new(weight_max: usize) -> Self {
        Self { kept: HashMap::new(), weight: 0, weight_max, clock: 0 }
    }

    fn get(&mut self, key: &str) -> Option<Arc<T>> {
        self.clock += 1;
        let (value, _, used) = self.kept.get_mut(key)?;
        *used = self.clock;
        Some(Arc::clone(value))
    }

    fn keep(&mut self, key: &str, value: &Arc<T>, weight: usize) {
        if weight > self.weight_max {
            return;
        }
        self.clock += 1;
        let new = (Arc::clone(value), weight, self.clock);
        if let Some((_, old, _)) = self.kept.insert(key.to_owned(), new) {
            self.weight -= old;
        }
        self.weight += weight;
        if self.weight > self.weight_max {
            self.shrink();
        }
    }

    /// Drops the least recently used half, so that this is rare.
    fn shrink(&mut self) {
        let mut uses: Vec<u64> = self.kept.values().map(|(_, _, used)| *used).collect();
        uses.sort_unstable();
        let Some(middle) = uses.get(uses.len() / 2).copied() else { return };
        self.kept.retain(|_, (_, _, used)| *used >= middle);
        self.weight = self.kept.values().map(|(_, weight, _)| weight).sum();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_last_stays() {
        let mut recent = Recent::new(10);
        for key in 0..10 {
            recent.keep(&key.to_string(), &Arc::new(key), 1);
        }
        assert!(recent.get("0").is_some());
        recent.keep("new", &Arc::new(99), 1);
        assert!(recent.get("0").is_some() && recent.get("new").is_some());
        assert!(recent.get("1").is_none());
        assert!(recent.weight <= 10);
    }
}
