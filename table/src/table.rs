//! Tables: opening them, making them, and what they share within a process.

use std::collections::HashMap;
use std::sync::Arc;

use icefield_catalog::spec::{
    FormatVersion, Schema, SortOrder, TableIdent, TableMetadata, TableMetadataBuilder, Type,
    UnboundPartitionSpec, refuse_schema,
};
use icefield_catalog::{Error, ErrorKind, LoadedTable, Result, Storage, Warehouse, metadata};

use crate::commit::queue::Queues;
use crate::line::Line;
use crate::manifest::list::{self, ManifestFile};
use crate::manifest::read::Manifest;
use crate::scan::cache::Cache;

/// The tables of one warehouse. Cheap to clone; clones share caches and commit queues.
#[derive(Debug, Clone)]
pub struct Tables(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    warehouse: Warehouse,
    cache: Arc<Cache>,
    queues: Queues,
}

/// One table, as it was when loaded. Immutable: a commit gives a new one.
#[derive(Debug, Clone)]
pub struct Table {
    ident: Option<TableIdent>,
    loaded: LoadedTable,
    tables: Tables,
    /// Where the table's folder is, if it was moved after its paths were written.
    moved_to: Option<String>,
    /// The line of snapshots that it is read and written on.
    pub(crate) line: Line,
}

/// What a new table is to be.
#[derive(Debug, Clone)]
pub struct NewTable {
    /// Its columns; field ids are assigned afresh.
    pub schema: Schema,
    /// How it is partitioned; sources are named by the schema's ids.
    pub spec: UnboundPartitionSpec,
    /// How files are sorted.
    pub order: SortOrder,
    /// Its properties; `format-version` chooses the version.
    pub properties: HashMap<String, String>,
    /// Where it lies; by default below its namespace.
    pub location: Option<String>,
}

impl Tables {
    /// The tables of `warehouse`.
    pub fn new(warehouse: Warehouse) -> Self {
        let shared = Shared { warehouse, cache: Arc::default(), queues: Queues::default() };
        Self(Arc::new(shared))
    }

    /// The warehouse they are in.
    pub fn warehouse(&self) -> &Warehouse {
        &self.0.warehouse
    }

    /// The same tables, changed though the rule of their tier is against it, for a reason that the audit log says
    /// ([`Catalog::lifting`](icefield_catalog::Catalog::lifting)).
    pub fn lifting(&self, why: &str) -> Self {
        let mut warehouse = self.0.warehouse.clone();
        warehouse.catalog = warehouse.catalog.lifting(why);
        let cache = Arc::clone(&self.0.cache);
        // Writers in a line of their own: whoever commits for others must not lift it for them.
        Self(Arc::new(Shared { warehouse, cache, queues: Queues::default() }))
    }

    /// Whether these are tables of the same catalog, perhaps [lifting](Self::lifting).
    pub fn shares_with(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0.cache, &other.0.cache)
    }

    pub(crate) fn queues(&self) -> &Queues {
        &self.0.queues
    }

    /// The current state of a table.
    pub async fn load(&self, ident: &TableIdent) -> Result<Table> {
        let loaded = self.0.warehouse.catalog.load_table(ident).await?;
        Ok(self.table(Some(ident.clone()), loaded))
    }

    /// A table by the location of its metadata file, without a catalog; it can only be read. With
    /// `moved`, the table's files are looked for around that file, wherever they say they are.
    pub async fn open_file(&self, location: &str, moved: bool) -> Result<Table> {
        let loaded = metadata::read(&self.0.warehouse.storage, location).await?;
        let mut table = self.table(None, loaded);
        if moved {
            let folder = location.rsplit_once('/').map_or("", |(folder, _)| folder);
            let folder = folder.strip_suffix("/metadata").unwrap_or(folder);
            table.moved_to = Some(folder.to_owned());
        }
        Ok(table)
    }

    pub(crate) fn table(&self, ident: Option<TableIdent>, loaded: LoadedTable) -> Table {
        Table { ident, loaded, tables: self.clone(), moved_to: None, line: Line::Main }
    }

    /// Makes a table and gives it its name.
    ///
    /// # Errors
    ///
    /// The name is taken, the namespace is missing, or the parts do not fit each other.
    pub async fn create(&self, ident: &TableIdent, new: NewTable) -> Result<Table> {
        let staged = self.stage(ident, new).await?;
        let metadata = staged.metadata().clone();
        let loaded = self.0.warehouse.catalog.create_table(ident, metadata, &[]).await?;
        Ok(self.table(Some(ident.clone()), loaded))
    }

    /// Makes a table that nobody sees yet, so that its first rows can be written with it.
    pub async fn stage(&self, ident: &TableIdent, new: NewTable) -> Result<Table> {
        let location = match new.location {
            Some(location) => location.trim_end_matches('/').to_owned(),
            None => self.free_location(ident).await?,
        };
        icefield_catalog::storage::place(&location)?;
        let mut properties = new.properties;
        let version = match properties.remove("format-version").as_deref() {
            None | Some("2") => FormatVersion::V2,
            Some("3") => FormatVersion::V3,
            Some(other) => {
                return Err(Error::new(
                    ErrorKind::FeatureUnsupported,
                    format!("cannot make a table of format version {other}; 2 and 3 can be made"),
                ));
            }
        };
        let (schema, spec) = (new.schema, new.spec);
        refuse_schema(&schema, version)?;
        refuse_depth(&schema)?;
        for field in schema.as_struct().fields() {
            refuse_reserved(&field.name)?;
        }
        let builder =
            TableMetadataBuilder::new(schema, spec, new.order, location, version, properties)?
                .assign_uuid(self.0.warehouse.env.uuid());
        let metadata = Arc::new(builder.build()?.metadata);
        let loaded = LoadedTable { metadata_location: String::new(), metadata };
        Ok(self.table(Some(ident.clone()), loaded))
    }

    /// The table's usual location; another if a renamed or dropped table still lies there, since
    /// two tables below one folder cannot be told apart by their files (trap T-66).
    ///
    /// # Errors
    ///
    /// A namespace that is missing, or storage that cannot be listed.
    pub async fn free_location(&self, ident: &TableIdent) -> Result<String> {
        let warehouse = &self.0.warehouse;
        let location = warehouse.location_of(ident).await?;
        if warehouse.catalog.lies_by_name() {
            return Ok(location);
        }
        let suffixed = || format!("{location}-{:08x}", warehouse.env.random() & 0xffff_ffff);
        if warehouse.catalog.is_remote() && !warehouse.storage.has_keys(&location) {
            // Nobody lets us look; what is drawn is free.
            return Ok(suffixed());
        }
        let (store, path) = warehouse.storage.resolve(&location)?;
        let found = store.list_with_delimiter(Some(&path.join("metadata"))).await;
        match found {
            Err(error) if !matches!(error, object_store::Error::NotFound { .. }) => {
                Err(icefield_catalog::storage::cannot("list", &location, error))
            }
            Ok(found) if !found.objects.is_empty() => Ok(suffixed()),
            _ => Ok(location),
        }
    }
}

impl Table {
    /// Its name, if it came from a catalog.
    pub fn ident(&self) -> Option<&TableIdent> {
        self.ident.as_ref()
    }

    /// Its name for people: `raw.flights`, or its location.
    pub fn name(&self) -> String {
        match &self.ident {
            Some(ident) => format!("{}.{}", ident.namespace().as_ref().join("."), ident.name()),
            None => self.loaded.metadata.location().to_owned(),
        }
    }

    /// The table as it will be when a change that is on its way has landed.
    pub fn after(&self, metadata: Arc<TableMetadata>) -> Self {
        Self { loaded: LoadedTable { metadata, ..self.loaded.clone() }, ..self.clone() }
    }

    /// Its metadata.
    pub fn metadata(&self) -> &TableMetadata {
        &self.loaded.metadata
    }

    /// Its metadata and where that lies; empty for a table not yet made.
    pub fn loaded(&self) -> &LoadedTable {
        &self.loaded
    }

    /// The warehouse's tables.
    pub fn tables(&self) -> &Tables {
        &self.tables
    }

    /// The storage its files are in.
    pub fn storage(&self) -> &Arc<Storage> {
        &self.tables.0.warehouse.storage
    }

    /// The table as it stands now.
    pub async fn refresh(&self) -> Result<Self> {
        match &self.ident {
            Some(ident) => self.tables.load(ident).await?.on(self.line.clone()),
            None => Ok(self.clone()),
        }
    }

    /// The same table in another state, on a line.
    pub(crate) fn with(&self, loaded: LoadedTable, line: Line) -> Self {
        Self { loaded, line, ..self.clone() }
    }

    /// A property, or its default.
    pub fn property<T: std::str::FromStr>(&self, name: &str, default: T) -> T {
        property(self.metadata(), name, default)
    }

    /// Where a file is that the table's metadata says is at `path`.
    pub fn locate(&self, path: &str) -> String {
        let Some(root) = &self.moved_to else { return path.to_owned() };
        let inside = path.strip_prefix(self.metadata().location()).map(str::to_owned);
        let inside = inside.or_else(|| {
            let place = ["/metadata/", "/data/"].iter().filter_map(|it| path.rfind(it)).max()?;
            path.get(place..).map(str::to_owned)
        });
        match inside {
            Some(inside) => format!("{root}{inside}"),
            None => path.to_owned(),
        }
    }

    /// The manifests of the list at `path`, from the cache or storage.
    pub async fn manifest_list(&self, path: &str) -> Result<Arc<Vec<ManifestFile>>> {
        let cache = &self.tables.0.cache;
        if let Some(manifests) = path.strip_prefix(metadata::INLINE) {
            let lines = manifests.lines().map(|it| list::unlisted(it.to_owned()));
            return Ok(Arc::new(lines.collect()));
        }
        let path = self.locate(path);
        if let Some(list) = cache.list(&path) {
            return Ok(list);
        }
        let lines = Arc::new(self.read_manifest_list(&path).await?);
        cache.keep_list(&path, &lines);
        Ok(lines)
    }

    async fn read_manifest_list(&self, path: &str) -> Result<Vec<ManifestFile>> {
        let bytes = self.storage().read(path).await?;
        list::parse(&bytes).map_err(|e| e.with_context("manifest list", path))
    }

    /// The same as [`Self::manifest_list`] for who reads the lists of all snapshots, each once: it keeps
    /// none.
    pub async fn manifest_list_once(&self, path: &str) -> Result<Arc<Vec<ManifestFile>>> {
        let located = self.locate(path);
        match self.tables.0.cache.list(&located) {
            None if !path.starts_with(metadata::INLINE) => {
                Ok(Arc::new(self.read_manifest_list(&located).await?))
            }
            _ => self.manifest_list(path).await,
        }
    }

    /// The manifest that a line of a list names, from the cache or storage.
    pub async fn manifest(&self, line: &ManifestFile) -> Result<Arc<Manifest>> {
        let cache = &self.tables.0.cache;
        let key = self.manifest_key(line);
        if let Some(manifest) = cache.manifest(&key) {
            return Ok(manifest);
        }
        let manifest = self.read_manifest(line).await?;
        cache.keep_manifest(&key, &manifest);
        Ok(manifest)
    }

    /// The same as [`Self::manifest`] for who reads the manifests of all snapshots, each once: it keeps
    /// none.
    pub async fn manifest_once(&self, line: &ManifestFile) -> Result<Arc<Manifest>> {
        match self.tables.0.cache.manifest(&self.manifest_key(line)) {
            Some(manifest) => Ok(manifest),
            None => self.read_manifest(line).await,
        }
    }

    /// What entries inherit differs until a manifest's commit is settled, so it is in the key.
    fn manifest_key(&self, line: &ManifestFile) -> String {
        let path = self.locate(&line.path);
        format!("{path}#{}#{}", line.sequence_number, line.added_snapshot_id)
    }

    async fn read_manifest(&self, line: &ManifestFile) -> Result<Arc<Manifest>> {
        let path = self.locate(&line.path);
        if line.key_metadata.is_some() {
            return Err(Error::new(
                ErrorKind::FeatureUnsupported,
                format!("manifest `{path}` is encrypted, which is not supported"),
            ));
        }
        let bytes = self.storage().read(&path).await?;
        let line = &list::completed(line, &bytes)?;
        let manifest =
            Manifest::parse(&bytes, line).map_err(|e| e.with_context("manifest", &path))?;
        Ok(Arc::new(manifest))
    }

    pub(crate) fn keep_list(&self, path: &str, lines: Vec<ManifestFile>) {
        self.tables.0.cache.keep_list(path, &Arc::new(lines));
    }
}

/// How many structs, lists and maps may lie within each other. Readers of JSON, ours among them, stop
/// at 128 brackets, of which each takes up to three in a table's metadata.
const DEPTH_MAX: usize = 32;

/// Columns that any table has if it is asked for them, so that no column can be called so.
pub const METADATA_COLUMNS: [&str; 7] = [
    "_file",
    "_pos",
    "_spec_id",
    "_partition",
    "_deleted",
    "_row_id",
    "_last_updated_sequence_number",
];

/// Refuses the name of a metadata column for a column of the table.
pub(crate) fn refuse_reserved(name: &str) -> Result<()> {
    match METADATA_COLUMNS.contains(&name) {
        false => Ok(()),
        true => Err(Error::new(
            ErrorKind::DataInvalid,
            format!("no column can be called `{name}`: every table has that metadata column"),
        )),
    }
}

/// Refuses a schema that could not be read again.
pub(crate) fn refuse_depth(schema: &Schema) -> Result<()> {
    fn depth(kind: &Type) -> usize {
        match kind {
            Type::Primitive(_) => 0,
            Type::Struct(of) => {
                1 + of.fields().iter().map(|it| depth(&it.field_type)).max().unwrap_or(0)
            }
            Type::List(of) => 1 + depth(&of.element_field.field_type),
            Type::Map(of) => {
                1 + depth(&of.key_field.field_type).max(depth(&of.value_field.field_type))
            }
        }
    }
    match schema.as_struct().fields().iter().find(|it| depth(&it.field_type) > DEPTH_MAX) {
        None => Ok(()),
        Some(field) => Err(Error::new(
            ErrorKind::DataInvalid,
            format!("column `{}` has more than {DEPTH_MAX} types within each other", field.name),
        )),
    }
}

/// A table property, or its default where it is absent or not of the type.
pub fn property<T: std::str::FromStr>(metadata: &TableMetadata, name: &str, default: T) -> T {
    metadata.properties().get(name).and_then(|it| it.parse().ok()).unwrap_or(default)
}
