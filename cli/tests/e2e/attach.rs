//! Several catalogs in one session.

use serde_json::json;

use crate::lake::{Lake, repository};
use crate::services::script;

/// A warehouse beside that of `lake`, with a table.
fn other(lake: &Lake, name: &str) -> String {
    let folder = lake.folder().join(name).display().to_string();
    lake.ok(&["--warehouse", &folder, "sql", "-c",
        "CREATE TABLE cleaned.names (id BIGINT, name STRING); INSERT INTO cleaned.names VALUES (1, 'one'), (2, 'two')"]);
    folder
}

fn lake() -> Lake {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.t (id BIGINT, v BIGINT); INSERT INTO cleaned.t VALUES (1, 10), (2, 20)");
    lake
}

/// A process that ends with the test, however that ends.
struct Ends(std::process::Child);

impl Drop for Ends {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The last answer of statements.
fn last(lake: &Lake, sql: &str) -> serde_json::Value {
    let text = lake.ok(&["sql", "--format", "json", "-c", sql]);
    let start = text.rfind("\n[").map_or(0, |it| it + 1);
    serde_json::from_str(text[start..].trim()).unwrap()
}

#[test]
fn catalogs_of_every_type_are_joined_with_ones_own() {
    let lake = lake();
    let folder = other(&lake, "other");
    let postgres = script("scripts/postgres", &["fresh"]);
    let place = lake.folder().join("third").display().to_string();
    lake.ok(&[
        "--warehouse",
        &place,
        "--catalog",
        &postgres,
        "sql",
        "-c",
        "CREATE TABLE cleaned.names AS SELECT 1 AS id, 'one' AS name UNION ALL SELECT 2, 'two'",
    ]);
    let mut server = lake.command(&["--warehouse", &folder, "serve", "--listen", "127.0.0.1:0"]);
    let mut server = Ends(server.stdout(std::process::Stdio::piped()).spawn().unwrap());
    let mut line = String::new();
    let mut out = std::io::BufReader::new(server.0.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut out, &mut line).unwrap();
    let url = line.split_whitespace().last().unwrap().to_owned();
    let plain = format!("{folder}/cleaned");
    for (place, options, namespace) in [
        (folder.clone(), "(TYPE folder)", "cleaned"),
        (folder.clone(), "", "cleaned"),
        (format!("{folder}/catalog.db"), "(TYPE sqlite)", "cleaned"),
        (postgres.clone(), "(TYPE postgres)", "cleaned"),
        (url, "(TYPE rest)", "cleaned"),
        (plain, "(TYPE folder)", "main"),
    ] {
        let attach = format!("ATTACH '{place}' AS other {options}");
        let join = format!(
            "{attach}; SELECT t.id, n.name, v FROM cleaned.t t JOIN other.{namespace}.names n USING (id) ORDER BY 1"
        );
        let wanted = json!([{"id": 1, "name": "one", "v": 10}, {"id": 2, "name": "two", "v": 20}]);
        assert_eq!(last(&lake, &join), wanted, "{attach}");
        let past = format!("{attach}; SELECT count(*) AS n FROM other.{namespace}.names.snapshots");
        assert_eq!(last(&lake, &past), json!([{ "n": 1 }]), "{attach}");
        let shown = format!("{attach}; SHOW TABLES IN other");
        assert_eq!(
            last(&lake, &shown),
            json!([{"namespace": namespace, "table": "names"}]),
            "{attach}"
        );
    }
}

#[test]
fn attached_tables_are_changed_in_their_own_catalog() {
    let lake = lake();
    let folder = other(&lake, "other");
    let attach = format!("ATTACH '{folder}' AS other");
    lake.exec(&format!(
        "{attach}; INSERT INTO other.cleaned.names SELECT id + 2, 'more' FROM cleaned.t; \
         UPDATE other.cleaned.names SET name = 'changed' WHERE id IN (SELECT id FROM cleaned.t WHERE v = 10); \
         DELETE FROM other.cleaned.names WHERE id = 2; \
         CREATE NAMESPACE other.made; CREATE TABLE other.made.copy AS SELECT * FROM cleaned.t; \
         CREATE TABLE other.made.gone (id INT); DROP TABLE other.made.gone; \
         ALTER TABLE other.made.copy ADD COLUMN w INT; ALTER TABLE other.made.copy RENAME TO kept; \
         MERGE INTO cleaned.t t USING other.cleaned.names n ON t.id = n.id WHEN NOT MATCHED THEN INSERT (id) VALUES (n.id)"
    ));
    let there = |sql: &str| lake.ok(&["--warehouse", &folder, "sql", "--format", "csv", "-c", sql]);
    assert_eq!(
        there("SELECT * FROM cleaned.names ORDER BY id"),
        "id,name\n1,changed\n3,more\n4,more\n"
    );
    assert_eq!(there("SELECT count(*) AS n, max(w) AS w FROM made.kept"), "n,w\n2,\n");
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.t"), json!(4));
    let said = last(&lake, &format!("{attach}; SHOW CATALOGS"));
    assert_eq!(said[1]["catalog"], "other");
    let raw =
        format!("{attach}; CREATE TABLE other.raw.r AS SELECT 1 AS id; DELETE FROM other.raw.r");
    assert!(lake.fails(&["sql", "-c", &raw], 1).contains("tables only grow"));
}

#[test]
fn what_cannot_be_attached_says_why() {
    let lake = lake();
    let folder = other(&lake, "other");
    let empty = lake.folder().join("empty");
    std::fs::create_dir(&empty).unwrap();
    let attach = format!("ATTACH '{folder}' AS other");
    let tables = repository("../shared/conformance").display().to_string();
    for (sql, wanted) in [
        ("ATTACH 'x' AS other (TYPE oracle)".to_owned(), "there is no catalog of type `oracle`"),
        (
            "ATTACH 'nothing.db' AS other (TYPE sqlite)".to_owned(),
            "there is no catalog at `nothing.db`",
        ),
        (
            format!("ATTACH '{}' AS other (TYPE folder)", empty.display()),
            "there are no Iceberg tables in",
        ),
        (format!("ATTACH '{folder}' AS lake"), "`lake` means something else"),
        (format!("ATTACH '{folder}' AS cleaned"), "`cleaned` means something else"),
        (format!("{attach}; ATTACH '{folder}' AS other"), "attached as `other` already"),
        ("ATTACH 'http://x' AS other (CREDENTIAL 'a:b')".to_owned(), "history of the shell"),
        ("ATTACH 'POSTGRES://u:p@h/db' AS other (TYPE postgres)".to_owned(), "set PGPASSWORD"),
        (
            "ATTACH 'http://x' AS other (TOKEN_ENV 'NOT_THERE')".to_owned(),
            "no variable `NOT_THERE`",
        ),
        ("ATTACH 'http://x' AS other (COLOUR 'red')".to_owned(), "no option `colour`"),
        ("ATTACH 'http://x'".to_owned(), "expected AS and a name"),
        ("DETACH other".to_owned(), "no catalog is attached as `other`"),
        (
            format!("{attach}; DETACH other; SELECT * FROM other.cleaned.names"),
            "no table `other.cleaned.names`",
        ),
        (
            format!("{attach}; BEGIN; INSERT INTO other.cleaned.names VALUES (9, 'x')"),
            "a transaction is of one catalog",
        ),
        (
            format!("{attach}; BEGIN; DELETE FROM other.cleaned.names"),
            "a transaction is of one catalog",
        ),
        (
            format!("{attach}; ALTER TABLE other.cleaned.names RENAME TO cleaned.mine"),
            "a table stays in its catalog",
        ),
        (
            format!("{attach}; GRANT reader ON other.cleaned.names TO ada"),
            "roles are given in the catalog itself",
        ),
        (
            format!(
                "ATTACH '{folder}/cleaned' AS other (TYPE folder); INSERT INTO other.main.names VALUES (9, 'x')"
            ),
            "can only be read",
        ),
    ] {
        let error = lake.fails(&["sql", "-c", &sql], 1);
        assert!(error.contains(wanted), "{sql}: {error}");
        assert!(!error.contains("u:p@"), "{error}");
    }
    let count = [
        "--warehouse",
        &folder,
        "sql",
        "--format",
        "csv",
        "-c",
        "SELECT count(*) AS n FROM cleaned.names",
    ];
    assert_eq!(lake.ok(&count), "n\n2\n", "nothing was changed");
    // Tables of others, in a folder as they left it.
    assert!(
        last(&lake, &format!("ATTACH '{tables}' AS others (TYPE folder); SHOW TABLES IN others"))
            .as_array()
            .is_some()
    );
}
