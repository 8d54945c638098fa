//! Our client of the REST protocol on our server.

use std::path::Path;
use std::sync::Arc;

use icefield_catalog::rest::{Access, RestCatalog};
use icefield_catalog::rights::{Object, Role};
use icefield_catalog::spec::{
    NestedField, PrimitiveType, Schema, SortOrder, Type, UnboundPartitionSpec,
};
use icefield_catalog::{Catalog, Env, ErrorKind, Warehouse, conformance};
use icefield_query::{Answer, Session};
use icefield_server::Options;
use icefield_table::commit::{Change, change};
use icefield_table::manifest::DataFile;
use icefield_table::{NewTable, Tables, scan, snapshot};
use icefield_tests::{raw_t, settings};
use tokio::sync::oneshot;

/// A server in this process, until it is dropped.
struct Served {
    url: String,
    tables: Tables,
    _stop: oneshot::Sender<()>,
}

async fn serve(root: &Path, asks_who: bool) -> Served {
    let root = root.to_str().unwrap();
    let warehouse = Warehouse::open(root, None, Access::default()).await.unwrap();
    let tables = Tables::new(warehouse);
    let session = Session::new(tables.clone(), settings()).unwrap();
    let options = Options { asks_who, ..Options::default() };
    let address = "127.0.0.1:0".parse().unwrap();
    let listener = icefield_server::listen(address, &options).await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (stop, stopped) = oneshot::channel::<()>();
    tokio::spawn(icefield_server::serve(session, listener, options, async {
        let _ = stopped.await;
    }));
    Served { url, tables, _stop: stop }
}

impl Served {
    async fn client(&self, credential: Option<String>) -> icefield_catalog::Result<RestCatalog> {
        let access = Access { credential, ..Access::default() };
        RestCatalog::open(&self.url, Some("lake"), access, Env::real()).await
    }

    /// The tables as another process would have them, behind the server.
    async fn tables(&self) -> Tables {
        let own = self.tables.warehouse();
        let catalog: Arc<dyn Catalog> = Arc::new(self.client(None).await.unwrap());
        Tables::new(Warehouse { catalog, ..own.clone() })
    }
}

async fn make_raw_t(tables: &Tables) {
    let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    let new = NewTable {
        schema: Schema::builder().with_fields([id.into()]).build().unwrap(),
        spec: UnboundPartitionSpec::builder().build(),
        order: SortOrder::unsorted_order(),
        properties: Default::default(),
        location: None,
    };
    tables.create(&raw_t(), new).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_keeps_what_a_catalog_promises() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    let catalog = served.client(None).await.unwrap();
    for tier in icefield_catalog::warehouse::TIERS {
        let namespace = icefield_catalog::spec::NamespaceIdent::new(tier.to_owned());
        catalog.drop_namespace(&namespace).await.unwrap();
    }
    assert_eq!(catalog.root(), Some(served.tables.warehouse().root.as_str()));
    conformance::over_the_wire(Arc::new(catalog), &served.tables.warehouse().root).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn clients_that_append_to_one_table_see_no_conflict() {
    const CLIENTS: usize = 64;
    // Without optimization most of the time goes into reading metadata; benches/serve.py has more.
    const APPENDS: usize = 5;
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    make_raw_t(&served.tables).await;
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let tables = served.tables().await;
        clients.spawn(async move {
            for round in 0..APPENDS {
                let table = tables.load(&raw_t()).await.unwrap();
                let place = table.metadata().location();
                let path = format!("{place}/data/{client}-{round}.parquet");
                let files = vec![DataFile::parquet(path, 0, 1, 400)];
                change(&table, Change { files, ..Change::default() }).await.unwrap();
            }
        });
    }
    clients.join_all().await;
    let table = served.tables.load(&raw_t()).await.unwrap();
    let metadata = table.metadata();
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    assert_eq!(line.len(), CLIENTS * APPENDS, "a snapshot for each");
    let rows = metadata.current_snapshot().unwrap().summary();
    assert_eq!(rows.additional_properties["total-records"], (CLIENTS * APPENDS).to_string());
    let version = snapshot::resolve(metadata, &snapshot::At::Now).unwrap();
    let tasks = scan::plan(&table, &version, None).await.unwrap().tasks;
    let mut paths: Vec<_> = tasks.iter().map(|it| it.file_path().unwrap().to_owned()).collect();
    paths.sort();
    paths.dedup();
    assert_eq!(paths.len(), CLIENTS * APPENDS, "each file once");
    let (lines, breaks) =
        served.tables.warehouse().catalog.audit_log().unwrap().verify().await.unwrap();
    assert!(lines > 320 && breaks.is_empty(), "{lines} {breaks:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_fetches_tokens_and_says_why_it_is_not_let_in() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), true).await;
    let rights = served.tables.warehouse().catalog.rights().unwrap();
    let secret = rights.create_principal("ada").await.unwrap();
    let error = served.client(None).await.unwrap_err();
    assert!(error.to_string().contains("a token is needed"), "{error}");
    let error = served.client(Some("ada:guess".to_owned())).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::PreconditionFailed);
    assert!(error.message().contains("gives no token") && !error.message().contains("guess"));
    let client = served.client(Some(format!("ada:{secret}"))).await.unwrap();
    assert_eq!(client.list_namespaces(None).await.unwrap(), []);
    rights.grant(Role::Reader, &Object::Catalog, "ada").await.unwrap();
    assert_eq!(client.list_namespaces(None).await.unwrap().len(), 3);
    make_raw_t(&served.tables).await;
    let loaded = client.load_table(&raw_t()).await.unwrap();
    let error = client.drop_table(&raw_t(), true).await.unwrap_err();
    assert!(error.message().contains("would have to be owner of table `cleaned.t`"), "{error}");
    assert_eq!(
        client.load_table(&raw_t()).await.unwrap().metadata_location,
        loaded.metadata_location
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_may_not_have_changed_at_all_is_not_committed_over() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    make_raw_t(&served.tables).await;
    let client = served.client(None).await.unwrap();
    let loaded = client.load_table(&raw_t()).await.unwrap();
    let set = |value: &str, from: &str| icefield_catalog::TableChange {
        table: raw_t(),
        requirements: Vec::new(),
        updates: vec![icefield_catalog::spec::TableUpdate::SetProperties {
            updates: [("k".to_owned(), value.to_owned())].into(),
        }],
        ledger: Vec::new(),
        only_from: Some(from.to_owned()),
    };
    let commit = |value: &str, from: &str| icefield_catalog::Commit::of(vec![set(value, from)]);
    use icefield_catalog::CommitOutcome::{Committed, Conflict};
    let done = client.commit(&commit("1", &loaded.metadata_location)).await.unwrap();
    assert!(matches!(done, Committed(_)));
    let late = client.commit(&commit("2", &loaded.metadata_location)).await.unwrap();
    assert!(matches!(late, Conflict));
    let now = served.tables.load(&raw_t()).await.unwrap();
    assert_eq!(now.metadata().properties()["k"], "1");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_append_for_other_columns_is_not_made_again_for_those_of_now() {
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    make_raw_t(&served.tables).await;
    let own = Session::new(served.tables.clone(), settings()).unwrap();
    let client = served.tables().await.load(&raw_t()).await.unwrap();
    let append = |name: &str| {
        let path = format!("{}/data/{name}.parquet", client.metadata().location());
        Change { files: vec![DataFile::parquet(path, 0, 1, 400)], ..Change::default() }
    };
    own.run("ALTER TABLE cleaned.t ADD COLUMN more BIGINT").await.unwrap();
    change(&client, append("fits")).await.unwrap();
    own.run("CREATE OR REPLACE TABLE cleaned.t (other TEXT)").await.unwrap();
    let error = change(&client, append("misfit")).await.unwrap_err();
    assert!(error.message().contains("has other columns by now"), "{error}");
}

/// Appends, deletes and changes of columns by many clients: what each snapshot has is what its statements, one after the
/// other, make.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_do_all_kinds_of_things_have_an_order() {
    const CLIENTS: usize = 12;
    const ROUNDS: usize = 4;
    let folder = tempfile::tempdir().unwrap();
    let served = serve(folder.path(), false).await;
    let own = Session::new(served.tables.clone(), settings()).unwrap();
    own.run("CREATE TABLE cleaned.m (id BIGINT)").await.unwrap();
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let session = Session::new(served.tables().await, settings()).unwrap();
        clients.spawn(async move {
            let mut done = Vec::new();
            for round in 0..ROUNDS {
                let id = client * ROUNDS + round;
                let insert = format!("INSERT INTO cleaned.m (id) VALUES ({id})");
                session.run(&insert).await.expect("an append meets no conflict");
                done.push(insert);
                let more = match round % 2 {
                    0 => format!("DELETE FROM cleaned.m WHERE id = {id}"),
                    _ if client % 4 == 0 => format!("ALTER TABLE cleaned.m ADD COLUMN c{id} INT"),
                    _ => continue,
                };
                for attempt in 0.. {
                    match session.run(&more).await {
                        Ok(_) => break,
                        Err(error)
                            if error.kind == icefield_query::ErrorKind::Conflict
                                && attempt < 20 => {}
                        Err(error) => panic!("{more}: {error}"),
                    }
                }
                done.extend(more.starts_with("DELETE").then_some(more));
            }
            done
        });
    }
    let mut wanted: Vec<String> = clients.join_all().await.into_iter().flatten().collect();
    let table = served.tables.load(&raw_t_named("m")).await.unwrap();
    let columns = table.metadata().current_schema().as_struct().fields().len();
    assert_eq!(columns, 1 + CLIENTS / 4 * ROUNDS / 2, "every column was added");
    let mut line = snapshot::ancestors(table.metadata(), table.metadata().current_snapshot_id());
    line.reverse();
    let mut ids = std::collections::BTreeSet::new();
    let mut seen = Vec::new();
    for snapshot in line {
        let said = snapshot.summary().additional_properties["icefield.statement"].clone();
        let number = said.rsplit(['(', ' ', ')']).find_map(|it| it.parse::<i64>().ok()).unwrap();
        let fits = match said.starts_with("INSERT") {
            true => ids.insert(number),
            false => ids.remove(&number),
        };
        assert!(fits, "{said} after what was before it");
        let sql =
            format!("SELECT id FROM cleaned.m VERSION AS OF {} ORDER BY 1", snapshot.snapshot_id());
        assert_eq!(numbers(&own, &sql).await, ids.iter().copied().collect::<Vec<_>>(), "{said}");
        seen.push(said);
    }
    seen.sort();
    wanted.sort();
    assert_eq!(seen, wanted, "what was acknowledged is there, once");
}

fn raw_t_named(name: &str) -> icefield_catalog::spec::TableIdent {
    icefield_catalog::spec::TableIdent::new(raw_t().namespace().clone(), name.to_owned())
}

async fn numbers(session: &Session, sql: &str) -> Vec<i64> {
    use arrow::array::AsArray;
    use futures::TryStreamExt;
    let Answer::Rows(rows) = session.run(sql).await.unwrap() else { panic!("no rows") };
    let batches: Vec<_> = rows.stream.try_collect().await.unwrap();
    let column = |it: &arrow::array::RecordBatch| {
        it.column(0).as_primitive::<arrow::datatypes::Int64Type>().values().to_vec()
    };
    batches.iter().flat_map(column).collect()
}
