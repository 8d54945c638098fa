//! Which files lie in a folder, and what the names of the folders on the way say.

use futures::StreamExt;
use icefield_catalog::{Storage, storage};
use icefield_query::{Error, Result};
use icefield_table::write::foreign::FolderValues;
use percent_encoding::percent_decode_str;

/// How Hive names the folder of null.
const NULL: &str = "__HIVE_DEFAULT_PARTITION__";

/// A file to add.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Where it lies.
    pub location: String,
    /// Its size in bytes.
    pub bytes: u64,
    /// What its folders say, by column.
    pub folders: FolderValues,
}

/// The location that is meant by a path, a URL, or `` parquet.`path` `` as Spark has it.
///
/// # Errors
///
/// Another format, and what is no location.
pub(super) fn place(source: &str) -> Result<String> {
    let text = source.trim();
    let unquoted = |it: &str| it.trim_matches('`').to_owned();
    let path = match text.split_once('.') {
        Some((format, path)) if path.starts_with('`') && path.ends_with('`') => {
            let format = unquoted(format).to_lowercase();
            if format != "parquet" {
                return Err(Error::unsupported(format!(
                    "files of {format} cannot be added as they are: only Parquet can"
                ))
                .with_hint("icefield ingest reads CSV, JSON and Avro, and writes them anew"));
            }
            unquoted(path)
        }
        _ => unquoted(text),
    };
    let path = match path.contains("://") || path.starts_with("file:") {
        true => path,
        false => {
            let absolute = std::path::absolute(&path)
                .map_err(|error| Error::invalid(format!("`{path}` is no path: {error}")))?;
            absolute.to_string_lossy().into_owned()
        }
    };
    Ok(storage::place(path.trim_end_matches('/'))?.location())
}

/// The files in a folder and below it, in the order of their names; or the one file that is named. Names that begin with
/// `_` or `.` are nobody's data.
///
/// # Errors
///
/// A folder that cannot be listed, or that has an Iceberg table in it.
pub async fn find(storage: &Storage, source: &str) -> Result<Vec<Found>> {
    let root = place(source)?;
    let known = storage::place(&root)?;
    let store = storage.store(&known.root)?;
    let mut listed = store.list(Some(&known.path));
    let mut found = Vec::new();
    while let Some(object) = listed.next().await {
        let object = object.map_err(|error| storage::cannot("list", &root, error))?;
        let location = format!("{}{}", known.root, object.location);
        let Some(below) = location.strip_prefix(&root).and_then(|it| it.strip_prefix('/')) else {
            continue;
        };
        if below.contains(".metadata.json") {
            return Err(Error::invalid(format!("`{root}` has an Iceberg table in it: {below}"))
                .with_hint("CALL system.register_table makes it known as it is"));
        }
        // `_day=1` is a partition, and `_temporary` nobody's.
        let (folder, name) = below.rsplit_once('/').unwrap_or(("", below));
        let is_hidden = |it: &str| it.starts_with(['_', '.']);
        if is_hidden(name) || folder.split('/').any(|it| is_hidden(it) && !it.contains('=')) {
            continue;
        }
        found.push(Found { folders: said(below)?, bytes: object.size, location: real(&location) });
    }
    if found.is_empty()
        && let Some(bytes) = storage.size(&root).await?
    {
        found.push(Found { location: real(&root), bytes, folders: FolderValues::new() });
    }
    found.sort_by(|a, b| a.location.cmp(&b.location));
    found.dedup_by(|a, b| a.location == b.location);
    Ok(found)
}

/// A file by the path that no link is on, so that it is one file whatever it is called.
pub(super) fn real(location: &str) -> String {
    let path = location.strip_prefix("file://").and_then(|it| std::fs::canonicalize(it).ok());
    match path.as_ref().and_then(|it| it.to_str()) {
        Some(path) => format!("file://{path}"),
        None => location.to_owned(),
    }
}

/// What the folders of a path say: `day=2026-11-01/kind=a%2Fb/x.parquet`.
///
/// # Errors
///
/// Two folders about one column, and names that are no text.
fn said(path: &str) -> Result<FolderValues> {
    let mut folders = FolderValues::new();
    let (folder, _) = path.rsplit_once('/').unwrap_or_default();
    for part in folder.split('/') {
        let Some((key, value)) = part.split_once('=') else { continue };
        let decoded = |it: &str| {
            let text = percent_decode_str(it).decode_utf8();
            text.map(|it| it.into_owned())
                .map_err(|_| Error::invalid(format!("the folder `{part}` of `{path}` is no text")))
        };
        let value = match value {
            NULL => None,
            value => Some(decoded(value)?),
        };
        if folders.insert(decoded(key)?, value).is_some() {
            return Err(Error::invalid(format!("two folders of `{path}` say what `{key}` is")));
        }
    }
    Ok(folders)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_say_values() {
        let some = |it: &str| Some(it.to_owned());
        let wanted = FolderValues::from([
            ("day".to_owned(), some("2026-11-01")),
            ("k".to_owned(), some("a/b c")),
            ("n".to_owned(), None),
        ]);
        let path = "x/day=2026-11-01/k=a%2Fb c/n=__HIVE_DEFAULT_PARTITION__/part=1.parquet";
        assert_eq!(said(path).unwrap(), wanted);
        assert!(said("k=1/k=2/x").unwrap_err().message.contains("two folders"));
        assert!(said("k=%FF/x").unwrap_err().message.contains("no text"));
    }

    #[test]
    fn sources_are_written_in_several_ways() {
        for source in ["/a/b", "/a/b/", "parquet.`/a/b`", "`parquet`.`/a/b`", "file:///a/b"] {
            assert_eq!(place(source).unwrap(), "file:///a/b", "{source}");
        }
        assert_eq!(place("parquet.`s3://b/x.y`").unwrap(), "s3://b/x.y");
        assert!(place("orc.`/a/b`").unwrap_err().message.contains("only Parquet"));
    }
}
