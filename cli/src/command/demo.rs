//! `icefield demo`: the main job, on real data, each step with the command that does it by hand.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use icefield_ingest::Job;
use icefield_ingest::decode::BadRecords;
use icefield_query::Session;

use super::{history, ingest, sql};
use crate::args::{Demo, Format, Options};
use crate::config;
use crate::report::Failure;

/// Flights from New York in 2013; where they come from is said in demo/data/LICENSE.md.
const FILES: [(&str, &[u8]); 4] = [
    ("flights-2013-01.csv", include_bytes!("../../../demo/data/flights-2013-01.csv")),
    ("flights-2013-02.parquet", include_bytes!("../../../demo/data/flights-2013-02.parquet")),
    ("flights-2013-03.csv.gz", include_bytes!("../../../demo/data/flights-2013-03.csv.gz")),
    ("airlines.csv", include_bytes!("../../../demo/data/airlines.csv")),
];

/// Runs the command.
pub(crate) async fn run(options: &Options, demo: Demo) -> Result<(), Failure> {
    let folder = match &demo.keep {
        Some(folder) if folder.exists() => {
            return Err(Failure::usage(format!("`{}` exists already", folder.display())));
        }
        Some(folder) => std::path::absolute(folder)?,
        None => tempfile::Builder::new().prefix("icefield-demo-").tempdir()?.keep(),
    };
    let data = folder.join("data");
    std::fs::create_dir_all(&data)?;
    for (name, content) in FILES {
        std::fs::write(data.join(name), content)?;
    }
    let warehouse = folder.join("warehouse");
    let options = Options {
        warehouse: Some(warehouse.display().to_string()),
        catalog: None,
        ..options.clone()
    };
    let session = Arc::new(config::open(&options).await?);
    let mut tour = Tour { session, data, step: 0 };
    tour.walk().await?;
    let mut out = std::io::stdout().lock();
    writeln!(
        out,
        "\nThe warehouse stays in {}. Look around:\n\n  export ICEFIELD_WAREHOUSE={}\n  icefield sql",
        folder.display(),
        warehouse.display()
    )?;
    Ok(())
}

struct Tour {
    session: Arc<Session>,
    data: PathBuf,
    step: usize,
}

impl Tour {
    async fn walk(&mut self) -> Result<(), Failure> {
        self.say("A CSV file becomes a table; its columns are read off the file.")?;
        self.ingest("flights-2013-01.csv", "raw.flights", false).await?;
        self.ingest("airlines.csv", "raw.airlines", false).await?;

        self.say("The same file again changes nothing: the table remembers what it has loaded.")?;
        self.ingest("flights-2013-01.csv", "raw.flights", false).await?;

        self.say("More rows, from Parquet.")?;
        self.ingest("flights-2013-02.parquet", "raw.flights", false).await?;

        self.say("Which airlines are late?")?;
        self.sql(
            "SELECT a.name, count(*) AS flights, round(avg(f.dep_delay), 1) AS late_minutes \
             FROM raw.flights f JOIN raw.airlines a USING (carrier) \
             GROUP BY a.name ORDER BY late_minutes DESC LIMIT 5",
        )
        .await?;

        self.say("A file with a new column: it is refused, unless the table may evolve.")?;
        self.ingest("flights-2013-03.csv.gz", "raw.flights", true).await?;
        self.sql(
            "SELECT month, count(*) AS flights, round(avg(tail_year)) AS built \
             FROM raw.flights GROUP BY month ORDER BY month",
        )
        .await?;

        self.say("A cleaned table, cut by day and sorted, from a query.")?;
        self.sql(
            "CREATE TABLE cleaned.departures (day DATE NOT NULL, carrier STRING, origin STRING, \
             dep_delay BIGINT) PARTITIONED BY (day) ORDERED BY (carrier)",
        )
        .await?;
        self.sql(
            "INSERT INTO cleaned.departures SELECT make_date(year, month, day), carrier, origin, \
             dep_delay FROM raw.flights WHERE dep_time IS NOT NULL",
        )
        .await?;
        self.sql(
            "SELECT partition.day, record_count FROM cleaned.departures.partitions \
             ORDER BY 1 LIMIT 3",
        )
        .await?;

        self.say("Rows change by SQL: some go, some are corrected; each statement is one commit.")?;
        self.sql("DELETE FROM cleaned.departures WHERE origin = 'LGA' AND day < DATE '2013-01-03'")
            .await?;
        self.sql(
            "MERGE INTO cleaned.departures d USING (SELECT carrier FROM raw.airlines \
             WHERE name LIKE 'Delta%') s ON d.carrier = s.carrier \
             WHEN MATCHED AND d.dep_delay < 0 THEN UPDATE SET dep_delay = 0",
        )
        .await?;

        self.say("The past is still there: each load is a snapshot.")?;
        let table = self.session.table("raw.flights").await?;
        self.show("icefield history raw.flights")?;
        history::show(&mut std::io::stdout(), "raw.flights", table.metadata(), Format::Table)?;
        let Some(first) = table.metadata().history().first().map(|it| it.snapshot_id) else {
            return Ok(());
        };
        self.sql(&format!("SELECT count(*) AS then FROM raw.flights FOR VERSION AS OF {first}"))
            .await?;
        self.sql(&format!(
            "SELECT now.month, now.n AS now, before.n AS before FROM \
             (SELECT month, count(*) AS n FROM raw.flights GROUP BY month) now LEFT JOIN \
             (SELECT month, count(*) AS n FROM raw.flights VERSION AS OF {first} GROUP BY month) \
             before ON now.month = before.month ORDER BY 1"
        ))
        .await
    }

    fn say(&mut self, text: &str) -> Result<(), Failure> {
        self.step += 1;
        writeln!(std::io::stdout(), "\n{}. {text}", self.step)?;
        Ok(())
    }

    fn show(&self, command: &str) -> Result<(), Failure> {
        writeln!(std::io::stdout(), "\n   $ {command}\n")?;
        Ok(())
    }

    async fn ingest(&self, file: &str, table: &str, evolve: bool) -> Result<(), Failure> {
        let flag = if evolve { " --evolve" } else { "" };
        self.show(&format!("icefield ingest {file} --into {table}{flag}"))?;
        let path: &Path = &self.data.join(file);
        let job = Job {
            inputs: vec![path.display().to_string()],
            into: table.to_owned(),
            format: None,
            evolve,
        };
        let bad = Arc::new(BadRecords::default());
        let loaded = ingest::with_progress(&self.session, &job, bad).await?;
        writeln!(std::io::stdout(), "{}", ingest::as_text(&loaded))?;
        Ok(())
    }

    async fn sql(&self, text: &str) -> Result<(), Failure> {
        self.show(&format!("icefield sql -c \"{text}\""))?;
        let mut out = std::io::stdout();
        sql::execute(&self.session, text, &mut out, Format::Table, sql::width(), false).await
    }
}
