//! What the table format costs: TPC-H through Icefield, against the same DataFusion on the same
//! Parquet files without a table around them.
//!
//! ```text
//!   ICEFIELD_BENCH_DATA=DIR ICEFIELD_BENCH_QUERIES=DIR cargo bench --workspace --bench bare_parquet
//! ```
//!
//! The first folder has `tables.json` and the tables of one scale factor, as the peers' harness
//! makes them; the second has `q1.sql` to `q22.sql`. Each query runs once to warm up and five times
//! in turn on both sides; the medians are compared. Without the variables there is nothing to do.

#![expect(clippy::unwrap_used, reason = "a benchmark fails by panicking")]
#![expect(clippy::print_stdout, reason = "a benchmark prints its table")]

use std::path::PathBuf;
use std::time::Instant;

use datafusion::prelude::{ParquetReadOptions, SessionConfig, SessionContext};
use futures::TryStreamExt;
use icefield_catalog::{Env, Storage};
use icefield_query::{Answer, Session, Settings};
use icefield_tests::memory_warehouse;

const RUNS: usize = 5;
const TABLES: [&str; 8] =
    ["region", "nation", "supplier", "customer", "part", "partsupp", "orders", "lineitem"];

fn main() {
    let folder = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let (Some(data), Some(queries)) =
        (folder("ICEFIELD_BENCH_DATA"), folder("ICEFIELD_BENCH_QUERIES"))
    else {
        println!("set ICEFIELD_BENCH_DATA and ICEFIELD_BENCH_QUERIES; see this file's head");
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_stack_size(8 << 20)
        .build()
        .unwrap();
    runtime.block_on(compare(data, queries));
}

async fn compare(data: PathBuf, queries: PathBuf) {
    let index = std::fs::read_to_string(data.join("tables.json")).unwrap();
    let of = |table: &str, key: &str| -> String {
        let (_, rest) = index.split_once(&format!("\"{table}\": {{")).unwrap();
        let (_, rest) = rest.split_once(&format!("\"{key}\": \"")).unwrap();
        rest.split('"').next().unwrap().to_owned()
    };
    let tables = memory_warehouse(Storage::new(), Env::real(), |it| it);
    let ours = Session::new(tables, Settings::default()).unwrap();
    let mut config = SessionConfig::new();
    config.options_mut().sql_parser.parse_float_as_decimal = true;
    let bare = SessionContext::new_with_config(config);
    for table in TABLES {
        let location = format!("{}/data/", of(table, "location"));
        bare.register_parquet(table, location, ParquetReadOptions::default()).await.unwrap();
    }
    println!("| query | icefield s | bare s | ratio |\n|---|---:|---:|---:|");
    let mut logs = Vec::new();
    for number in 1..=22 {
        let text = std::fs::read_to_string(queries.join(format!("q{number}.sql"))).unwrap();
        // q11's fraction follows from the scale factor, which is 1 here.
        let text = text.trim().trim_end_matches(';').replace("${q11_fraction}", "0.0001");
        let scans = TABLES.iter().map(|table| {
            format!("{table} AS (SELECT * FROM iceberg_scan('{}'))", of(table, "metadata"))
        });
        let scans = scans.collect::<Vec<_>>().join(", ");
        let with = match text.to_lowercase().strip_prefix("with ") {
            Some(_) => format!("WITH {scans}, {}", text.get(5..).unwrap()),
            None => format!("WITH {scans} {text}"),
        };
        let (mut a, mut b) = (Vec::new(), Vec::new());
        for run in 0..=RUNS {
            let start = Instant::now();
            let Answer::Rows(rows) = ours.run(&with).await.unwrap() else { continue };
            let _: Vec<_> = rows.stream.try_collect().await.unwrap();
            let middle = Instant::now();
            bare.sql(&text).await.unwrap().collect().await.unwrap();
            if run > 0 {
                a.push((middle - start).as_secs_f64());
                b.push(middle.elapsed().as_secs_f64());
            }
        }
        let (a, b) = (median(a), median(b));
        logs.push((a / b).ln());
        println!("| q{number} | {a:.3} | {b:.3} | {:.2} |", a / b);
    }
    let mean = (logs.iter().sum::<f64>() / logs.len() as f64).exp();
    println!("| geometric mean | | | **{mean:.3}** |");
}

fn median(mut all: Vec<f64>) -> f64 {
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}
