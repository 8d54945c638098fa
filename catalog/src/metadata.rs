//! `metadata.json`: naming, reading, writing.
//!
//! A table's metadata files are `metadata/<version>-<uuid>.metadata.json`, or `.gz.metadata.json`
//! when `write.metadata.compression-codec` is `gzip` ([naming], trap T-22). Other writers use other
//! names (`v3.metadata.json`), which are read and continued.
//!
//! [naming]: https://iceberg.apache.org/spec/#naming-for-gzip-compressed-metadata-json-files

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::spec::{
    FormatVersion, MAIN_BRANCH, PrimitiveType, SnapshotReference, TableMetadata, V3Type, json,
};
use crate::{Env, Error, ErrorKind, LoadedTable, Result, Storage};

/// How the message begins that JSON is no table metadata as far as is known here: it may be such of a later
/// version of the specification, and lead to files.
pub const NOT_READ: &str = "this is not Iceberg table metadata";

/// Reads the metadata file at `location`, compressed or not.
///
/// # Errors
///
/// A file that is missing, is not table metadata, or uses a format version or type that is not
/// read; the error names the file and, for a type, the column.
pub async fn read(storage: &Storage, location: &str) -> Result<LoadedTable> {
    let text = plain(storage.read(location).await?, location)?;
    let metadata = parse(&text).map_err(|error| error.with_context("metadata", location))?;
    Ok(LoadedTable { metadata_location: location.to_owned(), metadata: Arc::new(metadata) })
}

/// The text of a metadata file, which may be gzip, whatever it is called.
pub(crate) fn plain(raw: Bytes, location: &str) -> Result<Bytes> {
    if raw.starts_with(&[0x1f, 0x8b]) { gunzip(&raw, location) } else { Ok(raw) }
}

/// Parses the content of a metadata file, and says plainly what it cannot read.
pub fn parse(text: &[u8]) -> Result<TableMetadata> {
    let plain = match json::metadata_from_slice(text) {
        Ok(metadata) if metadata.current_snapshot().is_some() && metadata.history().is_empty() => {
            return with_history(text, &metadata);
        }
        Ok(metadata) if metadata.format_version() == FormatVersion::V1 => {
            return with_refs(text, metadata);
        }
        Ok(metadata) => {
            refuse_lost_defaults(text, &metadata)?;
            return Ok(metadata);
        }
        Err(error) => error,
    };
    // Only where it is needed, since it reads everything twice.
    if let Ok(mut value) = serde_json::from_slice::<Value>(text)
        && (inline_manifests(&mut value) | unsigned_ids(&mut value))
        && let Ok(metadata) = json::metadata_from_value(value)
    {
        return Ok(metadata);
    }
    Err(plain).map_err(|error: serde_json::Error| match serde_json::from_slice::<Value>(text) {
        Err(_) => invalid(format!("the table metadata is not JSON: {error}")),
        Ok(value) => why_unread(&value).unwrap_or_else(|| invalid(format!("{NOT_READ}: {error}"))),
    })
}

/// Ids of snapshots that some writers draw from all 64 bits without a sign, as the numbers of 64 bits with one that they are
/// everywhere else. Tells whether there were any.
fn unsigned_ids(value: &mut Value) -> bool {
    match value {
        Value::Array(all) => all.iter_mut().fold(false, |found, it| found | unsigned_ids(it)),
        Value::Object(object) => object.iter_mut().fold(false, |found, (name, it)| {
            let id = it.as_u64().filter(|it| *it > i64::MAX.cast_unsigned());
            match id.filter(|_| name.ends_with("snapshot-id")) {
                Some(id) => {
                    *it = Value::from(id.cast_signed());
                    true
                }
                None => found | unsigned_ids(it),
            }
        }),
        _ => false,
    }
}

/// Refuses defaults that iceberg 0.10 leaves out, those of nanoseconds: rows would be null instead, and the next commit
/// would forget them.
fn refuse_lost_defaults(text: &[u8], metadata: &TableMetadata) -> Result<()> {
    if metadata.format_version() < FormatVersion::V3 {
        return Ok(());
    }
    let has = |part: &[u8]| text.windows(part.len()).any(|it| it == part);
    let may_be = (has(b"timestamp_ns") || has(b"timestamptz_ns"))
        && (has(b"initial-default") || has(b"write-default"));
    if !may_be {
        return Ok(());
    }
    let value: Value = serde_json::from_slice(text)?;
    match lost_default(value.get("schemas").unwrap_or(&Value::Null)) {
        None => Ok(()),
        Some(name) => Err(Error::new(
            ErrorKind::FeatureUnsupported,
            format!("column `{name}` has a default in nanoseconds, which is not read yet"),
        )),
    }
}

/// A field in some schema with such a default.
fn lost_default(value: &Value) -> Option<String> {
    match value {
        Value::Array(all) => all.iter().find_map(lost_default),
        Value::Object(object) => {
            let is_nanos = object
                .get("type")
                .and_then(Value::as_str)
                .is_some_and(|it| it.starts_with("timestamp") && it.ends_with("_ns"));
            let defaults = ["initial-default", "write-default"];
            let has = defaults.iter().any(|it| object.get(*it).is_some_and(|it| !it.is_null()));
            match is_nanos && has {
                true => Some(object.get("name").and_then(Value::as_str).unwrap_or("?").to_owned()),
                false => object.values().find_map(lost_default),
            }
        }
        _ => None,
    }
}

/// The log of current snapshots is optional; iceberg 0.10 changes no table without one that has snapshots.
fn with_history(text: &[u8], metadata: &TableMetadata) -> Result<TableMetadata> {
    let Some(snapshot) = metadata.current_snapshot() else { return Ok(metadata.clone()) };
    let mut value: Value = serde_json::from_slice(text)?;
    let entry = serde_json::json!({
        "timestamp-ms": snapshot.timestamp_ms(), "snapshot-id": snapshot.snapshot_id(),
    });
    if let Some(object) = value.as_object_mut() {
        object.insert("snapshot-log".to_owned(), Value::from(vec![entry]));
    }
    // A snapshot that says to be younger than the table's last change is for iceberg to judge.
    Ok(json::metadata_from_value(value).unwrap_or_else(|_| metadata.clone()))
}

/// Branches and tags of a table of format version 1, of which iceberg 0.10 says that it has none.
fn with_refs(text: &[u8], metadata: TableMetadata) -> Result<TableMetadata> {
    let value: Value = serde_json::from_slice(text)?;
    let refs = value.get("refs").and_then(Value::as_object);
    let others: Vec<(&String, SnapshotReference)> = refs
        .into_iter()
        .flatten()
        .filter(|(name, _)| *name != MAIN_BRANCH)
        .filter_map(|(name, it)| Some((name, serde_json::from_value(it.clone()).ok()?)))
        .filter(|(_, it): &(_, SnapshotReference)| {
            metadata.snapshot_by_id(it.snapshot_id).is_some()
        })
        .collect();
    if others.is_empty() {
        return Ok(metadata);
    }
    let mut builder = metadata.clone().into_builder(None);
    for (name, reference) in others {
        builder = builder.set_ref(name, reference)?;
    }
    // What cannot be built anew can be read all the same.
    Ok(builder.build().map_or(metadata, |it| it.metadata))
}

/// Writes `metadata` as the file that follows `previous`, and returns its location.
pub async fn write_next(
    storage: &Storage,
    env: &Env,
    metadata: &TableMetadata,
    previous: Option<&str>,
) -> Result<String> {
    let version = previous.map_or(0, |it| version_of(it) + 1);
    let suffix = if is_gzip(metadata) { ".gz.metadata.json" } else { ".metadata.json" };
    let folder = folder(metadata);
    let location = format!("{folder}/{version:05}-{}{suffix}", env.uuid());
    storage.write(&location, to_bytes(metadata)?).await?;
    Ok(location)
}

/// Whether the table wants its metadata compressed.
pub(crate) fn is_gzip(metadata: &TableMetadata) -> bool {
    let codec = metadata.properties().get("write.metadata.compression-codec");
    codec.is_some_and(|it| it.eq_ignore_ascii_case("gzip"))
}

/// The content of a metadata file.
pub(crate) fn to_bytes(metadata: &TableMetadata) -> Result<Bytes> {
    let text = json::to_vec(metadata)?;
    Ok(Bytes::from(if is_gzip(metadata) { gzip_bytes(&text)? } else { text }))
}

/// The folder of metadata files: `write.metadata.path`, or `metadata` below the table.
pub fn folder(metadata: &TableMetadata) -> String {
    match metadata.properties().get("write.metadata.path") {
        Some(path) => path.trim_end_matches('/').to_owned(),
        None => format!("{}/metadata", metadata.location().trim_end_matches('/')),
    }
}

/// The version number in a metadata file's name; 0 where a foreign name has none.
pub fn version_of(location: &str) -> u64 {
    let name = location.rsplit('/').next().unwrap_or_default();
    let digits: String =
        name.trim_start_matches('v').chars().take_while(char::is_ascii_digit).collect();
    digits.parse().unwrap_or(0)
}

/// Metadata files that `next` no longer lists and that its properties say to delete (trap T-60).
pub fn dropped_from_log(base: &TableMetadata, next: &TableMetadata) -> Vec<String> {
    let wanted = next
        .properties()
        .get("write.metadata.delete-after-commit.enabled")
        .is_some_and(|it| it.eq_ignore_ascii_case("true"));
    if !wanted {
        return Vec::new();
    }
    base.metadata_log()
        .iter()
        .filter(|old| {
            !next.metadata_log().iter().any(|kept| kept.metadata_file == old.metadata_file)
        })
        .map(|old| old.metadata_file.clone())
        .collect()
}

/// Prefix of a manifest list that is not a file but the manifests' locations, one a line.
pub const INLINE: &str = "inline:";

/// Snapshots of format version 1 may name their manifests themselves. Gives such snapshots an
/// [`INLINE`] manifest list; says whether there were any.
fn inline_manifests(value: &mut Value) -> bool {
    let mut found = false;
    let snapshots = value.get_mut("snapshots").and_then(Value::as_array_mut);
    for snapshot in snapshots.into_iter().flatten().filter_map(Value::as_object_mut) {
        if snapshot.contains_key("manifest-list") {
            continue;
        }
        let Some(Value::Array(manifests)) = snapshot.remove("manifests") else { continue };
        let paths: Vec<_> = manifests.iter().filter_map(Value::as_str).collect();
        snapshot.insert("manifest-list".to_owned(), format!("{INLINE}{}", paths.join("\n")).into());
        found = true;
    }
    found
}

/// Names what in valid JSON keeps it from being read as table metadata.
fn why_unread(value: &Value) -> Option<Error> {
    let version = value.get("format-version").and_then(Value::as_i64);
    if let Some(version) = version.filter(|it| !(1..=3).contains(it)) {
        return Some(Error::new(
            ErrorKind::FeatureUnsupported,
            format!("table format version {version} is not supported; versions 1 to 3 are"),
        ));
    }
    let schemas = value.get("schemas").and_then(Value::as_array);
    let fields = schemas.into_iter().flatten().chain(value.get("schema"));
    fields.into_iter().find_map(|schema| unread_column(schema, "")).map(|(column, kind)| {
        Error::new(
            ErrorKind::FeatureUnsupported,
            format!("column `{column}` has type `{kind}`, which is not supported"),
        )
    })
}

/// The first column below `value` whose type is not read, with its dotted name.
fn unread_column(value: &Value, path: &str) -> Option<(String, String)> {
    if let Some(fields) = value.get("fields").and_then(Value::as_array) {
        return fields.iter().find_map(|field| {
            let name = field.get("name").and_then(Value::as_str).unwrap_or("?");
            let path = if path.is_empty() { name.to_owned() } else { format!("{path}.{name}") };
            unread_column(field.get("type")?, &path)
        });
    }
    if let Some(name) = value.as_str() {
        let is_known = V3Type::parse(name).is_some()
            || serde_json::from_value::<PrimitiveType>(value.clone()).is_ok();
        return (!is_known).then(|| (path.to_owned(), name.to_owned()));
    }
    ["element", "key", "value"]
        .iter()
        .filter_map(|part| value.get(part).map(|child| (part, child)))
        .find_map(|(part, child)| unread_column(child, &format!("{path}.{part}")))
}

fn gunzip(raw: &[u8], location: &str) -> Result<Bytes> {
    let mut text = Vec::new();
    flate2::read::GzDecoder::new(raw).read_to_end(&mut text).map_err(|error| {
        invalid(format!("the compressed table metadata is damaged: {error}"))
            .with_context("metadata", location)
    })?;
    Ok(text.into())
}

fn gzip_bytes(text: &[u8]) -> Result<Vec<u8>> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(text)?;
    Ok(encoder.finish()?)
}

fn invalid(message: String) -> Error {
    Error::new(ErrorKind::DataInvalid, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_without_a_sign_are_those_with_one() {
        let mut value = serde_json::json!({
            "current-snapshot-id": u64::MAX, "snapshots": [{ "snapshot-id": u64::MAX, "x": 1 }],
            "other": u64::MAX,
        });
        assert!(unsigned_ids(&mut value));
        let wanted = serde_json::json!({
            "current-snapshot-id": -1, "snapshots": [{ "snapshot-id": -1, "x": 1 }], "other": u64::MAX,
        });
        assert_eq!(value, wanted);
        assert!(!unsigned_ids(&mut value));
    }

    #[test]
    fn t22_versions_are_read_from_all_names_in_use() {
        for (name, version) in [
            ("s3://b/t/metadata/00012-2c1e.metadata.json", 12),
            ("/t/metadata/v3.metadata.json", 3),
            ("/t/metadata/00004-2c1e.gz.metadata.json", 4),
            ("/t/metadata/odd.metadata.json", 0),
        ] {
            assert_eq!(version_of(name), version, "{name}");
        }
    }

    #[test]
    fn a_future_format_version_is_named() {
        let error = parse(br#"{"format-version": 4, "table-uuid": "x"}"#).unwrap_err();
        assert!(error.message().contains("version 4"), "{error}");
    }

    #[test]
    fn an_unread_type_is_named_with_its_column() {
        let text = br#"{"format-version": 3, "schemas": [{"type": "struct", "fields": [
            {"id": 1, "name": "s", "required": false, "type": {"type": "struct", "fields": [
                {"id": 2, "name": "v", "required": false, "type": "polygon"}]}}]}]}"#;
        let error = parse(text).unwrap_err();
        assert!(error.message().contains("`s.v` has type `polygon`"), "{error}");
    }
}
