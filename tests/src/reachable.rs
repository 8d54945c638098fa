//! Which files a table leads to, and which there are: worked out apart from the code under test, by
//! reading every snapshot's list and every manifest anew.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use icefield_catalog::storage;
use icefield_table::{Table, Tables};
use object_store::ObjectStore;

/// A path as it is compared.
pub fn normal(path: &str) -> String {
    storage::place(path).unwrap().location()
}

/// Every file that a table's metadata and snapshots lead to.
pub async fn reachable(table: &Table) -> BTreeSet<String> {
    // Nothing in memory: what is in no file is not there.
    let tables = Tables::new(table.tables().warehouse().clone());
    let table = match table.ident() {
        Some(ident) => tables.load(ident).await.unwrap(),
        None => tables.open_file(&table.loaded().metadata_location, false).await.unwrap(),
    };
    let metadata = table.metadata();
    let mut found = BTreeSet::from([table.loaded().metadata_location.clone()]);
    found.extend(metadata.metadata_log().iter().map(|it| it.metadata_file.clone()));
    found.extend(metadata.statistics_iter().map(|it| it.statistics_path.clone()));
    found.extend(metadata.partition_statistics_iter().map(|it| it.statistics_path.clone()));
    for snapshot in metadata.snapshots() {
        found.insert(snapshot.manifest_list().to_owned());
        for line in table.manifest_list(snapshot.manifest_list()).await.unwrap().iter() {
            found.insert(line.path.clone());
            let manifest = table.manifest(line).await.unwrap();
            for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
                found.insert(manifest.file_path(index).unwrap().to_owned());
            }
        }
    }
    found.iter().map(|it| normal(it)).collect()
}

/// Every file below a folder.
pub async fn stored(tables: &Tables, folder: &str) -> BTreeSet<String> {
    let place = storage::place(folder).unwrap();
    let store = tables.warehouse().storage.store(&place.root).unwrap();
    let all: Vec<_> = store.list(Some(&place.path)).try_collect().await.unwrap();
    all.iter().map(|it| format!("{}{}", place.root, it.location)).collect()
}

/// Fails if there is a file below the table's folder that it does not lead to, or none where it leads.
pub async fn assert_exactly_reachable(table: &Table, what: &str) {
    let wanted = reachable(table).await;
    let found = stored(table.tables(), table.metadata().location()).await;
    let missing: Vec<_> = wanted.difference(&found).collect();
    let surplus: Vec<_> = found.difference(&wanted).collect();
    assert!(
        missing.is_empty() && surplus.is_empty(),
        "{what}: missing {missing:#?}, surplus {surplus:#?}"
    );
}

/// The same, old metadata files aside, which expiry leaves alone.
pub async fn assert_exactly_reachable_but_metadata(table: &Table) {
    let of = |all: BTreeSet<String>| -> BTreeSet<String> {
        all.into_iter().filter(|it| !it.ends_with(".metadata.json")).collect()
    };
    let wanted = of(reachable(table).await);
    let found = of(stored(table.tables(), table.metadata().location()).await);
    assert_eq!(found, wanted);
}
