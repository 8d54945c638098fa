//! What is dropped comes back, what is protected is not dropped, and what is broken is found.

use serde_json::{Value, json};

use crate::lake::Lake;

fn lake() -> Lake {
    let lake = Lake::new();
    let csv = lake.file("in.csv", "id\n1\n2\n");
    lake.ok(&["ingest", &csv, "--into", "cleaned.t"]);
    lake.exec("INSERT INTO cleaned.t VALUES (3)");
    lake
}

#[test]
fn a_dropped_table_comes_back_with_all_it_had() {
    let lake = lake();
    lake.exec("CREATE PRINCIPAL ada; GRANT writer ON cleaned.t TO ada");
    let snapshots = lake.rows("SELECT snapshot_id FROM cleaned.t.snapshots ORDER BY 1");
    lake.exec("DROP TABLE cleaned.t");
    assert_eq!(lake.rows("SHOW GRANTS TO ada").len(), 0);
    let dropped = lake
        .rows("SELECT table_name, until > now() + INTERVAL '6 days' FROM system.dropped_tables");
    assert_eq!(dropped, [[json!("cleaned.t"), json!(true)]]);
    lake.exec("CREATE TABLE cleaned.t (other INT)");
    let taken = lake.fails(&["sql", "-c", "UNDROP TABLE cleaned.t"], 1);
    assert!(taken.contains("`cleaned.t` exists already"), "{taken}");
    lake.exec("ALTER TABLE cleaned.t RENAME TO cleaned.other; UNDROP TABLE cleaned.t");
    assert_eq!(lake.rows("SELECT snapshot_id FROM cleaned.t.snapshots ORDER BY 1"), snapshots);
    assert_eq!(lake.rows("SHOW GRANTS TO ada").len(), 1);
    let again = lake.file("in.csv", "id\n1\n2\n");
    lake.ok(&["ingest", &again, "--into", "cleaned.t"]);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(3), "its ledger is there too");
    assert_eq!(lake.rows("SELECT * FROM system.dropped_tables").len(), 0);
    let log = "SELECT action FROM system.audit_log WHERE object = 'cleaned.t' AND action LIKE '%drop%' ORDER BY at";
    assert_eq!(lake.rows(log), [[json!("drop table")], [json!("undrop table")]]);
    // Of several of one name, the last.
    lake.exec("DROP TABLE cleaned.other; ALTER TABLE cleaned.t RENAME TO cleaned.other; DROP TABLE cleaned.other");
    lake.exec("UNDROP TABLE cleaned.other");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.other"), json!(3));
    assert!(lake.ok(&["audit", "verify"]).contains("whole"));
}

#[test]
fn how_long_it_can_come_back_is_for_the_namespace_to_say() {
    let lake = lake();
    let error = lake.fails(&["sql", "-c", "UNDROP TABLE cleaned.nothing"], 1);
    assert!(error.contains("`cleaned.nothing` was not dropped"), "{error}");
    assert!(error.contains("system.dropped_tables"), "{error}");
    lake.exec("ALTER NAMESPACE cleaned SET PROPERTIES ('icefield.undrop-hours' = '0')");
    lake.exec("CREATE TABLE cleaned.gone (id INT); DROP TABLE cleaned.gone");
    assert!(lake.fails(&["sql", "-c", "UNDROP TABLE cleaned.gone"], 1).contains("was not dropped"));
    lake.exec(
        "ALTER NAMESPACE cleaned UNSET PROPERTIES ('icefield.undrop-hours'); DROP TABLE cleaned.t",
    );
    lake.exec("ALTER NAMESPACE cleaned SET PROPERTIES ('icefield.undrop-hours' = '0.0000001')");
    let late = lake.fails(&["sql", "-c", "UNDROP TABLE cleaned.t"], 1);
    assert!(late.contains("longer ago than `icefield.undrop-hours` says"), "{late}");
    lake.ok(&["maintain"]);
    assert_eq!(lake.rows("SELECT * FROM system.dropped_tables").len(), 0, "forgotten");
    lake.exec("ALTER NAMESPACE cleaned SET PROPERTIES ('icefield.undrop-hours' = 'soon')");
    lake.exec("CREATE TABLE cleaned.x (id INT)");
    let wrong = lake.fails(&["sql", "-c", "DROP TABLE cleaned.x"], 1);
    assert!(wrong.contains("`icefield.undrop-hours` cannot be `soon`"), "{wrong}");
    lake.ok(&["maintain"]);
    lake.exec("CREATE TABLE raw.x (id INT); DROP TABLE raw.x; UNDROP TABLE raw.x");
}

#[test]
fn files_of_a_dropped_table_are_not_orphans_of_its_neighbour() {
    let lake = lake();
    let place = lake.warehouse().join("cleaned/t").display().to_string();
    lake.exec("DROP TABLE cleaned.t");
    lake.exec(&format!("CREATE TABLE cleaned.u (id INT) LOCATION '{place}'"));
    let orphans = "CALL lake.system.remove_orphan_files(table => 'cleaned.u', older_than => now() + INTERVAL '2 days')";
    let _ = lake.run(&["sql", "-c", orphans]);
    lake.exec("UNDROP TABLE cleaned.t");
    assert_eq!(lake.value("SELECT sum(id) FROM cleaned.t"), json!(6));
}

#[test]
fn what_is_protected_is_not_dropped() {
    let lake = lake();
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('icefield.protected' = 'true')");
    let refused = lake.fails(&["sql", "-c", "DROP TABLE cleaned.t"], 1);
    assert!(refused.contains("table `cleaned.t` is protected"), "{refused}");
    assert!(refused.contains("icefield.protected"), "{refused}");
    lake.exec("ALTER NAMESPACE curated SET PROPERTIES ('icefield.protected' = 'true')");
    lake.exec("CREATE TABLE curated.t (id INT)");
    assert!(lake.fails(&["sql", "-c", "DROP TABLE curated.t"], 1).contains("is protected"));
    assert!(lake.fails(&["sql", "-c", "DROP NAMESPACE curated"], 1).contains("is protected"));
    lake.exec("ALTER TABLE curated.t SET TBLPROPERTIES ('icefield.protected' = 'false'); DROP TABLE curated.t");
    lake.exec("ALTER TABLE cleaned.t SET TBLPROPERTIES ('icefield.protected' = 'false'); DROP TABLE cleaned.t");
    let wrong = "CREATE TABLE cleaned.x (id INT) TBLPROPERTIES ('icefield.protected' = 'maybe')";
    assert!(lake.fails(&["sql", "-c", wrong], 1).contains("cannot be `maybe`"));
}

fn fsck(lake: &Lake) -> (Option<i32>, Value) {
    let output = lake.run(&["fsck", "--format", "json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn fsck_finds_what_is_broken_and_changes_nothing() {
    for version in [2, 3] {
        let lake = Lake::new();
        for table in ["whole", "data", "short", "deletes", "manifest", "list", "metadata"] {
            lake.exec(&format!(
                "CREATE TABLE cleaned.{table} (id INT) TBLPROPERTIES ('format-version' = '{version}', \
                 'write.delete.mode' = 'merge-on-read')"
            ));
            lake.exec(&format!("INSERT INTO cleaned.{table} VALUES (1), (2), (3)"));
            lake.exec(&format!("DELETE FROM cleaned.{table} WHERE id = 2"));
        }
        let (code, said) = fsck(&lake);
        assert_eq!((code, said["findings"].as_array().unwrap().len()), (Some(0), 0), "{said}");
        assert_eq!((said["tables"].clone(), said["snapshots"].clone()), (json!(7), json!(14)));
        let path = |sql: &str| {
            let path = lake.value(sql).as_str().unwrap().to_owned();
            path.strip_prefix("file://").unwrap_or(&path).to_owned()
        };
        let data = path("SELECT file_path FROM cleaned.data.files WHERE content = 0");
        let short = path("SELECT file_path FROM cleaned.short.files WHERE content = 0");
        let deletes = path("SELECT file_path FROM cleaned.deletes.files WHERE content = 1");
        let manifest = path("SELECT path FROM cleaned.manifest.manifests LIMIT 1");
        let list =
            path("SELECT manifest_list FROM cleaned.list.snapshots ORDER BY committed_at LIMIT 1");
        let metadata = lake.warehouse().join("cleaned/metadata/metadata");
        let mut names: Vec<_> =
            std::fs::read_dir(&metadata).unwrap().map(|it| it.unwrap().path()).collect();
        names.retain(|it| it.to_string_lossy().ends_with(".metadata.json"));
        names.sort();
        for gone in [&data, &deletes, &manifest, &list] {
            std::fs::remove_file(gone).unwrap();
        }
        std::fs::remove_file(names.last().unwrap()).unwrap();
        let bytes = std::fs::read(&short).unwrap();
        std::fs::write(&short, &bytes[..bytes.len() - 1]).unwrap();
        let (code, said) = fsck(&lake);
        assert_eq!(code, Some(1));
        let found: Vec<String> = said["findings"]
            .as_array()
            .unwrap()
            .iter()
            .map(|it| {
                format!("{}: {}", it["table"].as_str().unwrap(), it["what"].as_str().unwrap())
            })
            .collect();
        for (table, what) in [
            ("data", "a data file is gone"),
            ("short", "bytes and not"),
            ("deletes", "a file of position deletes is gone"),
            ("manifest", "a manifest cannot be read"),
            ("list", "cannot be read"),
            ("metadata", "its metadata cannot be read"),
        ] {
            let of: Vec<_> =
                found.iter().filter(|it| it.starts_with(&format!("cleaned.{table}:"))).collect();
            assert_eq!(of.len(), 1, "{table}: {found:?}");
            assert!(of[0].contains(what), "{table}: {of:?}");
        }
        assert_eq!(found.len(), 6, "{found:?}");
        assert!(lake.ok(&["fsck", "cleaned.whole"]).contains("all is well"));
        let shown = lake.run(&["fsck"]);
        let shown = String::from_utf8(shown.stdout).unwrap();
        assert!(shown.contains("error    dead reference  cleaned.data"), "{shown}");
        assert!(shown.contains("7 tables") && shown.contains("6 errors"), "{shown}");
    }
}

#[test]
fn fsck_finds_what_the_catalog_remembers_of_nothing() {
    let lake = lake();
    lake.exec("ALTER NAMESPACE cleaned SET PROPERTIES ('icefield.undrop-hours' = '0'); DROP TABLE cleaned.t");
    let (code, said) = fsck(&lake);
    assert_eq!(code, Some(0), "a note is no error");
    assert_eq!(said["findings"][0]["kind"], "orphan row");
    assert!(said["findings"][0]["what"].as_str().unwrap().contains("keys of the ledger"), "{said}");
    assert!(lake.fails(&["fsck", "cleaned.t"], 1).contains("no table `cleaned.t`"));
}
