//! Where rows come from, and what is known of every table.

use serde_json::{Value, json};

use crate::lake::Lake;

fn tree(lake: &Lake, args: &[&str]) -> Value {
    let args = [&["lineage", "--format", "json"], args].concat();
    serde_json::from_str(&lake.ok(&args)).unwrap()
}

/// The names of a tree, each with what comes next in brackets.
fn names(tree: &Value) -> String {
    let next: Vec<_> = tree["next"].as_array().unwrap().iter().map(names).collect();
    let table = tree["table"].as_str().unwrap();
    if next.is_empty() { table.to_owned() } else { format!("{table}[{}]", next.join(" ")) }
}

fn lake() -> Lake {
    let lake = Lake::new();
    let csv = lake.file("orders.csv", "id,country,total\n1,DE,10\n2,FR,20\n3,DE,30\n");
    lake.ok(&["ingest", &csv, "--into", "raw.orders"]);
    lake.exec("CREATE TABLE raw.fixes AS SELECT 2 AS id, 25 AS total");
    lake.exec("CREATE TABLE cleaned.orders AS SELECT * FROM raw.orders");
    lake.exec(
        "MERGE INTO cleaned.orders t USING raw.fixes s ON t.id = s.id \
         WHEN MATCHED THEN UPDATE SET total = s.total",
    );
    lake.exec("CREATE TABLE curated.by_country (country STRING, total BIGINT)");
    lake.exec(
        "INSERT INTO curated.by_country SELECT country, sum(total) FROM cleaned.orders \
         WHERE id > (SELECT min(id) - 1 FROM raw.fixes) OR true GROUP BY 1",
    );
    lake
}

#[test]
fn statements_say_what_they_read() {
    let lake = lake();
    let up = tree(&lake, &["curated.by_country"]);
    assert_eq!(names(&up), "curated.by_country[cleaned.orders[raw.fixes raw.orders]]");
    let orders = &up["next"][0];
    assert_eq!(orders["snapshots_behind"], 0);
    assert_eq!(
        orders["read_snapshot_id"],
        lake.value(
            "SELECT snapshot_id FROM cleaned.orders.snapshots ORDER BY committed_at DESC LIMIT 1"
        )
    );
    assert!(orders["next"][1]["files"].as_str().unwrap().ends_with("orders.csv"));
    assert!(
        orders["next"][0]["statement"].as_str().unwrap().starts_with("MERGE INTO cleaned.orders")
    );

    let down = tree(&lake, &["raw.orders", "--down"]);
    assert_eq!(names(&down), "raw.orders[cleaned.orders[curated.by_country]]");
    assert_eq!(
        names(&tree(&lake, &["raw.orders", "--down", "--depth", "1"])),
        "raw.orders[cleaned.orders]"
    );

    lake.exec(
        "INSERT INTO raw.orders VALUES (4, 'US', 40); INSERT INTO raw.orders VALUES (5, 'US', 50)",
    );
    let drawn = lake.ok(&["lineage", "curated.by_country"]);
    assert!(drawn.contains("   ├─ raw.fixes") && drawn.contains("up to date"), "{drawn}");
    assert!(drawn.contains("2 snapshots behind"), "{drawn}");
    assert!(drawn.contains("      └─ files: "), "{drawn}");
    assert!(lake.fails(&["lineage", "raw.ordrs"], 1).contains("did you mean `raw.orders`?"));
}

#[test]
fn lineage_follows_names_and_survives_expiry_and_drops() {
    let lake = lake();
    lake.exec("ALTER TABLE raw.orders RENAME TO raw.bought");
    lake.exec("CREATE TABLE raw.orders (id INT)");
    lake.exec("DROP TABLE raw.fixes");
    let expire = "CALL lake.system.expire_snapshots(table => 'cleaned.orders', retain_last => 1, older_than => now())";
    lake.exec(expire);
    assert_eq!(lake.value("SELECT count(*) FROM cleaned.orders.snapshots"), 1);
    let up = tree(&lake, &["cleaned.orders"]);
    assert_eq!(names(&up), "cleaned.orders[raw.fixes raw.bought]", "{up}");
    assert_eq!(up["next"][0]["state"], "gone");
    assert_eq!(
        names(&tree(&lake, &["raw.bought", "--down"])),
        "raw.bought[cleaned.orders[curated.by_country]]"
    );
    assert!(lake.ok(&["lineage", "raw.orders", "--down"]).contains("nothing was made from it"));
}

#[test]
fn a_transaction_says_what_all_its_statements_read() {
    let lake = lake();
    lake.exec(
        "BEGIN; INSERT INTO curated.by_country SELECT 'x', id FROM raw.fixes; \
         INSERT INTO curated.by_country SELECT 'y', id FROM raw.orders; COMMIT",
    );
    let sources = lake.value(
        "SELECT summary['icefield.sources'] FROM curated.by_country.snapshots ORDER BY committed_at DESC LIMIT 1",
    );
    let sources: Value = serde_json::from_str(sources.as_str().unwrap()).unwrap();
    let names: Vec<_> = sources.as_array().unwrap().iter().map(|it| it["table"].clone()).collect();
    assert_eq!(names, ["raw.fixes", "raw.orders"]);
    lake.exec("UPDATE cleaned.orders SET total = 0 WHERE id = 1");
    let own = "SELECT summary['icefield.sources'] FROM cleaned.orders.snapshots ORDER BY committed_at DESC LIMIT 1";
    assert_eq!(lake.value(own), Value::Null, "what reads only itself has no source");
}

#[test]
fn tables_carry_whose_they_are_and_how_fresh_they_should_be() {
    let lake = lake();
    lake.ok(&["--principal", "ada", "sql", "-c", "CREATE TABLE cleaned.made (id INT)"]);
    lake.exec("ALTER NAMESPACE curated SET PROPERTIES ('owner' = 'finance', 'icefield.freshness-hours' = '24')");
    lake.exec(
        "ALTER TABLE curated.by_country SET TBLPROPERTIES ('comment' = 'sales', 'icefield.retention-days' = '90')",
    );
    lake.exec("CREATE TABLE curated.late (id INT) TBLPROPERTIES ('owner' = 'eve')");
    let rows = lake.rows(
        "SELECT table_name, tier, owner, description, retention_days, freshness_hours, is_fresh, row_count \
         FROM system.tables WHERE tier <> 'raw' AND table_name <> 'cleaned.orders' ORDER BY 1",
    );
    assert_eq!(
        rows,
        [
            vec![
                json!("cleaned.made"),
                json!("cleaned"),
                json!("ada"),
                Value::Null,
                Value::Null,
                Value::Null,
                Value::Null,
                json!(0)
            ],
            vec![
                json!("curated.by_country"),
                json!("curated"),
                json!("finance"),
                json!("sales"),
                json!(90.0),
                json!(24.0),
                json!(true),
                json!(2)
            ],
            vec![
                json!("curated.late"),
                json!("curated"),
                json!("eve"),
                Value::Null,
                Value::Null,
                json!(24.0),
                json!(false),
                json!(0)
            ],
        ]
    );
    for key in ["icefield.retention-days", "icefield.freshness-hours"] {
        for value in ["soon", "0", "-1", "inf", "NaN", "3 days"] {
            let sql = format!("ALTER TABLE curated.late SET TBLPROPERTIES ('{key}' = '{value}')");
            let error = lake.fails(&["sql", "-c", &sql], 1);
            assert!(error.contains(&format!("property `{key}` cannot be `{value}`")), "{error}");
        }
    }
}
