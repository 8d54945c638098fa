//! What can be typed.

use std::path::PathBuf;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{
    Arg, ArgAction, ArgMatches, Args as ClapArgs, Command as ClapCommand, FromArgMatches, Parser,
    Subcommand, ValueEnum, value_parser,
};

/// The Apache Iceberg lakehouse in one binary.
///
/// Exit codes: 0 done, 1 failed, 2 wrong command line, 3 try again.
#[derive(Debug, Parser)]
#[command(name = "icefield", version, max_term_width = 100)]
pub(crate) struct Args {
    #[command(flatten)]
    pub(crate) options: Options,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// Options of every command. Flags win over `ICEFIELD_*` variables, and those over icefield.toml.
#[derive(Debug, Clone, Default, ClapArgs)]
pub(crate) struct Options {
    /// Folder or URL below which tables lie [default: ./warehouse]
    #[arg(long, global = true, env = "ICEFIELD_WAREHOUSE", value_name = "DIR|URL")]
    pub(crate) warehouse: Option<String>,
    /// Catalog: sqlite:PATH, postgres://USER@HOST/DB, http://HOST of an Iceberg REST catalog, which is shown
    /// ICEFIELD_CREDENTIAL=ID:SECRET or ICEFIELD_TOKEN, thrift://HOST:PORT of a Hive metastore, glue, or hadoop
    /// for the warehouse as a folder of tables [default: SQLite inside the warehouse]
    #[arg(
        long,
        global = true,
        env = "ICEFIELD_CATALOG",
        value_name = "URL",
        hide_env_values = true
    )]
    pub(crate) catalog: Option<String>,
    /// Memory for queries before they spill to disk, such as 2GB [default: unlimited]
    #[arg(long, global = true, env = "ICEFIELD_MEMORY_LIMIT", value_name = "SIZE")]
    pub(crate) memory_limit: Option<String>,
    /// Memory in which columns that were read stay decoded for later queries, such as 2GB; 0 keeps none
    /// [default: a quarter of the memory, or of --memory-limit]
    #[arg(long, global = true, env = "ICEFIELD_CACHE_LIMIT", value_name = "SIZE")]
    pub(crate) cache_limit: Option<String>,
    /// Cores for queries [default: all]
    #[arg(long, global = true, env = "ICEFIELD_THREADS", value_name = "N")]
    pub(crate) threads: Option<usize>,
    /// Who works, for the history of tables [default: the user's name]
    #[arg(long, global = true, env = "ICEFIELD_PRINCIPAL", value_name = "NAME")]
    pub(crate) principal: Option<String>,
    /// For which job, for the history of tables
    #[arg(long, global = true, env = "ICEFIELD_JOB", value_name = "NAME")]
    pub(crate) job: Option<String>,
    /// Where tokens for the REST catalog are given, if not at its own server
    #[arg(
        long,
        global = true,
        env = "ICEFIELD_OAUTH2_SERVER_URI",
        value_name = "URL",
        hide_short_help = true
    )]
    pub(crate) oauth2_server_uri: Option<String>,
    /// What these tokens are for [default: catalog]
    #[arg(
        long,
        global = true,
        env = "ICEFIELD_SCOPE",
        value_name = "SCOPE",
        hide_short_help = true
    )]
    pub(crate) scope: Option<String>,
    /// What we show there; not to be typed, since others can see it
    #[arg(skip)]
    pub(crate) secrets: Secrets,
}

/// A client id with its secret, and a token. Never printed.
#[derive(Clone, Default)]
pub(crate) struct Secrets {
    pub(crate) credential: Option<String>,
    pub(crate) token: Option<String>,
}

impl std::fmt::Debug for Secrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Secrets")
    }
}

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Query with SQL: a shell, or the statements given
    Sql(Sql),
    /// Load files into a table, each file once
    Ingest(Ingest),
    /// Show who changed a table, when and how
    History(History),
    /// Show what is different between two versions of a table: columns, properties, rows
    Diff(Diff),
    /// Show what a table was made from, or what was made from it
    Lineage(Lineage),
    /// Merge small files, fold deletes in, sort
    Compact(Compact),
    /// Do all upkeep that is due, for every table, by its policy
    Maintain(Maintain),
    /// Show how tables are: file sizes, deletes, order, what a scan costs
    Health(Health),
    /// Write all that the catalog knows into a file, while others go on
    Backup(Place),
    /// Fill an empty catalog from such a file, on SQLite or PostgreSQL whichever it was
    Restore(Place),
    /// Look for what is broken, from names to files, and change nothing
    Fsck(Fsck),
    /// Serve the warehouse as an Iceberg REST catalog
    Serve(Serve),
    /// What a reader of a table saw at some time; and the log of who did what
    Audit(Audit),
    /// See it work, on real data in a temporary folder
    Demo(Demo),
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Sql {
    #[command(flatten)]
    pub(crate) texts: Texts,
    /// How results are written
    #[arg(long, value_enum, env = "ICEFIELD_FORMAT")]
    pub(crate) format: Option<Format>,
}

/// What there is to run, in the order it is given in.
#[derive(Debug)]
pub(crate) struct Texts(pub(crate) Vec<Text>);

/// Statements to run.
#[derive(Debug)]
pub(crate) enum Text {
    Command(String),
    File(PathBuf),
}

impl ClapArgs for Texts {
    fn augment_args(command: ClapCommand) -> ClapCommand {
        let statement = Arg::new("command")
            .short('c')
            .long("command")
            .value_name("SQL")
            .allow_hyphen_values(true)
            .action(ArgAction::Append)
            .help("A statement to run; may be repeated, also beside -f, and is run in its turn");
        let file = Arg::new("file")
            .short('f')
            .long("file")
            .value_name("FILE")
            .value_parser(value_parser!(PathBuf))
            .action(ArgAction::Append)
            .help("A file of statements to run; `-` is standard input");
        command.arg(statement).arg(file)
    }

    fn augment_args_for_update(command: ClapCommand) -> ClapCommand {
        Self::augment_args(command)
    }
}

impl FromArgMatches for Texts {
    fn from_arg_matches(matches: &ArgMatches) -> Result<Self, clap::Error> {
        fn found<'a, T: Clone + Send + Sync + 'static>(
            matches: &'a ArgMatches,
            name: &str,
            text: fn(T) -> Text,
        ) -> impl Iterator<Item = (usize, Text)> + 'a {
            let places = matches.indices_of(name).into_iter().flatten();
            let values = matches.get_many::<T>(name).into_iter().flatten().cloned();
            places.zip(values.map(text))
        }
        let mut all: Vec<_> = found(matches, "command", Text::Command)
            .chain(found(matches, "file", Text::File))
            .collect();
        all.sort_by_key(|(place, _)| *place);
        Ok(Self(all.into_iter().map(|(_, text)| text).collect()))
    }

    fn update_from_arg_matches(&mut self, matches: &ArgMatches) -> Result<(), clap::Error> {
        *self = Self::from_arg_matches(matches)?;
        Ok(())
    }
}

/// How results are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Format {
    /// Aligned columns for people
    Table,
    /// One JSON array of objects; maps are arrays of pairs, bytes 0x…
    Json,
    /// One JSON object a line
    Ndjson,
    /// Comma-separated values with a header
    Csv,
    /// A Markdown table
    Markdown,
}

/// What is no result of a query is told in words and drawings, or as JSON.
fn for_people_or_programs() -> impl TypedValueParser<Value = Format> {
    PossibleValuesParser::new(["table", "json", "ndjson"])
        .try_map(|name| Format::from_str(&name, true))
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Ingest {
    /// Files, patterns in quotes, URLs; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    pub(crate) inputs: Vec<String>,
    /// The table, such as raw.flights; it is made if it is missing
    #[arg(long, value_name = "TABLE")]
    pub(crate) into: String,
    /// Add columns that the table lacks, and widen those that are too narrow
    #[arg(long)]
    pub(crate) evolve: bool,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Set records that do not fit aside in this file, and load the rest
    #[arg(long, value_name = "FILE")]
    pub(crate) bad_records: Option<PathBuf>,
    /// csv, tsv, json, parquet or avro, where names do not tell
    #[arg(long, value_name = "FORMAT")]
    pub(crate) input_format: Option<String>,
    /// How the result is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct History {
    /// The table, such as raw.flights
    pub(crate) table: String,
    /// How it is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Diff {
    /// The table, such as raw.flights
    pub(crate) table: String,
    /// The version to begin with: a snapshot id, a branch, a tag or a time
    #[arg(long, value_name = "VERSION")]
    pub(crate) from: String,
    /// The version to compare it with [default: the current one]
    #[arg(long, value_name = "VERSION")]
    pub(crate) to: Option<String>,
    /// Rows that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// How it is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Lineage {
    /// The table, such as cleaned.orders
    pub(crate) table: String,
    /// What was made from it, instead of what it was made from
    #[arg(long)]
    pub(crate) down: bool,
    /// Steps to go
    #[arg(long, value_name = "N", default_value_t = 10)]
    pub(crate) depth: usize,
    /// How it is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Compact {
    /// The table, such as raw.events
    pub(crate) table: String,
    /// Only files that may have rows like this: a condition on the table's columns
    #[arg(long = "where", value_name = "CONDITION")]
    pub(crate) condition: Option<String>,
    /// binpack, sort, zorder or hilbert
    #[arg(long, value_name = "STRATEGY")]
    pub(crate) strategy: Option<String>,
    /// What rows are sorted by: "user_id, ts", "zorder(a, b)", "hilbert(a, b)"
    #[arg(long, value_name = "ORDER")]
    pub(crate) order_by: Option<String>,
    /// An option of rewrite_data_files, such as min-input-files=2; may be repeated
    #[arg(short, long = "option", value_name = "KEY=VALUE")]
    pub(crate) options: Vec<String>,
    /// Show what would be done, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// How the result is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Maintain {
    /// Tables; all if none is named
    pub(crate) tables: Vec<String>,
    /// Show what is due, why, what it costs and gains, and do nothing
    #[arg(long)]
    pub(crate) dry_run: bool,
    /// Keep doing so until it is told to stop
    #[arg(long, conflicts_with = "dry_run")]
    pub(crate) daemon: bool,
    /// Seconds between looks of the daemon
    #[arg(long, value_name = "SECONDS", default_value_t = 600)]
    pub(crate) every: u64,
    /// How the result is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Health {
    /// The table; all if none is named
    pub(crate) table: Option<String>,
    /// How it is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Place {
    /// The file
    pub(crate) file: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Fsck {
    /// Tables; if none is named, all, and the catalog itself
    pub(crate) tables: Vec<String>,
    /// How it is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Serve {
    /// Where to listen; port 0 takes a free one. Elsewhere than on this machine only with principals and TLS
    #[arg(long, value_name = "ADDRESS:PORT", default_value = "127.0.0.1:8181")]
    pub(crate) listen: std::net::SocketAddr,
    /// Do all upkeep that is due as well, as `maintain --daemon` does, every so many seconds
    #[arg(long, value_name = "SECONDS", value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) maintain_every: Option<u64>,
    /// Whether everybody is asked who they are [default: oauth2 if there is a principal, otherwise none]
    #[arg(long, value_enum)]
    pub(crate) auth: Option<Auth>,
    /// The certificate and its chain, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_key")]
    pub(crate) tls_cert: Option<PathBuf>,
    /// The certificate's private key, as PEM
    #[arg(long, value_name = "FILE", requires = "tls_cert")]
    pub(crate) tls_key: Option<PathBuf>,
    /// Let others in without TLS: for a server behind a proxy that has it
    #[arg(long, conflicts_with = "tls_cert")]
    pub(crate) plain_http: bool,
    /// Requests that are answered at once; more are asked to come again
    #[arg(long, value_name = "N", default_value_t = icefield_server::Limits::default().at_once,
        value_parser = positive)]
    pub(crate) max_requests: usize,
    /// Requests a second that one principal may make [default: no limit]
    #[arg(long, value_name = "N", value_parser = rate)]
    pub(crate) requests_per_second: Option<f64>,
    /// Seconds that a request may take
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u64).range(1..))]
    pub(crate) request_timeout: u64,
    /// Vend keys of this role of AWS, cut down to a table's folders, to those who load the table [default: sign their
    /// requests to S3]
    #[arg(long, value_name = "ARN", env = "ICEFIELD_S3_ROLE")]
    pub(crate) s3_role: Option<String>,
    /// Tell of every request on standard error: none, text or json
    #[arg(long, value_name = "FORMAT", default_value = "none")]
    pub(crate) log: icefield_server::Log,
}

fn positive(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number > 0 => Ok(number),
        _ => Err("it is a whole number from 1 on".to_owned()),
    }
}

fn rate(text: &str) -> Result<f64, String> {
    match text.parse::<f64>() {
        Ok(number) if number.is_finite() && number > 0.0 => Ok(number),
        _ => Err("it is a number greater than 0".to_owned()),
    }
}

/// How those who come prove who they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Auth {
    /// With tokens, for which they give a client id and a secret
    Oauth2,
    /// Not at all
    None,
}

#[derive(Debug, ClapArgs)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
pub(crate) struct Audit {
    #[command(subcommand)]
    pub(crate) what: Option<AuditCommand>,
    #[command(flatten)]
    pub(crate) at: AuditAt,
}

#[derive(Debug, ClapArgs)]
pub(crate) struct AuditAt {
    /// The table, such as raw.flights
    pub(crate) table: Option<String>,
    /// The moment: a time, or a snapshot id, branch or tag
    #[arg(long, value_name = "TIME")]
    pub(crate) at: Option<String>,
    /// Rows that are shown
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) limit: usize,
    /// A query to run instead of showing rows; it says itself which versions it reads
    #[arg(long, value_name = "SQL")]
    pub(crate) query: Option<String>,
    /// How it is written
    #[arg(long, value_parser = for_people_or_programs())]
    pub(crate) format: Option<Format>,
}

#[derive(Debug, Subcommand)]
pub(crate) enum AuditCommand {
    /// Prove that no line of the audit log was removed, altered or moved
    Verify {
        /// How the result is written
        #[arg(long, value_parser = for_people_or_programs())]
        format: Option<Format>,
    },
}

#[derive(Debug, ClapArgs)]
pub(crate) struct Demo {
    /// Keep the warehouse in this folder, which must not exist
    #[arg(long, value_name = "DIR")]
    pub(crate) keep: Option<PathBuf>,
}
