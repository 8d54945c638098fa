//! `icefield backup` and `icefield restore`: the catalog as one file, and back again.

use std::fs::{self, File, OpenOptions};
use std::io::{BufReader, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;

use icefield_catalog::{Error, ErrorKind};
use icefield_query::Session;

use super::sql::grouped;
use crate::args::{Options, Place};
use crate::config;
use crate::report::Failure;

/// Writes the catalog into a file.
pub(crate) async fn backup(options: &Options, place: Place) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let backup = of(&session)?;
    let path = place.file;
    let failed =
        |error: std::io::Error| Failure::new(format!("cannot write `{}`: {error}", path.display()));
    // Hashes of secrets are for nobody else; and what is half written is not called a backup.
    let mut half = path.clone().into_os_string();
    half.push(".part");
    if path.exists() {
        return Err(Failure::new(format!("`{}` exists already", path.display())));
    }
    let file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&half);
    let mut out = BufWriter::new(file.map_err(failed)?);
    let written = backup.write(&mut out).await.map_err(icefield_query::Error::from);
    let rows = match written {
        Ok(rows) => rows,
        Err(error) => {
            let _ = fs::remove_file(&half);
            return Err(error.into());
        }
    };
    let file = out.into_inner().map_err(|error| failed(error.into_error()))?;
    file.sync_all().map_err(failed)?;
    fs::rename(&half, &path).map_err(failed)?;
    let bytes = crate::print::value::bytes(file.metadata().map_err(failed)?.len());
    writeln!(std::io::stdout(), "{} rows, {bytes}, in {}", grouped(rows), path.display())?;
    Ok(())
}

/// Fills an empty catalog from a file.
pub(crate) async fn restore(options: &Options, place: Place) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let path = place.file;
    let open = || -> icefield_catalog::Result<Box<dyn std::io::BufRead + Send>> {
        let file = File::open(&path).map_err(|error| {
            let message = format!("cannot read `{}`: {error}", path.display());
            Error::new(ErrorKind::DataInvalid, message)
        })?;
        Ok(Box::new(BufReader::new(file)))
    };
    let rows = of(&session)?.restore(open).await.map_err(icefield_query::Error::from)?;
    writeln!(std::io::stdout(), "{} rows restored", grouped(rows))?;
    Ok(())
}

fn of(session: &Session) -> Result<icefield_catalog::Backup, Failure> {
    session.tables().warehouse().catalog.backup().ok_or_else(|| {
        let error =
            icefield_query::Error::unsupported("a catalog behind a server is backed up there");
        error.with_hint("do this where the catalog's database is at hand").into()
    })
}
