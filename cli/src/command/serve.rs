//! `icefield serve`: the warehouse as a service.

use std::io::Write;
use std::time::Duration;

use icefield_query::Session;
use tokio::signal::unix::{SignalKind, signal};

use super::maintain;
use crate::args::{Auth, Options, Serve};
use crate::config;
use crate::report::Failure;

/// Serves until it is told to stop.
pub(crate) async fn run(options: &Options, serve: Serve) -> Result<(), Failure> {
    let session = config::open(options).await?;
    let root = session.tables().warehouse().root.clone();
    let how = how(&session, &serve).await?;
    let listener = icefield_server::listen(serve.listen, &how).await?;
    let address = listener.local_addr()?;
    let mut ends = signal(SignalKind::terminate())?;
    let mut interrupts = signal(SignalKind::interrupt())?;
    let mut out = std::io::stdout();
    let scheme = if how.tls.is_some() { "https" } else { "http" };
    let whom = if how.asks_who { " to principals with tokens" } else { "" };
    writeln!(out, "serving {root}{whom} at {scheme}://{address}")?;
    out.flush()?;
    let stop = async move {
        tokio::select! {
            _ = ends.recv() => {}
            _ = interrupts.recv() => {}
        }
    };
    let served = icefield_server::serve(session, listener, how, stop);
    match serve.maintain_every {
        None => served.await?,
        // What upkeep has not committed when the server ends comes to nothing.
        Some(seconds) => tokio::select! {
            served = served => served?,
            failed = upkeep(options, seconds) => failed?,
        },
    }
    Ok(())
}

/// How to serve: who comes in, and how.
async fn how(session: &Session, serve: &Serve) -> Result<icefield_server::Options, Failure> {
    let rights = session.tables().warehouse().catalog.rights();
    if rights.is_none() {
        let error =
            icefield_query::Error::unsupported("a catalog behind a server cannot be served");
        return Err(error.with_hint("serve the catalog's database").into());
    }
    let has_principals = match rights {
        Some(rights) => !rights.principals().await.map_err(icefield_query::Error::from)?.is_empty(),
        None => false,
    };
    if serve.auth == Some(Auth::Oauth2) && !has_principals {
        let error =
            icefield_query::Error::invalid("there is no principal, so nobody could come in");
        return Err(error
            .with_hint("make one: CREATE PRINCIPAL admin; GRANT administrator ON CATALOG TO admin")
            .into());
    }
    let tls = match (&serve.tls_cert, &serve.tls_key) {
        (Some(certificate), Some(key)) => Some(icefield_server::tls::config(certificate, key)?),
        _ => None,
    };
    let asks_who = has_principals && serve.auth != Some(Auth::None);
    if asks_who && !serve.listen.ip().is_loopback() && tls.is_none() && !serve.plain_http {
        let error = icefield_query::Error::invalid(format!(
            "on {} secrets and tokens would be readable on the way",
            serve.listen
        ));
        return Err(error
            .with_hint("add --tls-cert and --tls-key, or --plain-http behind a proxy with TLS")
            .into());
    }
    let limits = icefield_server::Limits {
        at_once: serve.max_requests,
        per_second: serve.requests_per_second,
        longest: Duration::from_secs(serve.request_timeout),
    };
    let role = serve.s3_role.clone();
    Ok(icefield_server::Options { asks_who, tls, log: serve.log, limits, role })
}

/// Does what is due, for ever. One round that went wrong is told, and does not end the others.
async fn upkeep(options: &Options, seconds: u64) -> Result<(), Failure> {
    // Its own session: what it reads is not to push out what clients use.
    let session = config::open(options).await?;
    loop {
        if let Err(failure) = maintain::once(&session, &[], false).await {
            failure.show();
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
    }
}
