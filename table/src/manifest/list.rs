//! Manifest lists: the manifests of one snapshot, with summaries to skip them by.

use icefield_catalog::spec::{FormatVersion, ManifestContentType};
use icefield_catalog::{Error, Result};
use serde_json::{Value, json};

use super::avro::{
    AvroField, AvroFile, AvroType, AvroWriter, Cursor, damaged, put_bytes, put_long, put_optional,
};

/// One line of a manifest list ([manifest lists]).
///
/// [manifest lists]: https://iceberg.apache.org/spec/#manifest-lists
#[derive(Debug, Clone, PartialEq)]
pub struct ManifestFile {
    /// The full location.
    pub path: String,
    /// Size in bytes.
    pub length: i64,
    /// The partition spec of all its files.
    pub spec_id: i32,
    /// Data files or delete files.
    pub content: ManifestContentType,
    /// The sequence number of the commit that wrote the manifest.
    pub sequence_number: i64,
    /// The least data sequence number of a live file in it.
    pub min_sequence_number: i64,
    /// The snapshot that wrote the manifest.
    pub added_snapshot_id: i64,
    /// Entries added, existing and deleted; `None` where an old writer did not count.
    pub files: [Option<i64>; 3],
    /// Rows in files added, existing and deleted.
    pub rows: [Option<i64>; 3],
    /// What the partition values are, field by field of the spec; empty if unknown.
    pub partitions: Vec<FieldSummary>,
    /// Opaque, for encrypted manifests.
    pub key_metadata: Option<Vec<u8>>,
    /// The row id from which files without one count (format v3).
    pub first_row_id: Option<i64>,
}

/// What one partition field's values are, over all files of a manifest.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct FieldSummary {
    /// Whether some value is null.
    pub contains_null: bool,
    /// Whether some value is NaN, if known.
    pub contains_nan: Option<bool>,
    /// No value is less; nulls and NaNs aside.
    pub lower_bound: Option<Vec<u8>>,
    /// No value is greater; nulls and NaNs aside.
    pub upper_bound: Option<Vec<u8>>,
}

impl ManifestFile {
    /// Whether the manifest may name files that are part of the snapshot.
    pub fn may_have_live_files(&self) -> bool {
        self.files[0] != Some(0) || self.files[1] != Some(0)
    }

    /// Whether it says all that lists of format version 2 have to say.
    pub(crate) fn is_complete(&self) -> bool {
        self.length != UNKNOWN && self.files.iter().chain(&self.rows).all(Option::is_some)
    }

    /// Rows in live files, if counted.
    pub fn live_rows(&self) -> Option<i64> {
        Some(self.rows[0]? + self.rows[1]?)
    }
}

/// Parses a manifest list, of any format version and writer.
pub fn parse(bytes: &[u8]) -> Result<Vec<ManifestFile>> {
    let file = AvroFile::parse(bytes)?;
    let AvroType::Record(fields) = &file.schema else {
        return Err(damaged("a manifest list holds records"));
    };
    let mut cursor = Cursor::new(&file.body, 0);
    (0..file.count).map(|_| parse_line(&mut cursor, fields)).collect()
}

/// A manifest of which only the location is known, as in old snapshots without a list.
pub fn unlisted(path: String) -> ManifestFile {
    ManifestFile {
        path,
        length: UNKNOWN,
        spec_id: 0,
        content: ManifestContentType::Data,
        sequence_number: 0,
        min_sequence_number: 0,
        added_snapshot_id: 0,
        files: [None; 3],
        rows: [None; 3],
        partitions: Vec::new(),
        key_metadata: None,
        first_row_id: None,
    }
}

/// The length of a manifest that no list describes.
const UNKNOWN: i64 = -1;

/// The line of an [`unlisted`] manifest with what the manifest says of itself.
pub(crate) fn completed(line: &ManifestFile, bytes: &[u8]) -> Result<ManifestFile> {
    let mut line = line.clone();
    if line.length == UNKNOWN {
        let file = AvroFile::parse(bytes)?;
        let spec_id = file.header_text("partition-spec-id").and_then(|it| it.parse().ok());
        line.spec_id = spec_id.unwrap_or(0);
    }
    Ok(line)
}

fn parse_line(cursor: &mut Cursor<'_>, fields: &[AvroField]) -> Result<ManifestFile> {
    let mut line = ManifestFile { length: 0, ..unlisted(String::new()) };
    for field in fields {
        let kind = cursor.member(&field.kind)?;
        if *kind == AvroType::Null {
            continue;
        }
        match field_id(field) {
            500 => line.path = cursor.text()?.to_owned(),
            501 => line.length = cursor.long()?,
            502 => line.spec_id = cursor.int()?,
            517 => {
                line.content = match cursor.long()? {
                    0 => ManifestContentType::Data,
                    1 => ManifestContentType::Deletes,
                    other => return Err(damaged(&format!("manifest content {other}"))),
                }
            }
            515 => line.sequence_number = cursor.long()?,
            516 => line.min_sequence_number = cursor.long()?,
            503 => line.added_snapshot_id = cursor.long()?,
            504 => line.files[0] = Some(cursor.long()?),
            505 => line.files[1] = Some(cursor.long()?),
            506 => line.files[2] = Some(cursor.long()?),
            512 => line.rows[0] = Some(cursor.long()?),
            513 => line.rows[1] = Some(cursor.long()?),
            514 => line.rows[2] = Some(cursor.long()?),
            507 => {
                let AvroType::Array(item) = kind else { return Err(damaged("no summaries")) };
                let AvroType::Record(item) = item.as_ref() else {
                    return Err(damaged("a summary is a record"));
                };
                cursor.blocks(|cursor| {
                    line.partitions.push(parse_summary(cursor, item)?);
                    Ok(())
                })?;
            }
            519 => line.key_metadata = Some(cursor.bytes()?.to_vec()),
            520 => line.first_row_id = Some(cursor.long()?),
            _ => cursor.skip(kind)?,
        }
    }
    if line.path.is_empty() {
        return Err(damaged("a manifest has no path"));
    }
    Ok(line)
}

/// The field's id; old writers gave counts without ids other names.
fn field_id(field: &AvroField) -> i32 {
    field.id.unwrap_or(match field.name.as_str() {
        "manifest_path" => 500,
        "manifest_length" => 501,
        "partition_spec_id" => 502,
        "added_snapshot_id" => 503,
        "added_files_count" | "added_data_files_count" => 504,
        "existing_files_count" | "existing_data_files_count" => 505,
        "deleted_files_count" | "deleted_data_files_count" => 506,
        "partitions" => 507,
        "sequence_number" => 515,
        "min_sequence_number" => 516,
        "content" => 517,
        _ => -1,
    })
}

fn parse_summary(cursor: &mut Cursor<'_>, fields: &[AvroField]) -> Result<FieldSummary> {
    let mut summary = FieldSummary::default();
    for field in fields {
        let kind = cursor.member(&field.kind)?;
        if *kind == AvroType::Null {
            continue;
        }
        match (field.id, field.name.as_str()) {
            (Some(509), _) | (None, "contains_null") => summary.contains_null = cursor.boolean()?,
            (Some(518), _) | (None, "contains_nan") => {
                summary.contains_nan = Some(cursor.boolean()?);
            }
            (Some(510), _) | (None, "lower_bound") => {
                summary.lower_bound = Some(cursor.bytes()?.to_vec());
            }
            (Some(511), _) | (None, "upper_bound") => {
                summary.upper_bound = Some(cursor.bytes()?.to_vec());
            }
            _ => cursor.skip(kind)?,
        }
    }
    Ok(summary)
}

/// What a manifest list says of its snapshot.
#[derive(Debug, Clone, Copy)]
pub struct ListHeader {
    /// The snapshot it belongs to.
    pub snapshot_id: i64,
    /// The snapshot before.
    pub parent_snapshot_id: Option<i64>,
    /// The snapshot's sequence number.
    pub sequence_number: i64,
    /// The table's next row id when the snapshot was made (format v3).
    pub first_row_id: Option<i64>,
}

/// Encodes a manifest list. `sync` is any sixteen bytes unlikely to occur by chance.
///
/// # Errors
///
/// A format version that is not written (v1).
pub fn encode(
    version: FormatVersion,
    header: &ListHeader,
    manifests: &[ManifestFile],
    sync: [u8; 16],
) -> Result<Vec<u8>> {
    if version == FormatVersion::V1 {
        return Err(Error::new(
            icefield_catalog::ErrorKind::FeatureUnsupported,
            "tables of format version 1 are read, not written; upgrade the table to version 2",
        ));
    }
    let is_v3 = version >= FormatVersion::V3;
    let or_null = |it: Option<i64>| it.map_or("null".to_owned(), |it| it.to_string());
    let mut meta = vec![
        ("format-version", (version as u8).to_string()),
        ("snapshot-id", header.snapshot_id.to_string()),
        ("parent-snapshot-id", or_null(header.parent_snapshot_id)),
        ("sequence-number", header.sequence_number.to_string()),
    ];
    if is_v3 {
        meta.push(("first-row-id", or_null(header.first_row_id)));
    }
    let mut writer = AvroWriter::new(&schema(is_v3), &meta, sync);
    for line in manifests {
        writer.value(|out| put_line(out, line, is_v3))?;
    }
    writer.finish()
}

fn put_line(out: &mut Vec<u8>, line: &ManifestFile, is_v3: bool) {
    put_bytes(out, line.path.as_bytes());
    put_long(out, line.length);
    put_long(out, i64::from(line.spec_id));
    put_long(out, line.content as i64);
    put_long(out, line.sequence_number);
    put_long(out, line.min_sequence_number);
    put_long(out, line.added_snapshot_id);
    for count in line.files.iter().chain(&line.rows) {
        put_long(out, count.unwrap_or(0));
    }
    let summaries = (!line.partitions.is_empty()).then_some(&line.partitions);
    put_optional(out, summaries, |out, summaries| {
        put_long(out, summaries.len() as i64);
        for summary in summaries {
            out.push(u8::from(summary.contains_null));
            put_optional(out, summary.contains_nan, |out, it| out.push(u8::from(it)));
            put_optional(out, summary.lower_bound.as_deref(), put_bytes);
            put_optional(out, summary.upper_bound.as_deref(), put_bytes);
        }
        put_long(out, 0);
    });
    put_optional(out, line.key_metadata.as_deref(), put_bytes);
    if is_v3 {
        put_optional(out, line.first_row_id, put_long);
    }
}

fn schema(is_v3: bool) -> Value {
    let summary = json!({"type": "record", "name": "r508", "fields": [
        {"name": "contains_null", "type": "boolean", "field-id": 509},
        {"name": "contains_nan", "type": ["null", "boolean"], "default": null, "field-id": 518},
        {"name": "lower_bound", "type": ["null", "bytes"], "default": null, "field-id": 510},
        {"name": "upper_bound", "type": ["null", "bytes"], "default": null, "field-id": 511}]});
    let partitions = json!(["null", {"type": "array", "items": summary, "element-id": 508}]);
    let field =
        |name: &str, kind: &str, id: i32| json!({"name": name, "type": kind, "field-id": id});
    let mut fields = vec![
        field("manifest_path", "string", 500),
        field("manifest_length", "long", 501),
        field("partition_spec_id", "int", 502),
        field("content", "int", 517),
        field("sequence_number", "long", 515),
        field("min_sequence_number", "long", 516),
        field("added_snapshot_id", "long", 503),
        field("added_files_count", "int", 504),
        field("existing_files_count", "int", 505),
        field("deleted_files_count", "int", 506),
        field("added_rows_count", "long", 512),
        field("existing_rows_count", "long", 513),
        field("deleted_rows_count", "long", 514),
        json!({"name": "partitions", "type": partitions, "default": null, "field-id": 507}),
        json!({"name": "key_metadata", "type": ["null", "bytes"], "default": null, "field-id": 519}),
    ];
    if is_v3 {
        fields.push(json!({"name": "first_row_id", "type": ["null", "long"], "default": null,
            "field-id": 520}));
    }
    json!({"type": "record", "name": "manifest_file", "fields": fields})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_reads_back() {
        let line = ManifestFile {
            path: "s3://b/t/metadata/m0.avro".to_owned(),
            length: 1234,
            spec_id: 2,
            content: ManifestContentType::Deletes,
            sequence_number: 9,
            min_sequence_number: 4,
            added_snapshot_id: i64::MAX,
            files: [Some(1), Some(2), Some(3)],
            rows: [Some(10), Some(20), Some(30)],
            partitions: vec![
                FieldSummary { contains_null: true, ..FieldSummary::default() },
                FieldSummary {
                    contains_null: false,
                    contains_nan: Some(false),
                    lower_bound: Some(vec![1]),
                    upper_bound: Some(vec![2]),
                },
            ],
            key_metadata: None,
            first_row_id: Some(77),
        };
        let header = ListHeader {
            snapshot_id: 5,
            parent_snapshot_id: None,
            sequence_number: 9,
            first_row_id: Some(7),
        };
        let bytes =
            encode(FormatVersion::V3, &header, std::slice::from_ref(&line), [3; 16]).unwrap();
        assert_eq!(parse(&bytes).unwrap(), std::slice::from_ref(&line));
        let bytes =
            encode(FormatVersion::V2, &header, std::slice::from_ref(&line), [3; 16]).unwrap();
        assert_eq!(parse(&bytes).unwrap(), [ManifestFile { first_row_id: None, ..line }]);
    }
}
