//! GRANT, REVOKE and principals in SQL. That they hold is what `rest_rights.py` shows.

use crate::lake::Lake;

fn texts(lake: &Lake, sql: &str) -> Vec<String> {
    let rows = lake.rows(sql);
    let text = |it: &serde_json::Value| it.as_str().map_or(it.to_string(), str::to_owned);
    rows.iter().map(|row| row.iter().take(4).map(text).collect::<Vec<_>>().join(" ")).collect()
}

#[test]
fn roles_are_given_shown_and_taken_away() {
    let lake = Lake::new();
    lake.exec("CREATE TABLE cleaned.orders (id BIGINT); CREATE NAMESPACE raw.web");
    let made = lake.rows("CREATE PRINCIPAL ada");
    assert_eq!(made[0][0], "ada");
    assert_eq!(made[0][1].as_str().unwrap().len(), 64);
    lake.exec("CREATE PRINCIPAL IF NOT EXISTS ada; CREATE PRINCIPAL \"Bob@x.org\"");
    lake.exec("GRANT reader, writer ON cleaned.orders TO ada, \"Bob@x.org\"");
    lake.exec("GRANT reader ON TABLE cleaned.orders TO ada");
    lake.exec("GRANT OWNER ON NAMESPACE raw.web TO ada");
    lake.exec("GRANT administrator ON CATALOG TO ada");
    assert_eq!(
        texts(&lake, "SHOW GRANTS TO ada"),
        [
            "ada administrator catalog ",
            "ada owner namespace raw.web",
            "ada reader table cleaned.orders",
            "ada writer table cleaned.orders",
        ]
    );
    assert_eq!(texts(&lake, "SHOW GRANTS ON NAMESPACE raw.web").len(), 2);
    lake.exec("REVOKE writer ON cleaned.orders FROM ada");
    assert_eq!(texts(&lake, "SHOW GRANTS ON cleaned.orders TO ada").len(), 2);
    lake.exec("ALTER TABLE cleaned.orders RENAME TO cleaned.bought");
    assert_eq!(
        texts(&lake, "SHOW GRANTS TO \"Bob@x.org\""),
        ["Bob@x.org reader table cleaned.bought", "Bob@x.org writer table cleaned.bought"]
    );
    lake.exec("DROP TABLE cleaned.bought");
    assert_eq!(texts(&lake, "SHOW GRANTS TO \"Bob@x.org\"").len(), 0);
    let secret = |rows: &[Vec<serde_json::Value>]| rows[0][1].as_str().unwrap().to_owned();
    let first = secret(&made);
    assert_ne!(secret(&lake.rows("ALTER PRINCIPAL ada ROTATE SECRET")), first);
    lake.exec("DROP PRINCIPAL ada; DROP PRINCIPAL IF EXISTS ada");
    assert_eq!(texts(&lake, "SHOW PRINCIPALS").len(), 1);
    assert_eq!(texts(&lake, "SHOW GRANTS").len(), 0);
    let log = lake.rows("SELECT action, object, detail FROM system.audit_log WHERE chain = '/'");
    assert!(log.len() >= 10, "{log:?}");
    assert!(!format!("{log:?}").contains(&first), "secrets are not on the log");
}

#[test]
fn what_makes_no_sense_is_refused_and_says_what_would() {
    let lake = Lake::new();
    lake.exec("CREATE PRINCIPAL ada");
    for (sql, wanted) in [
        ("CREATE PRINCIPAL ada", "principal `ada` exists already"),
        ("CREATE PRINCIPAL \"a:b\"", "cannot be a principal"),
        ("DROP PRINCIPAL eve", "no principal `eve`"),
        ("ALTER PRINCIPAL eve ROTATE SECRET", "no principal `eve`"),
        ("ALTER PRINCIPAL ada SET x", "expected ROTATE SECRET"),
        ("GRANT reader ON NAMESPACE raw TO eve", "no principal `eve`"),
        ("GRANT SELECT ON NAMESPACE raw TO ada", "GRANT reader lets somebody read"),
        ("GRANT king ON NAMESPACE raw TO ada", "there is no role `king`"),
        ("GRANT reader ON raw.nothing TO ada", "no table `raw.nothing`"),
        ("GRANT reader ON NAMESPACE nowhere TO ada", "no namespace `nowhere`"),
        (
            "REVOKE reader ON NAMESPACE raw FROM ada",
            "`ada` does not have reader on namespace `raw`",
        ),
        ("GRANT reader TO ada", "ON"),
    ] {
        let error = lake.fails(&["sql", "-c", sql], 1);
        assert!(error.contains(wanted), "{sql}: {error}");
    }
}
