//! Deleted rows: which positions of a data file are gone, read and written.
//!
//! ```text
//!   deletion vector (v3)      Puffin blob, one a data file      ─┐
//!   position delete file (v2) rows of file_path, pos            ─┴─▶ RoaringTreemap of positions
//! ```
//!
//! Both become one bitmap. Equality deletes name values, not positions; they are made into positions
//! by whoever can read rows, which this crate does not.

pub mod positions;
pub mod vector;

use std::sync::Arc;

use icefield_catalog::spec::{DataContentType, DataFileFormat};
use icefield_catalog::{Error, ErrorKind, Result};
use roaring::RoaringTreemap;

use crate::manifest::ManifestEntry;
use crate::table::Table;

/// Positions that `entries` (deletion vectors and position delete files) delete in the data file at
/// `path`, as the metadata writes it. Equality deletes among them are left out.
///
/// # Errors
///
/// A delete file that is missing or damaged.
pub async fn positions_of(
    table: &Table,
    path: &str,
    entries: &[Arc<ManifestEntry>],
) -> Result<RoaringTreemap> {
    let mut all = RoaringTreemap::new();
    for entry in entries {
        match (entry.file.content, entry.file.format) {
            (DataContentType::PositionDeletes, DataFileFormat::Puffin) => {
                all |= vector::load(table, entry).await?;
            }
            (DataContentType::PositionDeletes, format) => {
                let location = table.locate(&entry.file.path);
                let mut found = positions::read(table.storage(), format, &location).await?;
                if let Some(found) = found.remove(path) {
                    all |= found;
                }
            }
            _ => {}
        }
    }
    Ok(all)
}

/// Whether a delete file is of one data file, and which (trap T-33).
pub fn one_path(entry: &ManifestEntry) -> Option<String> {
    if entry.file.content != DataContentType::PositionDeletes {
        return None;
    }
    if let Some(path) = &entry.file.referenced_data_file {
        return Some(path.clone());
    }
    let lower = entry.file.metrics.lower_bounds.get(&positions::FILE_PATH)?;
    let upper = entry.file.metrics.upper_bounds.get(&positions::FILE_PATH)?;
    (lower == upper).then(|| String::from_utf8(lower.clone()).ok())?
}

pub(crate) fn corrupt(location: &str, why: &str) -> Error {
    Error::new(ErrorKind::DataInvalid, format!("cannot apply deletes of `{location}`: {why}"))
}
