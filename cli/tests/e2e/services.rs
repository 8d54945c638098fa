//! The team's server: the catalog in PostgreSQL, the files in S3. Both are the real thing, or as good
//! as: `scripts/postgres` and `scripts/s3` start them.

use std::process::{Command, Output};

use crate::lake::{Lake, repository};

/// What a script prints.
pub(crate) fn script(name: &str, args: &[&str]) -> String {
    let output = Command::new("bash").arg(repository(name)).args(args).output().unwrap();
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{name} failed: {error}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

/// A bucket and a database that nobody else has.
struct Services {
    endpoint: String,
    bucket: String,
    catalog: String,
    lake: Lake,
}

impl Services {
    fn new() -> Self {
        let endpoint = script("scripts/s3", &[]);
        let catalog = script("scripts/postgres", &["fresh"]);
        let bucket = format!("test-{}", catalog.rsplit('/').next().unwrap().replace('_', "-"));
        let host = endpoint.strip_prefix("http://").unwrap();
        let mut stream = std::net::TcpStream::connect(host).unwrap();
        use std::io::{Read, Write};
        let request = format!(
            "PUT /{bucket} HTTP/1.1\r\nHost: {host}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        Self { endpoint, bucket, catalog, lake: Lake::new() }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = self.lake.command(args);
        command.env("ICEFIELD_WAREHOUSE", format!("s3://{}/wh", self.bucket));
        command.env("ICEFIELD_CATALOG", &self.catalog).env("AWS_ENDPOINT_URL", &self.endpoint);
        command.env("AWS_ACCESS_KEY_ID", "any").env("AWS_SECRET_ACCESS_KEY", "SEKRET");
        command.env("AWS_REGION", "us-east-1");
        command
    }

    fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn sql(&self, text: &str) -> String {
        self.ok(&["sql", "--format", "csv", "-c", text])
    }
}

#[test]
fn the_main_job_works_on_postgresql_and_s3() {
    let services = Services::new();
    services.sql("CREATE TABLE cleaned.t (id BIGINT, day DATE, v TEXT) PARTITIONED BY (day)");
    services.sql(
        "INSERT INTO cleaned.t SELECT i, DATE '2026-11-01' + CAST(i % 3 AS INT), 'v' FROM \
         range(0, 3000) r(i)",
    );
    let before = services.sql("SELECT snapshot_id FROM cleaned.t.snapshots");
    let before = before.lines().nth(1).unwrap();
    services.sql("DELETE FROM cleaned.t WHERE id % 10 = 0");
    services.sql("UPDATE cleaned.t SET v = 'w' WHERE id < 100");
    assert_eq!(services.sql("SELECT count(*) AS n FROM cleaned.t"), "n\n2700\n");
    assert_eq!(services.sql("SELECT count(*) AS n FROM cleaned.t WHERE v = 'w'"), "n\n90\n");
    let past = format!("SELECT count(*) AS n FROM cleaned.t FOR VERSION AS OF {before}");
    assert_eq!(services.sql(&past), "n\n3000\n");

    let file = services.lake.file("in.csv", "id,name\n1,a\n2,b\n");
    services.ok(&["ingest", &file, "--into", "cleaned.named"]);
    services.ok(&["ingest", &file, "--into", "cleaned.named"]);
    assert_eq!(services.sql("SELECT count(*) AS n FROM cleaned.named"), "n\n2\n");
    assert!(services.ok(&["history", "cleaned.t"]).contains("UPDATE cleaned.t"));
}

#[test]
fn a_new_database_is_prepared_once_however_many_begin_at_once() {
    let services = Services::new();
    let begin = |number: usize| {
        let text = format!("CREATE TABLE cleaned.t{number} (a INT)");
        services.command(&["sql", "-c", &text]).output().unwrap()
    };
    let outputs: Vec<Output> = std::thread::scope(|scope| {
        let started: Vec<_> = (0..6).map(|number| scope.spawn(move || begin(number))).collect();
        started.into_iter().map(|it| it.join().unwrap()).collect()
    });
    for output in outputs {
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
    assert_eq!(services.sql("SHOW TABLES IN cleaned").lines().count(), 7);
    assert_eq!(services.sql("SHOW NAMESPACES").lines().count(), 4);
}

#[test]
fn processes_share_a_table_and_lose_nothing() {
    let services = Services::new();
    services.sql("CREATE TABLE cleaned.t (id INT)");
    let insert = |process: usize| {
        for number in 0..3 {
            services.sql(&format!("INSERT INTO cleaned.t VALUES ({})", process * 3 + number));
        }
    };
    std::thread::scope(|scope| {
        for process in 0..4 {
            scope.spawn(move || insert(process));
        }
    });
    let all = services.sql("SELECT count(*) AS n, count(DISTINCT id) AS m FROM cleaned.t");
    assert_eq!(all, "n,m\n12,12\n");
}

#[test]
fn what_is_wrong_with_a_service_is_said_and_no_secret_with_it() {
    let services = Services::new();
    let fails = |command: &mut Command| {
        let output = command.output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert!(!error.contains("SEKRET") && !error.contains("panicked"), "{error}");
        (output.status.code(), error)
    };
    let create = ["sql", "-c", "CREATE TABLE cleaned.t (a INT)"];
    let mut command = services.command(&create);
    let (code, error) = fails(command.env("ICEFIELD_WAREHOUSE", "s3://no-such-bucket/wh"));
    assert!(code == Some(1) && error.contains("no-such-bucket"), "{error}");
    let mut command = services.command(&create);
    let (_, error) = fails(command.env("AWS_ENDPOINT_URL", "127.0.0.1:5000"));
    assert!(error.contains("AWS_ENDPOINT_URL"), "{error}");
    let mut command = services.command(&create);
    let (code, error) = fails(command.env("AWS_ENDPOINT_URL", "http://127.0.0.1:9"));
    assert!(code == Some(3) && error.contains("127.0.0.1"), "{code:?} {error}");
    for url in [
        "postgres://ada:SEKRET@127.0.0.1:9/db",
        "postgres://ada@127.0.0.1:9/db?password=SEKRET",
        "host=h password=SEKRET",
    ] {
        let mut command = services.command(&create);
        let (code, _) = fails(command.env("ICEFIELD_CATALOG", url));
        assert!(matches!(code, Some(1 | 3)), "{url}");
    }
}
