//! `rewrite_table_path`: a table's metadata as it would be elsewhere, and the list of what has to be copied there.
//!
//! ```text
//!   metadata.json ─▶ manifest lists ─▶ manifests ─▶ position deletes, deletion vectors
//!        all that has paths in it is written anew, into a staging folder, with the other prefix
//!   file-list:  from,to    staged files, and data files as they lie
//! ```
//!
//! The table itself stays as it is. Who has copied all that the list says makes the copy known by `register_table`.

mod files;
mod prefix;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use arrow::array::{RecordBatch, StringArray};
use async_trait::async_trait;
use icefield_catalog::spec::{DataContentType, DataFileFormat, ManifestStatus, SnapshotRef};
use icefield_query::procedure::{Arguments, Kind as Takes, Parameter, Procedure};
use icefield_query::{Result, Session};
use icefield_table::manifest::list::{self, ListHeader, ManifestFile};
use icefield_table::manifest::write::{ManifestHeader, ManifestWriter};
use icefield_table::manifest::{DataFile, ManifestEntry};
use icefield_table::{Table, partition};

use self::prefix::Prefix;
use crate::{answer, int, invalid, refuse_v1};

/// The procedure.
#[derive(Debug)]
pub struct RewriteTablePath;

#[async_trait]
impl Procedure for RewriteTablePath {
    fn name(&self) -> &'static str {
        "rewrite_table_path"
    }

    fn parameters(&self) -> &'static [Parameter] {
        const ALL: [Parameter; 7] = [
            Parameter::required("table", Takes::Text),
            Parameter::required("source_prefix", Takes::Text),
            Parameter::required("target_prefix", Takes::Text),
            Parameter::optional("start_version", Takes::Text),
            Parameter::optional("end_version", Takes::Text),
            Parameter::optional("staging_location", Takes::Text),
            Parameter::optional("create_file_list", Takes::Boolean),
        ];
        &ALL
    }

    async fn call(&self, session: &Session, arguments: &Arguments) -> Result<RecordBatch> {
        let table = session.table(arguments.required_text("table")?).await?;
        let request = Request {
            prefix: Prefix::new(
                arguments.required_text("source_prefix")?,
                arguments.required_text("target_prefix")?,
            )?,
            start: arguments.text("start_version").map(str::to_owned),
            end: arguments.text("end_version").map(str::to_owned),
            staging: arguments.text("staging_location").map(str::to_owned),
            lists_files: arguments.is("create_file_list") != Some(false),
        };
        let done = run(&table, &request).await?;
        let text = |it: String| Arc::new(StringArray::from(vec![it])) as _;
        answer(vec![
            ("latest_version", text(done.latest)),
            ("file_list_location", text(done.file_list)),
            ("rewritten_manifest_file_paths_count", int(done.manifests)),
            ("rewritten_delete_file_paths_count", int(done.delete_files)),
        ])
    }
}

/// What is asked.
#[derive(Debug, Clone)]
pub struct Request {
    prefix: Prefix,
    /// The name of the metadata file that the copy has already.
    start: Option<String>,
    /// The name of the metadata file that is to be copied; that of now if not given.
    end: Option<String>,
    /// Where new files are put; beside the table's metadata if not given.
    staging: Option<String>,
    lists_files: bool,
}

/// What was written.
#[derive(Debug, Clone, Default)]
pub struct Done {
    /// The name of the copy's metadata file.
    pub latest: String,
    /// Where the list of files is; `N/A` if there is none.
    pub file_list: String,
    /// Manifests written anew.
    pub manifests: usize,
    /// Delete files written anew.
    pub delete_files: usize,
}

/// Work in progress.
pub(crate) struct Rewriting<'a> {
    table: &'a Table,
    request: &'a Request,
    staging: String,
    /// What is to be copied, from and to.
    copies: Vec<(String, String)>,
    copied: HashSet<String>,
    /// Sizes of delete files that were written anew, by their old path.
    sizes: HashMap<String, u64>,
    /// Manifests that were written anew, by their old path.
    manifests: HashMap<String, ManifestFile>,
}

/// Writes what has paths in it anew.
///
/// # Errors
///
/// A version that is not there, a path that does not begin with the prefix, and files that cannot be read.
pub async fn run(table: &Table, request: &Request) -> Result<Done> {
    refuse_v1(table)?;
    let versions = versions(table, request).await?;
    let Some(end) = versions.last() else { return Err(invalid("there is no such version")) };
    let known: HashSet<i64> = match &request.start {
        Some(name) => {
            let start = table.tables().open_file(&named(table, name)?, false).await?;
            start.metadata().snapshots().map(|it| it.snapshot_id()).collect()
        }
        None => HashSet::new(),
    };
    let folder = icefield_catalog::metadata::folder(table.metadata());
    let uuid = table.tables().warehouse().env.uuid();
    let staging = match &request.staging {
        Some(place) => place.trim_end_matches('/').to_owned(),
        None => format!("{folder}/copy-table-staging-{uuid}"),
    };
    let last = table.tables().open_file(end, false).await?;
    let mut work = Rewriting {
        table: &last,
        request,
        staging,
        copies: Vec::new(),
        copied: HashSet::new(),
        sizes: HashMap::new(),
        manifests: HashMap::new(),
    };
    let mut new: Vec<SnapshotRef> = last.metadata().snapshots().cloned().collect();
    new.retain(|it| !known.contains(&it.snapshot_id()));
    new.sort_by_key(|it| it.sequence_number());
    for snapshot in &new {
        work.snapshot(snapshot, &known).await?;
    }
    for statistics in crate::reachable::named(last.metadata()) {
        if statistics.1 == crate::reachable::Kind::Statistics {
            work.copy(&statistics.0)?;
        }
    }
    for version in &versions {
        work.metadata(version).await?;
    }
    let (manifests, delete_files) = (work.manifests.len(), work.sizes.len());
    let file_list = match request.lists_files {
        true => work.list().await?,
        false => "N/A".to_owned(),
    };
    let latest = end.rsplit('/').next().unwrap_or_default().to_owned();
    Ok(Done { latest, file_list, manifests, delete_files })
}

/// The metadata files to be written anew, the last one at the end: those that the log has, if they are still there, after
/// the one that the copy has.
async fn versions(table: &Table, request: &Request) -> Result<Vec<String>> {
    let metadata = table.metadata();
    let mut all: Vec<String> =
        metadata.metadata_log().iter().map(|it| it.metadata_file.clone()).collect();
    all.push(table.loaded().metadata_location.clone());
    let place = |name: &str| -> Result<usize> {
        let wanted = named(table, name)?;
        all.iter().position(|it| *it == wanted).ok_or_else(|| unknown(table, name))
    };
    let from = request.start.as_deref().map(place).transpose()?.map_or(0, |it| it + 1);
    let to = request.end.as_deref().map(place).transpose()?.unwrap_or(all.len() - 1);
    if from > to {
        return Err(invalid("nothing comes after the start version")
            .with_hint("the copy has all that the table has"));
    }
    let mut there = Vec::new();
    for path in all.get(from..=to).unwrap_or_default() {
        if table.storage().size(&table.locate(path)).await?.is_some() {
            there.push(path.clone());
        }
    }
    Ok(there)
}

fn unknown(table: &Table, name: &str) -> icefield_query::Error {
    invalid(format!("`{}` has no metadata file `{name}`", table.name()))
        .with_hint(format!("SELECT file FROM {}.metadata_log_entries lists them", table.name()))
}

/// The full path of a metadata file by its name.
fn named(table: &Table, name: &str) -> Result<String> {
    let metadata = table.metadata();
    let log = metadata.metadata_log().iter().map(|it| &it.metadata_file);
    let mut all = log.chain([&table.loaded().metadata_location]);
    let is = |it: &&String| **it == name || it.rsplit('/').next() == Some(name);
    all.find(is).cloned().ok_or_else(|| unknown(table, name))
}

impl Rewriting<'_> {
    /// A snapshot's list and its manifests; `known` are the snapshots that the copy has.
    async fn snapshot(&mut self, snapshot: &SnapshotRef, known: &HashSet<i64>) -> Result<()> {
        let lines = self.table.manifest_list_once(snapshot.manifest_list()).await?;
        let mut written = Vec::with_capacity(lines.len());
        for line in lines.iter() {
            let made = self.manifests.get(&line.path).cloned();
            written.push(match made {
                Some(made) => with_place(line, &made),
                None => self.manifest(line, known).await?,
            });
        }
        let metadata = self.table.metadata();
        let header = ListHeader {
            snapshot_id: snapshot.snapshot_id(),
            parent_snapshot_id: snapshot.parent_snapshot_id(),
            sequence_number: snapshot.sequence_number(),
            first_row_id: snapshot.first_row_id().and_then(|it| i64::try_from(it).ok()),
        };
        let sync = self.table.tables().warehouse().env.uuid().into_bytes();
        let bytes = list::encode(metadata.format_version(), &header, &written, sync)?;
        self.stage(snapshot.manifest_list(), bytes).await?;
        Ok(())
    }

    /// A manifest with the other prefix. One that the copy has is copied again: its size is part of the list, and another
    /// version of this program, or another schema, may have given it another one.
    async fn manifest(
        &mut self,
        line: &ManifestFile,
        known: &HashSet<i64>,
    ) -> Result<ManifestFile> {
        let metadata = self.table.metadata();
        let manifest = self.table.manifest_once(line).await?;
        let spec = partition::spec(metadata, line.spec_id)?;
        let types = partition::field_types(metadata, spec)?;
        let header = ManifestHeader {
            version: metadata.format_version(),
            schema: metadata.current_schema(),
            spec,
            types: types.clone(),
            content: line.content,
            snapshot_id: line.added_snapshot_id,
        };
        let sync = self.table.tables().warehouse().env.uuid().into_bytes();
        let mut writer = ManifestWriter::new(header, self.request.prefix.moved(&line.path)?, sync)?;
        for index in 0..manifest.len() {
            let mut entry = manifest.entry(index, &types)?;
            // Also one that came by a snapshot which has expired since.
            let is_new = !entry.snapshot_id.is_some_and(|it| known.contains(&it));
            self.entry(&mut entry, is_new).await?;
            writer.add(&entry)?;
        }
        let (bytes, made) = writer.finish()?;
        self.stage(&line.path, bytes).await?;
        let made = with_place(line, &made);
        self.manifests.insert(line.path.clone(), made.clone());
        Ok(made)
    }

    async fn entry(&mut self, entry: &mut ManifestEntry, is_new: bool) -> Result<()> {
        let is_live = entry.status != ManifestStatus::Deleted;
        let is_positions = entry.file.content == DataContentType::PositionDeletes;
        match (is_live, is_positions) {
            (true, true) => self.delete_file(&mut entry.file).await?,
            (true, false) if is_new => self.copy(&entry.file.path)?,
            _ => {}
        }
        let prefix = &self.request.prefix;
        entry.file.path = prefix.moved(&entry.file.path)?;
        if let Some(path) = &mut entry.file.referenced_data_file {
            *path = prefix.moved(path)?;
        }
        if is_positions {
            prefix.move_bounds(&mut entry.file.metrics);
        }
        Ok(())
    }

    /// A file of positions names data files, and is written anew.
    async fn delete_file(&mut self, file: &mut DataFile) -> Result<()> {
        let known = self.sizes.get(&file.path).copied();
        let size = match known {
            Some(size) => size,
            None => {
                let location = self.table.locate(&file.path);
                let bytes = self.table.storage().read(&location).await?;
                let prefix = &self.request.prefix;
                let moved = match file.format {
                    DataFileFormat::Puffin => files::puffin(&bytes, &location, prefix)?,
                    DataFileFormat::Parquet => files::positions(bytes, &location, prefix)?,
                    other => {
                        return Err(invalid(format!(
                            "delete file `{location}` is {other}; only Parquet and Puffin can be \
                             written anew"
                        )));
                    }
                };
                let size = moved.len() as u64;
                self.stage(&file.path, moved).await?;
                self.sizes.insert(file.path.clone(), size);
                size
            }
        };
        file.file_size_bytes = size;
        Ok(())
    }

    async fn metadata(&mut self, path: &str) -> Result<()> {
        let bytes = self.table.storage().read(&self.table.locate(path)).await?;
        let moved = files::metadata(&bytes, path, &self.request.prefix)?;
        self.stage(path, moved).await
    }

    /// Writes what stands for the file at `path`, to be copied to where that will be.
    async fn stage(&mut self, path: &str, bytes: Vec<u8>) -> Result<()> {
        let to = self.request.prefix.moved(path)?;
        let staged = format!("{}/{}", self.staging, self.request.prefix.below(path)?);
        self.table.storage().write(&self.table.locate(&staged), bytes.into()).await?;
        self.copies.push((staged, to));
        Ok(())
    }

    /// Says that a file is to be copied as it is.
    fn copy(&mut self, path: &str) -> Result<()> {
        if self.copied.insert(path.to_owned()) {
            self.copies.push((path.to_owned(), self.request.prefix.moved(path)?));
        }
        Ok(())
    }

    /// Writes the list of copies.
    async fn list(&self) -> Result<String> {
        let mut out = String::new();
        for (from, to) in &self.copies {
            let quoted = |it: &str| match it.contains([',', '"', '\n']) {
                true => format!("\"{}\"", it.replace('"', "\"\"")),
                false => it.to_owned(),
            };
            out.push_str(&format!("{},{}\n", quoted(from), quoted(to)));
        }
        let path = format!("{}/file-list", self.staging);
        self.table.storage().write(&self.table.locate(&path), out.into_bytes().into()).await?;
        Ok(path)
    }
}

/// A list's line of a manifest that lies elsewhere.
fn with_place(line: &ManifestFile, made: &ManifestFile) -> ManifestFile {
    ManifestFile { path: made.path.clone(), length: made.length, ..line.clone() }
}
