//! What implementers of the format get wrong, a test a trap; docs/traps.md has the whole list.
//!
//! Statements run on a warehouse in memory; [`Lake::foreign`] commits what another writer might
//! have written and we would not: equality deletes, deletes of a whole partition, odd metadata.

mod commit;
mod deletes;
mod metrics;
mod races;
mod schemas;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use futures::TryStreamExt;
use icefield_catalog::spec::{
    DataContentType, FormatVersion, ManifestContentType, ManifestStatus, Operation,
    PrimitiveLiteral, Snapshot, SnapshotReference, SnapshotRetention, Summary, TableIdent,
    TableUpdate,
};
use icefield_catalog::{Commit, CommitOutcome, Env, Storage, TableChange};
use icefield_query::{Answer, Session};
use icefield_table::manifest::list::{self, ListHeader, ManifestFile};
use icefield_table::manifest::write::{ManifestHeader, ManifestWriter, UNASSIGNED};
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::{Table, Tables, location, partition};
use icefield_tests::faulty_catalog::{Fault, FaultyCatalog, Meanwhile};
use icefield_tests::{memory_warehouse, settings};

/// A warehouse in memory with the namespace `raw`.
struct Lake {
    session: Session,
    /// Of a thousand answers of the catalog, so many are lost.
    odds: Arc<AtomicU64>,
    next: Arc<Mutex<Option<Fault>>>,
    meanwhile: Arc<Meanwhile>,
}

impl Lake {
    async fn new() -> Self {
        let odds = Arc::new(AtomicU64::new(0));
        let (mut next, mut meanwhile) = (Arc::default(), Arc::default());
        let tables = memory_warehouse(Storage::new(), Env::seeded(7), |inner| {
            let catalog = FaultyCatalog::new(inner, Env::seeded(7), Arc::clone(&odds));
            (next, meanwhile) = (catalog.next(), catalog.meanwhile());
            Arc::new(catalog)
        });
        let session = Session::new(tables, settings()).unwrap();
        let session = session.with_procedures(icefield_compaction::procedures());
        let lake = Self { session, odds, next, meanwhile };
        lake.run("CREATE NAMESPACE cleaned").await;
        lake
    }

    /// A warehouse in which statements have been run.
    async fn with(statements: &[&str]) -> Self {
        let lake = Self::new().await;
        for sql in statements {
            lake.run(sql).await;
        }
        lake
    }

    /// A session of another process: it shares catalog and storage.
    fn other(&self) -> Session {
        let tables = Tables::new(self.session.tables().warehouse().clone());
        Session::new(tables, settings()).unwrap()
    }

    /// Has another process run a statement right before our next commit.
    fn meanwhile(&self, sql: &'static str) {
        let other = self.other();
        self.meanwhile.set(async move {
            other.run(sql).await.unwrap();
        });
    }

    fn fault(&self, fault: Fault) {
        *self.next.lock().unwrap() = Some(fault);
    }

    fn lose_answers(&self, of_thousand: u64) {
        self.odds.store(of_thousand, Ordering::Relaxed);
    }

    async fn run(&self, sql: &str) -> Vec<RecordBatch> {
        match self.session.run(sql).await {
            Ok(Answer::Rows(rows)) => rows.stream.try_collect().await.unwrap(),
            Ok(Answer::Done(_)) => Vec::new(),
            Err(error) => panic!("{sql}: {error}"),
        }
    }

    /// The rows of a query, as `1,a; 2,b`.
    async fn rows(&self, sql: &str) -> String {
        let mut rows = Vec::new();
        for batch in self.run(sql).await {
            let options = FormatOptions::new().with_null("NULL");
            let columns: Vec<_> = batch
                .columns()
                .iter()
                .map(|it| ArrayFormatter::try_new(it, &options).unwrap())
                .collect();
            for row in 0..batch.num_rows() {
                let cells: Vec<_> = columns.iter().map(|it| it.value(row).to_string()).collect();
                rows.push(cells.join(","));
            }
        }
        rows.join("; ")
    }

    /// What is said when a statement is refused, or its rows cannot be read.
    async fn error(&self, sql: &str) -> String {
        match self.session.run(sql).await {
            Err(error) => error.to_string(),
            Ok(Answer::Done(done)) => panic!("{sql} was not refused: {done:?}"),
            Ok(Answer::Rows(rows)) => {
                let read: Result<Vec<_>, _> = rows.stream.try_collect().await;
                read.unwrap_err().to_string()
            }
        }
    }

    async fn table(&self, name: &str) -> Table {
        let ident = TableIdent::from_strs(name.split('.')).unwrap();
        self.session.tables().load(&ident).await.unwrap()
    }

    /// The newest data file of a table.
    async fn file(&self, name: &str) -> DataFile {
        let all = entries(&self.table(name).await).await;
        let data = all.into_iter().find(|(line, _)| line.content == ManifestContentType::Data);
        data.unwrap().1.file
    }

    /// Commits updates of a table's metadata.
    async fn update(&self, name: &str, updates: Vec<TableUpdate>) -> Table {
        let table = self.table(name).await;
        let ident = table.ident().unwrap().clone();
        let change = TableChange {
            table: ident,
            requirements: Vec::new(),
            updates,
            ledger: Vec::new(),
            only_from: None,
        };
        let commit = Commit::of(vec![change]);
        let outcome = self.session.tables().warehouse().catalog.commit(&commit).await.unwrap();
        assert!(matches!(outcome, CommitOutcome::Committed(_)), "{outcome:?}");
        self.table(name).await
    }

    /// A snapshot of another writer: `files` are added on what is there, in manifests by content
    /// and spec, and `edit` may spoil the manifest list.
    async fn foreign(
        &self,
        name: &str,
        files: &[DataFile],
        edit: impl FnOnce(&mut Vec<ManifestFile>),
    ) -> Table {
        let table = self.table(name).await;
        let metadata = table.metadata();
        let warehouse = self.session.tables().warehouse();
        let id = warehouse.env.snapshot_id();
        let number = metadata.next_sequence_number();
        let mut groups: Vec<(ManifestContentType, i32, Vec<&DataFile>)> = Vec::new();
        for file in files {
            let content = match file.content {
                DataContentType::Data => ManifestContentType::Data,
                _ => ManifestContentType::Deletes,
            };
            match groups.iter_mut().find(|it| it.0 == content && it.1 == file.spec_id) {
                Some(group) => group.2.push(file),
                None => groups.push((content, file.spec_id, vec![file])),
            }
        }
        let is_v3 = metadata.format_version() >= FormatVersion::V3;
        let mut next_row_id = metadata.next_row_id() as i64;
        let mut lines = Vec::new();
        for (content, spec_id, files) in groups {
            let spec = partition::spec(metadata, spec_id).unwrap();
            let header = ManifestHeader {
                version: metadata.format_version(),
                schema: metadata.current_schema(),
                spec,
                types: partition::field_types(metadata, spec).unwrap(),
                content,
                snapshot_id: id,
            };
            let path = location::manifest(metadata, &warehouse.env);
            let mut writer = ManifestWriter::new(header, path, [7; 16]).unwrap();
            for file in files {
                let (sequence_number, file_sequence_number) = (None, None);
                let (status, snapshot_id) = (ManifestStatus::Added, Some(id));
                let file = file.clone();
                let entry = ManifestEntry {
                    status,
                    snapshot_id,
                    sequence_number,
                    file_sequence_number,
                    file,
                };
                writer.add(&entry).unwrap();
            }
            let (bytes, mut line) = writer.finish().unwrap();
            warehouse.storage.write(&line.path, bytes.into()).await.unwrap();
            assert_eq!(line.sequence_number, UNASSIGNED);
            (line.sequence_number, line.min_sequence_number) = (number, number);
            if is_v3 && content == ManifestContentType::Data {
                line.first_row_id = Some(next_row_id);
                next_row_id += line.live_rows().unwrap();
            }
            lines.push(line);
        }
        let parent = metadata.current_snapshot();
        if let Some(parent) = parent {
            let before = table.manifest_list(parent.manifest_list()).await.unwrap();
            lines.extend(before.iter().cloned());
        }
        edit(&mut lines);
        let first = metadata.next_row_id();
        let header = ListHeader {
            snapshot_id: id,
            parent_snapshot_id: parent.map(|it| it.snapshot_id()),
            sequence_number: number,
            first_row_id: is_v3.then_some(first as i64),
        };
        let bytes = list::encode(metadata.format_version(), &header, &lines, [7; 16]).unwrap();
        let path = location::manifest_list(metadata, &warehouse.env, id, 0);
        warehouse.storage.write(&path, bytes.into()).await.unwrap();
        let summary =
            Summary { operation: Operation::Overwrite, additional_properties: HashMap::new() };
        let builder = Snapshot::builder()
            .with_snapshot_id(id)
            .with_parent_snapshot_id(header.parent_snapshot_id)
            .with_sequence_number(number)
            .with_timestamp_ms(metadata.last_updated_ms() + 1)
            .with_manifest_list(path)
            .with_summary(summary)
            .with_schema_id(metadata.current_schema_id());
        let snapshot = match is_v3 {
            true => builder.with_row_range(first, next_row_id as u64 - first).build(),
            false => builder.build(),
        };
        let main = SnapshotReference::new(id, SnapshotRetention::branch(None, None, None));
        let updates = vec![
            TableUpdate::AddSnapshot { snapshot },
            TableUpdate::SetSnapshotRef { ref_name: "main".to_owned(), reference: main },
        ];
        self.update(name, updates).await
    }

    /// The newest data file of the table `keys` as equality deletes by its columns `ids`, for a
    /// partition.
    async fn equality(
        &self,
        keys: &str,
        ids: &[i32],
        spec_id: i32,
        partition: Vec<Option<PrimitiveLiteral>>,
    ) -> DataFile {
        let mut file = self.file(keys).await;
        file.content = DataContentType::EqualityDeletes;
        file.equality_ids = Some(ids.to_vec());
        (file.spec_id, file.partition, file.first_row_id) = (spec_id, partition, None);
        file
    }
}

/// The lines of the head's manifest list.
async fn lines(table: &Table) -> Vec<ManifestFile> {
    let head = table.metadata().current_snapshot().unwrap();
    table.manifest_list(head.manifest_list()).await.unwrap().to_vec()
}

/// All entries of the head, deleted ones too, with the line of their manifest.
async fn entries(table: &Table) -> Vec<(ManifestFile, ManifestEntry)> {
    let mut all = Vec::new();
    for line in lines(table).await {
        let manifest = table.manifest(&line).await.unwrap();
        let spec = partition::spec(table.metadata(), line.spec_id).unwrap();
        let types = partition::field_types(table.metadata(), spec).unwrap();
        for index in 0..manifest.len() {
            all.push((line.clone(), manifest.entry(index, &types).unwrap()));
        }
    }
    all
}

/// The live delete files of the head.
async fn live_deletes(table: &Table) -> Vec<DataFile> {
    let all = entries(table).await.into_iter();
    all.filter(|(line, it)| {
        line.content == ManifestContentType::Deletes && it.status != ManifestStatus::Deleted
    })
    .map(|(_, it)| it.file)
    .collect()
}
