//! What tests of several crates share: warehouses in memory, catalogs that fail.

pub mod equality;
pub mod faulty_catalog;
pub mod reachable;
pub mod simulation;

use std::sync::Arc;

use icefield_catalog::memory::MemoryCatalog;
use icefield_catalog::spec::{
    NamespaceIdent, NestedField, PrimitiveType, Schema, SortOrder, TableIdent, Type,
    UnboundPartitionSpec,
};
use icefield_catalog::{Catalog, Env, Storage, Warehouse};
use icefield_query::Settings;
use icefield_table::{NewTable, Tables};

/// A warehouse in memory, around a catalog made from its storage.
pub fn memory_warehouse(
    storage: Arc<Storage>,
    env: Env,
    wrap: impl FnOnce(Arc<dyn Catalog>) -> Arc<dyn Catalog>,
) -> Tables {
    let catalog = Arc::new(MemoryCatalog::new(Arc::clone(&storage), env.clone()));
    let catalog = wrap(catalog);
    Tables::new(Warehouse { root: "memory:///w".to_owned(), catalog, storage, env })
}

/// What a session is told in tests: a cache of columns that is too small for some of them.
pub fn settings() -> Settings {
    Settings { cache_bytes: 256 << 10, ..Settings::default() }
}

/// `cleaned.t`.
pub fn raw_t() -> TableIdent {
    TableIdent::from_strs(["cleaned", "t"]).unwrap()
}

/// Makes the namespace `raw` and in it the table `t (id BIGINT)` with properties.
pub async fn create_raw_t(tables: &Tables, properties: &[(&str, &str)]) -> icefield_table::Table {
    let cleaned = NamespaceIdent::new("cleaned".to_owned());
    tables.warehouse().catalog.create_namespace(&cleaned, Default::default()).await.unwrap();
    let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    let new = NewTable {
        schema: Schema::builder().with_fields([id.into()]).build().unwrap(),
        spec: UnboundPartitionSpec::builder().build(),
        order: SortOrder::unsorted_order(),
        properties: properties.iter().map(|(k, v)| (k.to_string(), v.to_string())).collect(),
        location: None,
    };
    tables.create(&raw_t(), new).await.unwrap()
}
