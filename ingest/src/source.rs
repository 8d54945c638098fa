//! Which files are meant, what they are, and what tells them apart.

use std::collections::HashSet;
use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use icefield_catalog::Storage;
use icefield_query::{Error, Result};
use md5::{Digest, Md5};
use tempfile::TempPath;

/// What is in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// Comma-separated values with a header line.
    Csv,
    /// The same with tabs.
    Tsv,
    /// JSON: an array of objects, or objects one after the other.
    Json,
    /// Parquet.
    Parquet,
    /// Avro object container files.
    Avro,
}

/// How a file is compressed as a whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compression {
    /// Not at all.
    None,
    /// gzip.
    Gzip,
    /// Zstandard.
    Zstd,
}

/// A file to load. Bytes that are not in a local file (standard input, object storage) are first
/// brought into a temporary one, so that they can be read twice.
#[derive(Debug, Clone)]
pub struct Source {
    /// Its name for people and for the ledger: an absolute path or a URL; `-` is standard input.
    pub name: String,
    /// Its size in bytes, as it lies there.
    pub bytes: u64,
    /// MD5 of those bytes, in hex.
    pub checksum: String,
    /// What is in it.
    pub format: Format,
    compression: Compression,
    path: Arc<Held>,
    /// How many of its bytes have been read, since this was last set to 0.
    pub(crate) read: Arc<AtomicU64>,
}

#[derive(Debug)]
enum Held {
    Local(PathBuf),
    Temporary(TempPath),
}

impl Format {
    /// A format by its name, as `--input-format` has it.
    pub fn parse(name: &str) -> Option<Self> {
        Some(match name.to_ascii_lowercase().as_str() {
            "csv" => Self::Csv,
            "tsv" => Self::Tsv,
            "json" | "ndjson" | "jsonl" => Self::Json,
            "parquet" => Self::Parquet,
            "avro" => Self::Avro,
            _ => return None,
        })
    }
}

impl Source {
    /// The key under which the file lands once in a table; standard input has none.
    pub fn key(&self) -> Option<String> {
        (self.name != "-").then(|| format!("file:{}:{}:{}", self.checksum, self.bytes, self.name))
    }

    /// Its content, decompressed.
    pub fn open(&self) -> Result<Box<dyn Read + Send>> {
        let counted = Counted { file: self.file()?, place: 0, read: Arc::clone(&self.read) };
        let file = BufReader::with_capacity(1 << 20, counted);
        Ok(match self.compression {
            Compression::None => Box::new(file),
            Compression::Gzip => Box::new(flate2::read::MultiGzDecoder::new(file)),
            Compression::Zstd => {
                let decoder = zstd::stream::read::Decoder::with_buffer(file);
                Box::new(decoder.map_err(|error| self.unreadable(&error))?)
            }
        })
    }

    /// Its file, for formats that are read from several places at once.
    pub fn file(&self) -> Result<File> {
        let path: &Path = match self.path.as_ref() {
            Held::Local(path) => path,
            Held::Temporary(path) => path,
        };
        if self.compression != Compression::None
            && matches!(self.format, Format::Parquet | Format::Avro)
        {
            return Err(Error::unsupported(format!(
                "`{}`: Parquet and Avro files are compressed inside, not as a whole",
                self.name
            )));
        }
        File::open(path).map_err(|error| self.unreadable(&error))
    }

    /// An error that names the file.
    pub fn unreadable(&self, why: &dyn std::fmt::Display) -> Error {
        Error::invalid(format!("cannot read `{}`: {why}", self.name))
    }
}

/// A file that says how far it was read.
struct Counted {
    file: File,
    place: u64,
    read: Arc<AtomicU64>,
}

impl Read for Counted {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        let count = self.file.read(buffer)?;
        self.place += count as u64;
        self.read.fetch_max(self.place, Ordering::Relaxed);
        Ok(count)
    }
}

/// The files that patterns mean, in order, each once.
///
/// # Errors
///
/// A pattern that matches nothing, a file that cannot be read, or one whose format its name does not
/// tell when `format` does not either.
pub async fn find(
    patterns: &[String],
    format: Option<Format>,
    storage: &Storage,
) -> Result<Vec<Source>> {
    let mut sources: Vec<Source> = Vec::new();
    let mut seen: HashSet<PathBuf> = HashSet::new();
    for pattern in patterns {
        let found = if pattern == "-" {
            vec![from_stdin(format)?]
        } else if pattern.contains("://") && !pattern.starts_with("file://") {
            vec![from_storage(pattern, format, storage).await?]
        } else {
            let pattern = pattern.strip_prefix("file://").unwrap_or(pattern);
            from_disk(pattern, format)?
        };
        for source in found {
            // All spellings of a path are one file.
            let place = std::fs::canonicalize(&source.name);
            let place = place.unwrap_or_else(|_| PathBuf::from(&source.name));
            if source.name == "-" || seen.insert(place) {
                sources.push(source);
            }
        }
    }
    Ok(sources)
}

fn from_disk(pattern: &str, format: Option<Format>) -> Result<Vec<Source>> {
    let paths: Vec<PathBuf> = if Path::new(pattern).is_file() {
        vec![PathBuf::from(pattern)]
    } else {
        let found = glob::glob(pattern)
            .map_err(|error| Error::invalid(format!("`{pattern}` is no pattern: {error}")))?;
        found.filter_map(std::result::Result::ok).filter(|it| it.is_file()).collect()
    };
    if paths.is_empty() {
        let what = if Path::new(pattern).is_dir() { "is a folder" } else { "does not exist" };
        return Err(Error::not_found(format!("file `{pattern}` {what}"))
            .with_hint("give files, or a pattern in quotes: 'folder/*.parquet'"));
    }
    let read = paths.into_iter().map(|path| {
        let name = std::path::absolute(&path).unwrap_or_else(|_| path.clone());
        let name = without_dots(&name).to_string_lossy().into_owned();
        let (format, compression) = kind(&name, format)?;
        let unreadable =
            |error: std::io::Error| Error::invalid(format!("cannot read `{name}`: {error}"));
        let file = File::open(&path).map_err(unreadable)?;
        let (bytes, checksum) = digest(file, &mut std::io::sink()).map_err(unreadable)?;
        let path = Arc::new(Held::Local(path));
        let read = Arc::default();
        Ok(Source { name, bytes, checksum, format, compression, path, read })
    });
    read.collect()
}

/// A path without `..`, as it is written: links on the way keep their names.
fn without_dots(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            std::path::Component::ParentDir => {
                plain.pop();
            }
            part => plain.push(part),
        }
    }
    plain
}

fn from_stdin(format: Option<Format>) -> Result<Source> {
    let format = format.ok_or_else(|| {
        Error::invalid("standard input has no name to tell its format by")
            .with_hint("add --input-format csv, json, parquet or avro")
    })?;
    let mut held = tempfile::NamedTempFile::new().map_err(scratch)?;
    let (bytes, checksum) = digest(std::io::stdin().lock(), &mut held).map_err(scratch)?;
    let compression = match format {
        Format::Parquet | Format::Avro => Compression::None,
        Format::Csv | Format::Tsv | Format::Json => compressed(held.path()).map_err(scratch)?,
    };
    let path = Arc::new(Held::Temporary(held.into_temp_path()));
    let name = "-".to_owned();
    let read = Arc::default();
    Ok(Source { name, bytes, checksum, format, compression, path, read })
}

/// How a file without a name is compressed, by its first bytes.
fn compressed(path: &Path) -> std::io::Result<Compression> {
    let mut first = Vec::new();
    File::open(path)?.take(4).read_to_end(&mut first)?;
    Ok(match first.as_slice() {
        [0x1f, 0x8b, ..] => Compression::Gzip,
        [0x28, 0xb5, 0x2f, 0xfd] => Compression::Zstd,
        _ => Compression::None,
    })
}

/// Bytes asked for at once from storage.
const PART_BYTES: usize = 8 << 20;

async fn from_storage(location: &str, format: Option<Format>, storage: &Storage) -> Result<Source> {
    let (format, compression) = kind(location, format)?;
    // All spellings of a location are one file.
    let name = icefield_catalog::storage::place(location)?.location();
    let Some(bytes) = storage.size(location).await? else {
        return Err(Error::not_found(format!("file `{name}` does not exist")));
    };
    let mut held = tempfile::NamedTempFile::new().map_err(scratch)?;
    let mut hash = Md5::new();
    for start in (0..bytes).step_by(PART_BYTES) {
        let end = bytes.min(start + PART_BYTES as u64);
        let part = storage.read_range(location, start..end).await?;
        hash.update(&part);
        held.write_all(&part).map_err(scratch)?;
    }
    let checksum = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let path = Arc::new(Held::Temporary(held.into_temp_path()));
    let read = Arc::default();
    Ok(Source { name, bytes, checksum, format, compression, path, read })
}

fn scratch(error: std::io::Error) -> Error {
    Error::invalid(format!("cannot keep the input in a temporary file: {error}"))
}

/// Format and compression by the endings of a name.
fn kind(name: &str, format: Option<Format>) -> Result<(Format, Compression)> {
    let lower = name.to_ascii_lowercase();
    let (stem, compression) = if let Some(stem) = lower.strip_suffix(".gz") {
        (stem, Compression::Gzip)
    } else if let Some(stem) = lower.strip_suffix(".zst") {
        (stem, Compression::Zstd)
    } else {
        (lower.as_str(), Compression::None)
    };
    let ending = stem.rsplit('.').next().unwrap_or_default();
    let format = format.or_else(|| Format::parse(ending)).ok_or_else(|| {
        Error::invalid(format!("the name `{name}` does not tell the file's format"))
            .with_hint("add --input-format csv, json, parquet or avro")
    })?;
    Ok((format, compression))
}

/// Copies bytes and says how many they are and what they hash to.
fn digest(mut from: impl Read, to: &mut impl Write) -> std::io::Result<(u64, String)> {
    let mut hash = Md5::new();
    let mut bytes = 0;
    let mut buffer = vec![0; 1 << 20];
    loop {
        let read = from.read(&mut buffer)?;
        let Some(part) = buffer.get(..read).filter(|it| !it.is_empty()) else { break };
        hash.update(part);
        to.write_all(part)?;
        bytes += read as u64;
    }
    to.flush()?;
    let hex = hash.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok((bytes, hex))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_formats() {
        for (name, wanted) in [
            ("a.csv", Some((Format::Csv, Compression::None))),
            ("a.b.ndjson.gz", Some((Format::Json, Compression::Gzip))),
            ("A.PARQUET", Some((Format::Parquet, Compression::None))),
            ("x.tsv.zst", Some((Format::Tsv, Compression::Zstd))),
            ("x.txt", None),
        ] {
            assert_eq!(kind(name, None).ok(), wanted, "{name}");
        }
    }
}
