//! What a [`Catalog`] promises, as a suite that every implementation runs.
//!
//! One function a promise; each panics, naming the promise, when it is broken. Call [`all`] from a
//! test with a catalog that is empty.

#![expect(clippy::unwrap_used, clippy::panic, reason = "a test suite, which fails by panicking")]

use std::collections::HashMap;
use std::sync::Arc;

use crate::dropped;
use crate::spec::{
    FormatVersion, NamespaceIdent, NestedField, PrimitiveType, Schema, SortOrder, TableIdent,
    TableMetadata, TableMetadataBuilder, TableRequirement, TableUpdate, Type, UnboundPartitionSpec,
};
use crate::{
    Answered, Behalf, Catalog, Commit, CommitOutcome, ErrorKind, JournalEntry, LedgerEntry,
    TableChange,
};

/// Runs every promise against an empty catalog whose tables may lie below `root`.
pub async fn all(catalog: Arc<dyn Catalog>, root: &str) {
    over_the_wire(Arc::clone(&catalog), root).await;
    changes_of_one_table_land_together(&catalog, root).await;
    a_request_is_answered_once(&catalog, root).await;
    views_have_names_beside_tables(&*catalog, root).await;
    a_dropped_table_can_come_back(&*catalog, root).await;
    the_journal_remembers_until_told_to_forget(&*catalog).await;
}

/// Runs those that the REST protocol can keep: not what a catalog remembers for itself, and views only by their server.
pub async fn over_the_wire(catalog: Arc<dyn Catalog>, root: &str) {
    namespaces_nest_and_must_be_empty_to_go(&*catalog).await;
    tables_are_created_once(&*catalog, root).await;
    a_commit_moves_the_pointer_only_from_where_it_was_read(&*catalog, root).await;
    several_tables_change_together_or_not_at_all(&*catalog, root).await;
    a_key_lands_once(&*catalog, root).await;
    a_commit_makes_what_must_not_be_there(&*catalog, root).await;
    a_name_means_what_is_registered_over_it(&*catalog, root).await;
    what_is_protected_is_not_dropped(&*catalog, root).await;
    tables_of_raw_only_grow(&*catalog, root).await;
    properties_of_namespaces_are_set_and_removed(&*catalog).await;
    racing_commits_lose_nothing(catalog, root).await;
}

fn namespace(name: &str) -> NamespaceIdent {
    NamespaceIdent::from_strs(name.split('.')).unwrap()
}

fn ident(name: &str) -> TableIdent {
    let (space, name) = name.rsplit_once('.').unwrap();
    TableIdent::new(namespace(space), name.to_owned())
}

fn metadata(location: String) -> TableMetadata {
    let id = NestedField::optional(1, "id", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([id.into()]).build().unwrap();
    let spec = UnboundPartitionSpec::builder().build();
    let order = SortOrder::unsorted_order();
    let version = FormatVersion::V2;
    TableMetadataBuilder::new(schema, spec, order, location, version, HashMap::new())
        .unwrap()
        .build()
        .unwrap()
        .metadata
}

/// Sets a property, if the table's last column id is what it is at creation.
fn change(table: &TableIdent, key: &str, value: &str) -> TableChange {
    TableChange {
        table: table.clone(),
        requirements: Vec::new(),
        updates: vec![TableUpdate::SetProperties {
            updates: HashMap::from([(key.to_owned(), value.to_owned())]),
        }],
        ledger: Vec::new(),
        only_from: None,
    }
}

async fn properties_of_namespaces_are_set_and_removed(catalog: &dyn Catalog) {
    let space = namespace("kept");
    let properties = |all: &[(&str, &str)]| {
        all.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    };
    let missing = catalog.set_namespace_properties(&space, HashMap::new(), &[]).await;
    assert_eq!(missing.unwrap_err().kind(), ErrorKind::NamespaceNotFound);
    catalog.create_namespace(&space, properties(&[("a", "1"), ("b", "2")])).await.unwrap();
    let set = properties(&[("b", "3"), ("c", "4")]);
    catalog.set_namespace_properties(&space, set, &["a".to_owned()]).await.unwrap();
    let found = catalog.namespace_properties(&space).await.unwrap();
    let wanted: HashMap<String, String> = properties(&[("b", "3"), ("c", "4")]);
    assert_eq!(found, wanted);
    let all = ["b".to_owned(), "c".to_owned()];
    catalog.set_namespace_properties(&space, HashMap::new(), &all).await.unwrap();
    assert!(catalog.namespace_properties(&space).await.unwrap().is_empty(), "and still there");
    catalog.drop_namespace(&space).await.unwrap();
}

async fn the_journal_remembers_until_told_to_forget(catalog: &dyn Catalog) {
    let entry = |at_ms: i64, number: i64| JournalEntry {
        kind: "a".to_owned(),
        at_ms,
        table: "raw.t".to_owned(),
        body: serde_json::json!({ "number": number }),
    };
    assert_eq!(catalog.journal("a", 0).await.unwrap(), []);
    let (first, second, third) = (entry(10, 1), entry(20, 2), entry(30, 3));
    catalog.record(&[third.clone(), first]).await.unwrap();
    let other = JournalEntry { kind: "b".to_owned(), ..entry(20, 4) };
    catalog.record(&[second.clone(), other.clone()]).await.unwrap();
    assert_eq!(catalog.journal("a", 20).await.unwrap(), [second.clone(), third.clone()]);
    catalog.forget("a", 20).await.unwrap();
    assert_eq!(catalog.journal("a", 0).await.unwrap(), [second, third]);
    assert_eq!(catalog.journal("b", 0).await.unwrap(), [other], "kinds are apart");
}

async fn committed(catalog: &dyn Catalog, changes: Vec<TableChange>) -> bool {
    match catalog.commit(&Commit::of(changes)).await.unwrap() {
        CommitOutcome::Committed(_) => true,
        CommitOutcome::Conflict => false,
        CommitOutcome::Unknown(error) => panic!("outcome unknown: {error}"),
    }
}

async fn property(catalog: &dyn Catalog, table: &TableIdent, key: &str) -> Option<String> {
    catalog.load_table(table).await.unwrap().metadata.properties().get(key).cloned()
}

async fn namespaces_nest_and_must_be_empty_to_go(catalog: &dyn Catalog) {
    let (a, b) = (namespace("a"), namespace("a.b"));
    let properties = HashMap::from([("owner".to_owned(), "ada".to_owned())]);
    catalog.create_namespace(&a, properties.clone()).await.unwrap();
    catalog.create_namespace(&b, HashMap::new()).await.unwrap();
    let again = catalog.create_namespace(&a, HashMap::new()).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::NamespaceAlreadyExists);
    assert_eq!(catalog.namespace_properties(&a).await.unwrap(), properties);
    assert_eq!(catalog.list_namespaces(None).await.unwrap(), std::slice::from_ref(&a));
    assert_eq!(catalog.list_namespaces(Some(&a)).await.unwrap(), std::slice::from_ref(&b));
    let full = catalog.drop_namespace(&a).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::PreconditionFailed);
    catalog.drop_namespace(&b).await.unwrap();
    catalog.drop_namespace(&a).await.unwrap();
    let gone = catalog.namespace_properties(&a).await.unwrap_err();
    assert_eq!(gone.kind(), ErrorKind::NamespaceNotFound);
}

async fn tables_are_created_once(catalog: &dyn Catalog, root: &str) {
    catalog.create_namespace(&namespace("n"), HashMap::new()).await.unwrap();
    let (t, u) = (ident("n.t"), ident("n.u"));
    let missing = catalog.load_table(&t).await.unwrap_err();
    assert_eq!(missing.kind(), ErrorKind::TableNotFound);
    let no_home = catalog.create_table(&ident("m.t"), metadata(format!("{root}/m")), &[]).await;
    assert_eq!(no_home.unwrap_err().kind(), ErrorKind::NamespaceNotFound);

    let made = catalog.create_table(&t, metadata(format!("{root}/t")), &[]).await.unwrap();
    let again = catalog.create_table(&t, metadata(format!("{root}/t2")), &[]).await.unwrap_err();
    assert_eq!(again.kind(), ErrorKind::TableAlreadyExists);
    let loaded = catalog.load_table(&t).await.unwrap();
    assert_eq!(loaded.metadata_location, made.metadata_location);
    assert_eq!(catalog.list_tables(&namespace("n")).await.unwrap(), std::slice::from_ref(&t));

    catalog.rename_table(&t, &u).await.unwrap();
    assert_eq!(catalog.load_table(&t).await.unwrap_err().kind(), ErrorKind::TableNotFound);
    catalog.register_table(&t, &made.metadata_location, false).await.unwrap();
    let taken = catalog.rename_table(&t, &u).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::TableAlreadyExists);
    catalog.drop_table(&t, true).await.unwrap();
    catalog.drop_table(&u, true).await.unwrap();
    assert_eq!(catalog.drop_table(&u, true).await.unwrap_err().kind(), ErrorKind::TableNotFound);
}

async fn a_commit_moves_the_pointer_only_from_where_it_was_read(catalog: &dyn Catalog, root: &str) {
    let t = ident("n.cas");
    catalog.create_table(&t, metadata(format!("{root}/cas")), &[]).await.unwrap();
    assert!(committed(catalog, vec![change(&t, "k", "1")]).await);
    assert_eq!(property(catalog, &t, "k").await.as_deref(), Some("1"));

    let mut stale = change(&t, "k", "2");
    stale.requirements = vec![TableRequirement::RefSnapshotIdMatch {
        r#ref: "main".to_owned(),
        snapshot_id: Some(7),
    }];
    assert!(!committed(catalog, vec![stale]).await, "a requirement that fails conflicts");
    assert_eq!(property(catalog, &t, "k").await.as_deref(), Some("1"));

    let loaded = catalog.load_table(&t).await.unwrap();
    assert_eq!(loaded.metadata.metadata_log().len(), 1, "the log names the file before");
}

async fn several_tables_change_together_or_not_at_all(catalog: &dyn Catalog, root: &str) {
    let (a, b) = (ident("n.a"), ident("n.b"));
    catalog.create_table(&a, metadata(format!("{root}/a")), &[]).await.unwrap();
    catalog.create_table(&b, metadata(format!("{root}/b")), &[]).await.unwrap();
    assert!(committed(catalog, vec![change(&b, "k", "1"), change(&a, "k", "1")]).await);
    let mut fails = change(&b, "k", "2");
    fails.requirements =
        vec![TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: 99 }];
    assert!(!committed(catalog, vec![change(&a, "k", "2"), fails]).await);
    assert_eq!(property(catalog, &a, "k").await.as_deref(), Some("1"));
}

/// Changes of one table in one commit apply in their order, as one file, each on whose behalf it is; or none does.
async fn changes_of_one_table_land_together(catalog: &Arc<dyn Catalog>, root: &str) {
    let t = ident("n.steps");
    let made = catalog.create_table(&t, metadata(format!("{root}/steps")), &[]).await.unwrap();
    let answer = |key: &str| Answered {
        key: key.to_owned(),
        fingerprint: "f".to_owned(),
        status: 200,
        body: String::new(),
    };
    let behalf = |key: &str| Behalf { answer: Some(answer(key)), ..Behalf::default() };
    let mut commit = Commit::of(vec![change(&t, "k", "3"), change(&t, "k", "4")]);
    commit.behalf = vec![behalf("step-1"), behalf("step-2")];
    let CommitOutcome::Committed(landed) = catalog.commit(&commit).await.unwrap() else {
        panic!("nobody else changes it");
    };
    let [first, second] = landed.as_slice() else { panic!("one for each change") };
    assert_eq!(first.metadata_location, second.metadata_location);
    assert_eq!(first.metadata.properties().get("k").map(String::as_str), Some("4"));
    let log = first.metadata.metadata_log().iter().map(|it| &it.metadata_file);
    assert_eq!(log.collect::<Vec<_>>(), [&made.metadata_location], "one file for both");
    assert_eq!(catalog.answered("step-2").await.unwrap(), Some(answer("step-2")));
    commit.behalf = vec![behalf("step-3"), behalf("step-2")];
    assert!(catalog.commit(&commit).await.is_err(), "one was answered before");
    assert_eq!(catalog.answered("step-3").await.unwrap(), None);
    let now = catalog.load_table(&t).await.unwrap();
    assert_eq!(now.metadata_location, first.metadata_location);
    let mut second = change(&t, "k", "6");
    second.only_from = Some(now.metadata_location.clone());
    let both = Commit::of(vec![change(&t, "k", "5"), second]);
    assert!(matches!(catalog.commit(&both).await.unwrap(), CommitOutcome::Conflict));
    catalog.drop_table(&t, true).await.unwrap();
}

async fn a_key_lands_once(catalog: &dyn Catalog, root: &str) {
    let t = ident("n.ledger");
    catalog.create_table(&t, metadata(format!("{root}/ledger")), &[]).await.unwrap();
    let with_key = |value: &str, snapshot_id, replaces| {
        let mut change = change(&t, "k", value);
        change.ledger = vec![LedgerEntry { key: "file-1".to_owned(), snapshot_id, replaces }];
        change
    };
    assert!(committed(catalog, vec![with_key("1", 11, None)]).await);
    assert!(!committed(catalog, vec![with_key("2", 12, None)]).await, "the key is taken");
    assert_eq!(property(catalog, &t, "k").await.as_deref(), Some("1"), "nothing else landed");
    assert!(committed(catalog, vec![with_key("3", 13, Some(11))]).await, "replaced knowingly");
    let keys = ["file-1".to_owned(), "file-2".to_owned()];
    let held = catalog.ledger(&t, &keys).await.unwrap();
    assert_eq!(held, HashMap::from([("file-1".to_owned(), 13)]));
}

/// A change that makes a table with a property.
fn creation(table: &TableIdent, location: String, value: &str) -> TableChange {
    let made = metadata(location);
    let mut creation = change(table, "k", value);
    creation.requirements = vec![TableRequirement::NotExist];
    let first = [
        TableUpdate::AddSchema { schema: made.current_schema().as_ref().clone() },
        TableUpdate::SetCurrentSchema { schema_id: -1 },
        TableUpdate::SetLocation { location: made.location().to_owned() },
    ];
    creation.updates.splice(0..0, first);
    creation
}

async fn a_commit_makes_what_must_not_be_there(catalog: &dyn Catalog, root: &str) {
    let (a, made) = (ident("n.a"), ident("n.made"));
    let create = || creation(&made, format!("{root}/made"), "1");
    let mut fails = change(&a, "k", "9");
    fails.requirements =
        vec![TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: 99 }];
    assert!(!committed(catalog, vec![create(), fails]).await);
    assert_eq!(catalog.load_table(&made).await.unwrap_err().kind(), ErrorKind::TableNotFound);
    assert!(committed(catalog, vec![change(&a, "k", "8"), create()]).await);
    assert_eq!(property(catalog, &made, "k").await.as_deref(), Some("1"));
    assert_eq!(property(catalog, &a, "k").await.as_deref(), Some("8"));
    assert!(!committed(catalog, vec![create()]).await, "it is there");
    let nowhere = creation(&ident("m.made"), format!("{root}/m"), "1");
    let error = catalog.commit(&Commit::of(vec![nowhere])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NamespaceNotFound);
    let mut nothing = change(&ident("n.nothing"), "k", "1");
    nothing.requirements = vec![TableRequirement::NotExist];
    let error = catalog.commit(&Commit::of(vec![nothing])).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::DataInvalid, "no schema, no location");
}

async fn a_name_means_what_is_registered_over_it(catalog: &dyn Catalog, root: &str) {
    let (one, two) = (ident("n.one"), ident("n.two"));
    let first = catalog.create_table(&one, metadata(format!("{root}/one")), &[]).await.unwrap();
    let second = catalog.create_table(&two, metadata(format!("{root}/two")), &[]).await.unwrap();
    let taken = catalog.register_table(&one, &second.metadata_location, false).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::TableAlreadyExists);
    catalog.register_table(&one, &second.metadata_location, true).await.unwrap();
    let now = catalog.load_table(&one).await.unwrap();
    assert_eq!(now.metadata.uuid(), second.metadata.uuid());
    let pointers = catalog.pointers().await.unwrap();
    assert!(pointers.contains(&(one.clone(), second.metadata_location.clone())), "{pointers:?}");
    assert_eq!(catalog.drop_table(&one, true).await.unwrap(), second.metadata_location);
    catalog.register_table(&one, &first.metadata_location, true).await.unwrap();
    assert_eq!(catalog.drop_table(&one, true).await.unwrap(), first.metadata_location);
    catalog.drop_table(&two, true).await.unwrap();
}

async fn what_is_protected_is_not_dropped(catalog: &dyn Catalog, root: &str) {
    let (t, space) = (ident("kept.t"), namespace("kept"));
    let protect = |it: &str| HashMap::from([(dropped::PROTECTED.to_owned(), it.to_owned())]);
    catalog.create_namespace(&space, protect("true")).await.unwrap();
    catalog.create_table(&t, metadata(format!("{root}/kept")), &[]).await.unwrap();
    let refused = async || {
        let error = catalog.drop_table(&t, true).await.unwrap_err();
        assert!(error.message().contains("is protected"), "{error}");
    };
    refused().await;
    assert!(catalog.drop_namespace(&space).await.is_err());
    // A table's own word is nearer than its namespace's.
    assert!(committed(catalog, vec![change(&t, dropped::PROTECTED, "false")]).await);
    catalog.drop_table(&t, true).await.unwrap();
    assert!(catalog.drop_namespace(&space).await.is_err(), "empty, and protected");
    catalog.set_namespace_properties(&space, protect("false"), &[]).await.unwrap();
    catalog.create_table(&t, metadata(format!("{root}/kept2")), &[]).await.unwrap();
    assert!(committed(catalog, vec![change(&t, dropped::PROTECTED, "true")]).await);
    refused().await;
    let location = catalog.metadata_location(&t).await.unwrap();
    let over = catalog.register_table(&t, &location, true).await.unwrap_err();
    assert!(over.message().contains("is protected"), "{over}");
    assert!(committed(catalog, vec![change(&t, dropped::PROTECTED, "false")]).await);
    catalog.drop_table(&t, true).await.unwrap();
    catalog.drop_namespace(&space).await.unwrap();
}

async fn tables_of_raw_only_grow(catalog: &dyn Catalog, root: &str) {
    let spaces = catalog.list_namespaces(None).await.unwrap();
    for space in ["raw", "elsewhere"].map(namespace) {
        if !spaces.contains(&space) {
            catalog.create_namespace(&space, HashMap::new()).await.unwrap();
        }
    }
    let (t, other) = (ident("raw.grows"), ident("elsewhere.t"));
    let made = catalog.create_table(&t, metadata(format!("{root}/grows")), &[]).await.unwrap();
    assert!(committed(catalog, vec![change(&t, "k", "1")]).await);
    let field = NestedField::optional(7, "other", Type::Primitive(PrimitiveType::Long));
    let schema = Schema::builder().with_fields([field.into()]).build().unwrap();
    let mut without = change(&t, "k", "2");
    without.updates.push(TableUpdate::AddSchema { schema });
    without.updates.push(TableUpdate::SetCurrentSchema { schema_id: -1 });
    let refused = |error: crate::Error| assert!(error.message().contains("only grow"), "{error}");
    refused(catalog.commit(&Commit::of(vec![without.clone()])).await.unwrap_err());
    refused(catalog.rename_table(&t, &other).await.unwrap_err());
    refused(catalog.register_table(&t, &made.metadata_location, true).await.unwrap_err());
    assert_eq!(property(catalog, &t, "k").await.as_deref(), Some("1"));
    let lifting = catalog.lifting("because");
    assert!(committed(&*lifting, vec![without]).await);
    lifting.rename_table(&t, &other).await.unwrap();
    catalog.drop_table(&other, true).await.unwrap();
}

async fn a_dropped_table_can_come_back(catalog: &dyn Catalog, root: &str) {
    let t = ident("n.dropped");
    let first = catalog.create_table(&t, metadata(format!("{root}/d1")), &[]).await.unwrap();
    catalog.drop_table(&t, false).await.unwrap();
    let second = catalog.create_table(&t, metadata(format!("{root}/d2")), &[]).await.unwrap();
    let all = catalog.dropped_tables().await.unwrap();
    let found = all.iter().find(|it| it.table == t).unwrap();
    assert_eq!(found.metadata_location, first.metadata_location);
    let taken = catalog.undrop_table(&found.id).await.unwrap_err();
    assert_eq!(taken.kind(), ErrorKind::TableAlreadyExists);
    catalog.drop_table(&t, true).await.unwrap();
    catalog.undrop_table(&found.id).await.unwrap();
    let now = catalog.load_table(&t).await.unwrap();
    assert_eq!(now.metadata.uuid(), first.metadata.uuid(), "not {}", second.metadata.uuid());
    assert!(catalog.undrop_table(&found.id).await.is_err(), "once");
    catalog.drop_table(&t, false).await.unwrap();
    for it in catalog.dropped_tables().await.unwrap() {
        catalog.forget_dropped(&it.id).await.unwrap();
        assert!(catalog.undrop_table(&it.id).await.is_err());
    }
    assert_eq!(catalog.dropped_tables().await.unwrap(), []);
}

async fn a_request_is_answered_once(catalog: &Arc<dyn Catalog>, root: &str) {
    let answer = |key: &str| Answered {
        key: key.to_owned(),
        fingerprint: "f".to_owned(),
        status: 200,
        body: String::new(),
    };
    let behalf = |answer| Behalf { answer: Some(answer), ..Behalf::default() };
    let (t, space) = (ident("n.asked"), namespace("asked"));
    assert_eq!(catalog.answered("a").await.unwrap(), None);
    let asked = |key: &str| catalog.on_behalf(behalf(answer(key)));
    asked("a").create_table(&t, metadata(format!("{root}/asked")), &[]).await.unwrap();
    assert_eq!(catalog.answered("a").await.unwrap(), Some(answer("a")));
    let again = asked("a").commit(&Commit::of(vec![change(&t, "k", "1")])).await;
    assert_eq!(again.unwrap_err().kind(), ErrorKind::PreconditionFailed);
    assert_eq!(property(&**catalog, &t, "k").await, None, "nothing was changed");
    assert!(committed(&*asked("b"), vec![change(&t, "k", "2")]).await);
    let mut stale = change(&t, "k", "3");
    stale.requirements =
        vec![TableRequirement::LastAssignedFieldIdMatch { last_assigned_field_id: 99 }];
    assert!(!committed(&*asked("c"), vec![stale]).await);
    assert_eq!(catalog.answered("c").await.unwrap(), None, "what did not happen has no answer");
    asked("c").create_namespace(&space, HashMap::new()).await.unwrap();
    asked("d").set_namespace_properties(&space, HashMap::new(), &[]).await.unwrap();
    asked("e").rename_table(&t, &ident("asked.t")).await.unwrap();
    asked("f").drop_table(&ident("asked.t"), true).await.unwrap();
    asked("g").drop_namespace(&space).await.unwrap();
    for key in ["c", "d", "e", "f", "g"] {
        assert_eq!(catalog.answered(key).await.unwrap(), Some(answer(key)));
        let again = asked(key).create_namespace(&space, HashMap::new()).await.unwrap_err();
        assert_eq!(again.kind(), ErrorKind::PreconditionFailed, "{key}");
    }
    let refusal = Answered { status: 404, body: "{}".to_owned(), ..answer("h") };
    catalog.on_behalf(behalf(refusal.clone())).remember_answer().await.unwrap();
    catalog.on_behalf(behalf(answer("h"))).remember_answer().await.unwrap();
    assert_eq!(catalog.answered("h").await.unwrap(), Some(refusal), "the first stays");
    catalog.forget_answers(i64::MAX).await.unwrap();
    assert_eq!(catalog.answered("a").await.unwrap(), None);
}

async fn views_have_names_beside_tables(catalog: &dyn Catalog, root: &str) {
    let space = namespace("seen");
    catalog.create_namespace(&space, HashMap::new()).await.unwrap();
    let (v, w, t) = (ident("seen.v"), ident("seen.w"), ident("seen.t"));
    assert_eq!(catalog.view_location(&v).await.unwrap_err().kind(), ErrorKind::TableNotFound);
    assert!(!catalog.move_view(&v, Some("1"), "2").await.unwrap(), "there is none to move");
    assert!(catalog.move_view(&v, None, "1").await.unwrap());
    assert!(!catalog.move_view(&v, None, "2").await.unwrap(), "the name is taken");
    assert!(!catalog.move_view(&v, Some("0"), "2").await.unwrap(), "it is elsewhere");
    assert!(catalog.move_view(&v, Some("1"), "2").await.unwrap());
    assert_eq!(catalog.view_location(&v).await.unwrap(), "2");
    assert_eq!(catalog.list_views(&space).await.unwrap(), std::slice::from_ref(&v));
    assert_eq!(catalog.list_tables(&space).await.unwrap(), []);
    let made = catalog.create_table(&v, metadata(format!("{root}/seen")), &[]).await;
    assert_eq!(made.unwrap_err().kind(), ErrorKind::TableAlreadyExists, "as a view");
    let made = catalog.create_table(&t, metadata(format!("{root}/seen2")), &[]).await.unwrap();
    assert!(!catalog.move_view(&t, None, "1").await.unwrap(), "as a table");
    let over = catalog.register_table(&v, &made.metadata_location, true).await.unwrap_err();
    assert_eq!(over.kind(), ErrorKind::TableAlreadyExists, "no table over a view");
    for (from, to) in [(&t, &v), (&v, &t)] {
        let renamed = match from == &t {
            true => catalog.rename_table(from, to).await,
            false => catalog.rename_view(from, to).await,
        };
        assert_eq!(renamed.unwrap_err().kind(), ErrorKind::TableAlreadyExists);
    }
    assert_eq!(catalog.drop_table(&v, true).await.unwrap_err().kind(), ErrorKind::TableNotFound);
    catalog.rename_view(&v, &w).await.unwrap();
    let full = catalog.drop_namespace(&space).await.unwrap_err();
    assert_eq!(full.kind(), ErrorKind::PreconditionFailed);
    assert_eq!(catalog.drop_view(&w).await.unwrap(), "2");
    assert_eq!(catalog.drop_view(&w).await.unwrap_err().kind(), ErrorKind::TableNotFound);
    catalog.drop_table(&t, true).await.unwrap();
    catalog.drop_namespace(&space).await.unwrap();
}

async fn racing_commits_lose_nothing(catalog: Arc<dyn Catalog>, root: &str) {
    let t = ident("n.race");
    catalog.create_table(&t, metadata(format!("{root}/race")), &[]).await.unwrap();
    let mut tasks = tokio::task::JoinSet::new();
    for writer in 0..8 {
        let (catalog, t) = (Arc::clone(&catalog), t.clone());
        tasks.spawn(async move {
            for round in 0..5 {
                let key = format!("{writer}-{round}");
                while !committed(&*catalog, vec![change(&t, &key, "1")]).await {}
            }
        });
    }
    tasks.join_all().await;
    let loaded = catalog.load_table(&t).await.unwrap();
    assert_eq!(loaded.metadata.properties().len(), 40, "each commit is there");
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::MemoryCatalog;
    use crate::sql::SqlCatalog;
    use crate::{Env, Storage};

    #[tokio::test]
    async fn memory() {
        let catalog = MemoryCatalog::new(Storage::new(), Env::real());
        all(Arc::new(catalog), "memory:///w").await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn postgres() {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/../scripts/postgres");
        let made = tokio::process::Command::new(script).arg("fresh").output().await.unwrap();
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        let url = String::from_utf8(made.stdout).unwrap();
        let opened = SqlCatalog::open(url.trim(), "lake", &[], Storage::new(), Env::real()).await;
        let folder = tempfile::tempdir().unwrap();
        all(Arc::new(opened.unwrap()), &format!("file://{}", folder.path().display())).await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn sqlite() {
        let folder = tempfile::tempdir().unwrap();
        let url = format!("sqlite:{}/c.db", folder.path().display());
        let opened = SqlCatalog::open(&url, "lake", &[], Storage::new(), Env::real()).await;
        let catalog = opened.unwrap();
        all(Arc::new(catalog), &format!("file://{}", folder.path().display())).await;
    }
}
