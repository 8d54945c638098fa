//! The server, asked by PyIceberg, by DuckDB and in plain HTTP.

use crate::interop::python_runs;
use crate::lake::Lake;

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
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let error = lake.fails(&["serve", "--listen", &address], 3);
    assert!(error.contains(&format!("cannot listen on {address}")), "{error}");
}
