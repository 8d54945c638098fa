//! Settings: flags over `ICEFIELD_*` over `icefield.toml`.
//!
//! The file is looked for in the current folder, then in the user's configuration folder (XDG). Its
//! keys are the flags' names: `warehouse`, `catalog`, `memory-limit`, `cache-limit`, `threads`, `principal`,
//! `job`, `credential`, `token`, `oauth2-server-uri`, `scope`.

use std::path::PathBuf;

use icefield_catalog::audit::Actor;
use icefield_catalog::rest::Access;
use icefield_catalog::warehouse::DEFAULT_ROOT;
use icefield_catalog::{Behalf, Warehouse};
use icefield_query::{Session, Settings};
use icefield_table::Tables;
use serde::Deserialize;

use crate::args::{Options, Secrets};
use crate::report::Failure;

const FILE: &str = "icefield.toml";

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
struct File {
    warehouse: Option<String>,
    catalog: Option<String>,
    memory_limit: Option<String>,
    cache_limit: Option<String>,
    threads: Option<usize>,
    principal: Option<String>,
    job: Option<String>,
    credential: Option<String>,
    token: Option<String>,
    oauth2_server_uri: Option<String>,
    scope: Option<String>,
}

/// Fills what flags and variables left open from the file.
pub(crate) fn settle(options: Options) -> Result<Options, Failure> {
    let file = read_file()?;
    Ok(Options {
        warehouse: options.warehouse.or(file.warehouse),
        catalog: options.catalog.or(file.catalog),
        memory_limit: options.memory_limit.or(file.memory_limit),
        cache_limit: options.cache_limit.or(file.cache_limit),
        threads: options.threads.or(file.threads),
        principal: options.principal.or(file.principal).or_else(user),
        job: options.job.or(file.job),
        secrets: Secrets {
            credential: secret("ICEFIELD_CREDENTIAL").or(file.credential),
            token: secret("ICEFIELD_TOKEN").or(file.token),
        },
        oauth2_server_uri: options.oauth2_server_uri.or(file.oauth2_server_uri),
        scope: options.scope.or(file.scope),
    })
}

/// A secret is taken from the environment or the file, and not from flags: those others can see.
fn secret(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|it| !it.is_empty())
}

fn read_file() -> Result<File, Failure> {
    let home = || std::env::var_os("HOME").map(|it| PathBuf::from(it).join(".config"));
    let user = std::env::var_os("XDG_CONFIG_HOME").map(PathBuf::from).or_else(home);
    let places = [Some(PathBuf::from(FILE)), user.map(|it| it.join("icefield").join(FILE))];
    for place in places.into_iter().flatten() {
        match std::fs::read_to_string(&place) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(Failure::new(format!("cannot read `{}`: {error}", place.display())));
            }
            Ok(text) => {
                return toml::from_str(&text).map_err(|error| {
                    Failure::usage(format!("`{}`: {}", place.display(), error.message()))
                });
            }
        }
    }
    Ok(File::default())
}

/// Opens the warehouse and begins a session.
pub(crate) async fn open(options: &Options) -> Result<Session, Failure> {
    let root = options.warehouse.as_deref().unwrap_or(DEFAULT_ROOT);
    let given = |text: &str| {
        let no_size = || Failure::usage(format!("`{text}` is no size; write it as 512MB or 2GB"));
        bytes(text).ok_or_else(no_size)
    };
    let memory_bytes = options.memory_limit.as_deref().map(given).transpose()?;
    if memory_bytes == Some(0) {
        return Err(Failure::usage("a memory limit of 0 leaves nothing to work in".to_owned()));
    }
    let cache_bytes = match options.cache_limit.as_deref() {
        Some(text) => given(text)?,
        None => memory_bytes.unwrap_or_else(machine_bytes) / 4,
    };
    let mut warehouse = Warehouse::open(root, options.catalog.as_deref(), access(options))
        .await
        .map_err(icefield_query::Error::from)?;
    let actor = Actor {
        principal: options.principal.clone().unwrap_or_default(),
        source: "this machine".to_owned(),
        request_id: warehouse.env.uuid().to_string(),
        is_authenticated: false,
    };
    warehouse.catalog = warehouse.catalog.on_behalf(Behalf { actor, ..Behalf::default() });
    let settings = Settings {
        memory_bytes,
        cache_bytes,
        threads: options.threads,
        principal: options.principal.clone(),
        job: options.job.clone(),
    };
    let session = Session::new(Tables::new(warehouse), settings)?;
    let mut procedures = icefield_compaction::procedures();
    procedures.extend(icefield_ingest::adopt::procedures::all());
    Ok(session.with_procedures(procedures))
}

/// What shows a catalog's server who we are.
fn access(options: &Options) -> Access {
    Access {
        credential: options.secrets.credential.clone(),
        token: options.secrets.token.clone(),
        oauth2_server_uri: options.oauth2_server_uri.clone(),
        scope: options.scope.clone(),
    }
}

/// The memory of the machine, or of the container if that has less.
fn machine_bytes() -> usize {
    let mut system = sysinfo::System::new();
    system.refresh_memory();
    let container = system.cgroup_limits().map_or(u64::MAX, |it| it.total_memory);
    usize::try_from(system.total_memory().min(container)).unwrap_or(usize::MAX)
}

/// A size such as `512MB`, `2G` or `1000`.
fn bytes(text: &str) -> Option<usize> {
    let text = text.trim().to_ascii_uppercase();
    let digits = text.trim_end_matches(|it: char| it.is_ascii_alphabetic()).trim();
    let unit = text.get(digits.len()..)?.trim();
    let factor: f64 = match unit {
        "" | "B" => 1.0,
        "K" | "KB" | "KIB" => 1024.0,
        "M" | "MB" | "MIB" => 1024.0 * 1024.0,
        "G" | "GB" | "GIB" => 1024.0 * 1024.0 * 1024.0,
        "T" | "TB" | "TIB" => 1024.0 * 1024.0 * 1024.0 * 1024.0,
        _ => return None,
    };
    let value = digits.parse::<f64>().ok().filter(|it| *it >= 0.0)?;
    Some((value * factor) as usize)
}

/// The user's name, as the environment has it, or else the system.
fn user() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    if let Some(name) = std::env::var("USER").ok().filter(|it| !it.is_empty()) {
        return Some(name);
    }
    let id = std::fs::metadata("/proc/self").ok()?.uid().to_string();
    let users = std::fs::read_to_string("/etc/passwd").ok()?;
    let mut users = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    let found = users.find(|it| it.get(2) == Some(&id.as_str()));
    Some(found.and_then(|it| it.first().map(|name| (*name).to_owned())).unwrap_or(id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        assert_eq!(bytes("512MB"), Some(512 << 20));
        assert_eq!(bytes("1.5g"), Some(3 << 29));
        assert_eq!(bytes("1000"), Some(1000));
        assert_eq!(bytes("0"), Some(0));
        assert_eq!(bytes("lots"), None);
        assert_eq!(bytes("-1GB"), None);
    }
}
