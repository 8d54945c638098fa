//! A catalog in a file, and back again, on another database too.

use serde_json::json;

use crate::lake::Lake;
use crate::services::script;

/// What there is to be seen of a catalog.
fn seen(lake: &Lake, catalog: &str) -> Vec<String> {
    let queries = [
        "SELECT table_name, row_count, description FROM system.tables ORDER BY 1",
        "SELECT chain, sequence, hash FROM system.audit_log ORDER BY 1, 2",
        "SELECT snapshot_id FROM cleaned.t.snapshots ORDER BY 1",
        "SELECT table_name, dropped_by FROM system.dropped_tables ORDER BY 1",
        "SHOW GRANTS",
        "SHOW PRINCIPALS",
        "SHOW NAMESPACES",
    ];
    let ask = |sql: &&str| lake.ok(&["--catalog", catalog, "sql", "--format", "json", "-c", sql]);
    queries.iter().map(ask).collect()
}

fn lake() -> Lake {
    let lake = Lake::new();
    let csv = lake.file("in.csv", "id,name\n1,ä\n2,\"b, \"\"c\"\"\"\n");
    lake.ok(&["ingest", &csv, "--into", "cleaned.t"]);
    lake.exec("INSERT INTO cleaned.t VALUES (3, 'x'); CREATE NAMESPACE cleaned.deep");
    lake.exec("CREATE TABLE raw.gone (id INT); DROP TABLE raw.gone");
    lake.exec("CREATE PRINCIPAL ada; GRANT writer ON cleaned.t TO ada");
    lake
}

#[test]
fn a_backup_is_restored_on_any_database() {
    let lake = lake();
    let own = format!("sqlite:{}", lake.warehouse().join("catalog.db").display());
    let file = lake.folder().join("lake.backup").display().to_string();
    assert!(lake.ok(&["backup", &file]).contains(" rows, "));
    let before = seen(&lake, &own);
    lake.exec("INSERT INTO cleaned.t VALUES (4, 'after the backup')");
    let elsewhere = format!("sqlite:{}", lake.folder().join("other.db").display());
    for catalog in [elsewhere, script("scripts/postgres", &["fresh"])] {
        lake.ok(&["--catalog", &catalog, "restore", &file]);
        assert_eq!(seen(&lake, &catalog), before, "{catalog}");
        assert!(lake.ok(&["--catalog", &catalog, "audit", "verify"]).contains("whole"));
        let again = lake.file("in.csv", "id,name\n1,ä\n2,\"b, \"\"c\"\"\"\n");
        lake.ok(&["--catalog", &catalog, "ingest", &again, "--into", "cleaned.t"]);
        let count = [
            "--catalog",
            &catalog,
            "sql",
            "--format",
            "csv",
            "-c",
            "SELECT count(*) FROM cleaned.t",
        ];
        assert!(lake.ok(&count).contains("\n3\n"), "what was loaded is not loaded again");
        // And back from there.
        let other = lake.folder().join("other.backup");
        lake.ok(&["--catalog", &catalog, "backup", &other.display().to_string()]);
        let full = lake.fails(&["--catalog", &catalog, "restore", &file], 1);
        assert!(full.contains("the catalog is not empty"), "{full}");
        std::fs::remove_file(other).unwrap();
    }
}

#[test]
fn what_is_no_whole_backup_restores_nothing() {
    let lake = lake();
    let file = lake.folder().join("lake.backup");
    let path = file.display().to_string();
    lake.ok(&["backup", &path]);
    assert!(lake.fails(&["backup", &path], 1).contains("exists already"));
    let whole = std::fs::read_to_string(&file).unwrap();
    assert!(!whole.contains("icefield_tokens"));
    let lines: Vec<_> = whole.lines().collect();
    let catalog = format!("sqlite:{}", lake.folder().join("new.db").display());
    for (text, why) in [
        (String::new(), "this is no backup"),
        ("id,name\n1,2\n".to_owned(), "this is no backup"),
        (lines[..lines.len() - 1].join("\n"), "not whole"),
        ([&lines[..3], &lines[4..]].concat().join("\n"), "not whole"),
        (whole.replacen("cleaned", "curated", 1), "not whole"),
        (format!("{whole}{{\"icefield_grants\":[]}}\n"), "not whole"),
        (whole.replacen("\"icefield-backup\":1", "\"icefield-backup\":2", 1), "of version 2"),
    ] {
        std::fs::write(&file, text).unwrap();
        let error = lake.fails(&["--catalog", &catalog, "restore", &path], 1);
        assert!(error.contains(why), "{why}: {error}");
    }
    assert!(
        lake.fails(&["--catalog", &catalog, "restore", "nothing"], 1)
            .contains("cannot read `nothing`")
    );
    std::fs::write(&file, whole).unwrap();
    let mine = format!("sqlite:{}", lake.folder().join("mine.db").display());
    lake.ok(&["--catalog", &mine, "sql", "-c", "CREATE NAMESPACE mine"]);
    assert!(
        lake.fails(&["--catalog", &mine, "restore", &path], 1).contains("the catalog is not empty")
    );
    lake.ok(&["--catalog", &catalog, "restore", &path]);
}

#[test]
fn a_backup_is_of_one_moment_while_others_write() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id INT)");
    let mut writer = lake
        .command(&["sql", "-c", &"INSERT INTO cleaned.t VALUES (1);".repeat(60)])
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap();
    for number in 0..5 {
        let file = lake.folder().join(format!("{number}.backup")).display().to_string();
        lake.ok(&["backup", &file]);
        let catalog = format!("sqlite:{}", lake.folder().join(format!("{number}.db")).display());
        lake.ok(&["--catalog", &catalog, "restore", &file]);
        assert!(lake.ok(&["--catalog", &catalog, "audit", "verify"]).contains("whole"));
        let sql = "SELECT (SELECT count(*) FROM cleaned.t) = (SELECT count(*) FROM system.audit_log \
                   WHERE chain = 'cleaned.t' AND action = 'commit') AS same";
        let same = lake.ok(&["--catalog", &catalog, "sql", "--format", "json", "-c", sql]);
        assert_eq!(
            serde_json::from_str::<serde_json::Value>(&same).unwrap(),
            json!([{ "same": true }])
        );
    }
    assert!(writer.wait().unwrap().success());
}
