//! The server, asked by PyIceberg, by DuckDB and in plain HTTP.

use crate::interop::{python_runs, python_runs_with, shared};
use crate::lake::Lake;
use crate::services::script;

#[test]
fn pyiceberg_works_on_the_rest_catalog() {
    python_runs("rest_pyiceberg.py");
}

#[test]
fn duckdb_works_on_the_rest_catalog() {
    python_runs("rest_duckdb.py");
}

#[test]
fn the_rest_catalog_does_what_its_specification_says() {
    python_runs("rest_http.py");
}

#[test]
fn postgresql_serves_as_sqlite_does() {
    for part in ["rest_http.py", "rest_pyiceberg.py", "rest_rights.py", "rest_tiers.py"] {
        let catalog = script("scripts/postgres", &["fresh"]);
        python_runs_with(part, &["--catalog", &catalog]);
    }
}

#[test]
fn everybody_may_what_was_granted_and_nothing_else() {
    python_runs("rest_rights.py");
}

#[test]
fn connections_are_secured_if_there_is_a_certificate() {
    python_runs("rest_tls.py");
}

#[test]
fn a_server_takes_on_what_it_can() {
    python_runs("rest_limits.py");
}

#[test]
fn traces_arrive_at_a_collector() {
    python_runs("rest_traces.py");
}

#[test]
fn clients_need_no_keys_of_the_bucket() {
    python_runs("rest_s3.py");
}

#[test]
fn raw_only_grows_whoever_writes() {
    python_runs("rest_tiers.py");
}

#[test]
fn the_audit_log_proves_that_nobody_touched_it() {
    python_runs("audit.py");
}

#[test]
fn the_server_plans_scans_as_pyiceberg_does() {
    python_runs("rest_plan.py");
}

#[test]
fn behind_a_server_everything_works_as_on_the_database() {
    python_runs("rest_client.py");
}

#[test]
fn servers_that_are_killed_lose_and_double_nothing() {
    python_runs("rest_servers.py");
}

#[test]
fn nothing_that_the_openapi_file_allows_makes_the_server_fail() {
    let Some(shared) = shared() else { return };
    let file = shared.join("conformance/rest-catalog-open-api.yaml");
    python_runs_with("rest_schemathesis.py", &[&file.display().to_string()]);
}

#[test]
fn the_server_is_for_this_machine_alone() {
    let lake = Lake::new();
    for (address, code, wanted) in [
        ("0.0.0.0:0", 1, "can be reached from other machines"),
        ("[::]:0", 1, "can be reached from other machines"),
        ("8181", 2, "invalid"),
    ] {
        let error = lake.fails(&["serve", "--listen", address], code);
        assert!(error.contains(wanted), "{address}: {error}");
    }
    let error = lake.fails(&["serve", "--listen", "127.0.0.1:0", "--auth", "oauth2"], 1);
    assert!(
        error.contains("there is no principal") && error.contains("CREATE PRINCIPAL"),
        "{error}"
    );
    lake.exec("CREATE PRINCIPAL root");
    let error = lake.fails(&["serve", "--listen", "0.0.0.0:0"], 1);
    assert!(error.contains("would be readable") && error.contains("--tls-cert"), "{error}");
    let error = lake.fails(&["serve", "--listen", "0.0.0.0:0", "--auth", "none"], 1);
    assert!(error.contains("can be reached from other machines"), "{error}");
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = lake.fails(&["serve", "--listen", &address], 3);
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
}
