//! One file a command.

mod audit;
mod audit_at;
mod backup;
mod compact;
mod demo;
mod diff;
mod fsck;
mod health;
mod history;
mod ingest;
mod lineage;
mod maintain;
mod serve;
pub(crate) mod sql;

use crate::args::{Args, Command};
use crate::config;
use crate::memory;
use crate::report::Failure;

/// Runs what was typed.
pub(crate) async fn run(args: Args) -> Result<(), Failure> {
    let options = config::settle(args.options)?;
    memory::give_back(&args.command, &options);
    match args.command {
        Command::Sql(sql) => sql::run(&options, sql).await,
        Command::Ingest(ingest) => ingest::run(&options, ingest).await,
        Command::History(history) => history::run(&options, history).await,
        Command::Diff(diff) => diff::run(&options, diff).await,
        Command::Lineage(lineage) => lineage::run(&options, lineage).await,
        Command::Compact(compact) => compact::run(&options, compact).await,
        Command::Maintain(maintain) => maintain::run(&options, maintain).await,
        Command::Health(health) => health::run(&options, health).await,
        Command::Fsck(fsck) => fsck::run(&options, fsck).await,
        Command::Backup(place) => backup::backup(&options, place).await,
        Command::Restore(place) => backup::restore(&options, place).await,
        Command::Serve(serve) => serve::run(&options, serve).await,
        Command::Audit(audit) => audit::run(&options, audit).await,
        Command::Demo(demo) => demo::run(&options, demo).await,
    }
}
