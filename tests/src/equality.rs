//! Equality deletes, as other engines write them: Icefield only reads them.

use icefield_catalog::spec::{
    DataContentType, FormatVersion, ManifestContentType, ManifestStatus, Operation,
    PrimitiveLiteral, Snapshot, SnapshotReference, SnapshotRetention, Summary, TableIdent,
    TableUpdate,
};
use icefield_catalog::{Commit, CommitOutcome, TableChange};
use icefield_table::manifest::list::{self, ListHeader};
use icefield_table::manifest::write::{ManifestHeader, ManifestWriter};
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::{Table, Tables, location, partition, scan, snapshot};

/// The one data file of `table` as an equality delete file that compares the column with the id 1.
/// The table's rows are the keys; it is a way to write them without writing Parquet here.
pub async fn keys(table: &Table) -> DataFile {
    let version = snapshot::resolve(table.metadata(), &snapshot::At::Now).unwrap();
    let task = scan::plan(table, &version, None).await.unwrap().tasks.remove(0);
    let spec = partition::spec(table.metadata(), 0).unwrap();
    let types = partition::field_types(table.metadata(), spec).unwrap();
    let (manifest, index) = task.entry();
    let mut file = manifest.entry(index, &types).unwrap().file;
    file.content = DataContentType::EqualityDeletes;
    file.equality_ids = Some(vec![1]);
    file.first_row_id = None;
    file
}

/// Commits an equality delete file to a table, for rows of a spec and partition (of all, if the spec
/// has no fields). Gives the snapshot.
pub async fn commit(
    tables: &Tables,
    ident: &TableIdent,
    mut file: DataFile,
    spec_id: i32,
    values: Vec<Option<PrimitiveLiteral>>,
) -> i64 {
    (file.spec_id, file.partition) = (spec_id, values);
    let warehouse = tables.warehouse();
    let env = &warehouse.env;
    let table = tables.load(ident).await.unwrap();
    let metadata = table.metadata();
    let id = env.snapshot_id();
    let number = metadata.next_sequence_number();
    let spec = partition::spec(metadata, spec_id).unwrap();
    let header = ManifestHeader {
        version: metadata.format_version(),
        schema: metadata.current_schema(),
        spec,
        types: partition::field_types(metadata, spec).unwrap(),
        content: ManifestContentType::Deletes,
        snapshot_id: id,
    };
    let sync = env.uuid().into_bytes();
    let mut writer = ManifestWriter::new(header, location::manifest(metadata, env), sync).unwrap();
    let (status, sequence_number, file_sequence_number) = (ManifestStatus::Added, None, None);
    let snapshot_id = Some(id);
    let entry = ManifestEntry { status, snapshot_id, sequence_number, file_sequence_number, file };
    writer.add(&entry).unwrap();
    let (bytes, mut line) = writer.finish().unwrap();
    warehouse.storage.write(&line.path, bytes.into()).await.unwrap();
    (line.sequence_number, line.min_sequence_number) = (number, number);
    let mut lines = vec![line];
    let parent = metadata.current_snapshot().unwrap();
    lines.extend(table.manifest_list(parent.manifest_list()).await.unwrap().iter().cloned());

    let is_v3 = metadata.format_version() >= FormatVersion::V3;
    let next_row_id = metadata.next_row_id();
    let header = ListHeader {
        snapshot_id: id,
        parent_snapshot_id: Some(parent.snapshot_id()),
        sequence_number: number,
        first_row_id: is_v3.then_some(next_row_id as i64),
    };
    let bytes = list::encode(metadata.format_version(), &header, &lines, sync).unwrap();
    let path = location::manifest_list(metadata, env, id, 0);
    warehouse.storage.write(&path, bytes.into()).await.unwrap();
    let summary =
        Summary { operation: Operation::Delete, additional_properties: Default::default() };
    let builder = Snapshot::builder()
        .with_snapshot_id(id)
        .with_parent_snapshot_id(Some(parent.snapshot_id()))
        .with_sequence_number(number)
        .with_timestamp_ms(env.now_ms().max(metadata.last_updated_ms()))
        .with_manifest_list(path)
        .with_summary(summary)
        .with_schema_id(metadata.current_schema_id());
    let snapshot = match is_v3 {
        true => builder.with_row_range(next_row_id, 0).build(),
        false => builder.build(),
    };
    let retention = SnapshotRetention::branch(None, None, None);
    let updates = vec![
        TableUpdate::AddSnapshot { snapshot },
        TableUpdate::SetSnapshotRef {
            ref_name: "main".to_owned(),
            reference: SnapshotReference::new(id, retention),
        },
    ];
    let change = TableChange {
        table: ident.clone(),
        requirements: Vec::new(),
        updates,
        ledger: Vec::new(),
        only_from: None,
    };
    match warehouse.catalog.commit(&Commit::of(vec![change])).await.unwrap() {
        CommitOutcome::Committed(_) => id,
        other => panic!("an equality delete was not committed: {other:?}"),
    }
}
