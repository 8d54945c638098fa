//! What is asked of a rewrite.

use std::collections::BTreeMap;
use std::sync::Arc;

use icefield_query::Result;
use icefield_query::rewrite::{Order, Pace};
use icefield_table::Table;

use super::SharedPace;
use crate::invalid;
use crate::options::Options;
use crate::plan::{Group, Sizes};

/// Iceberg's default size of data files.
const TARGET_FILE_BYTES: u64 = 512 << 20;

/// Groups that are sorted side by side at most: each is at work on all cores by itself, and has on each of them a share
/// of the memory that sorts need to merge.
const SORTS_MAX: usize = 2;

/// What is asked of a rewrite.
#[derive(Debug, Clone)]
pub struct Request {
    /// Which files, by a condition on the table's columns: those that may have rows like that.
    pub condition: Option<String>,
    /// The order that rows are brought into.
    pub order: Order,
    /// Whether a policy asks, time and again, and nobody in particular.
    pub is_policy: bool,
    /// When files are worth it, and how large they become.
    pub sizes: Sizes,
    /// The spec that files are written with.
    pub spec_id: i32,
    /// Groups at work side by side, if it is said.
    pub groups_at_once: Option<usize>,
    /// Cores to work on.
    pub cores: usize,
    /// Commits at most, if finished work is to be committed by and by.
    pub max_commits: Option<usize>,
    /// Commits that may fail before the work is given up.
    pub max_failed_commits: usize,
    /// Whether new files count as being as old as what they were read from.
    pub use_starting_sequence_number: bool,
    /// Whether deletes that reach nothing any more go too.
    pub remove_dangling: bool,
    /// Which groups come first.
    pub job_order: JobOrder,
    /// Files at most.
    pub max_files: Option<usize>,
    /// Whether row groups may be copied as they are.
    pub copying: Copying,
    /// Bytes a second at most.
    pub bytes_per_second: Option<u64>,
}

/// Which groups come first.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum JobOrder {
    /// As planned.
    #[default]
    None,
    /// By bytes, or by files, the least first or the most.
    By {
        /// By files, not bytes.
        files: bool,
        /// The most first.
        descending: bool,
    },
}

impl JobOrder {
    pub(super) fn sort(self, groups: &mut [Group]) {
        let Self::By { files, descending } = self else { return };
        groups.sort_by_key(|it| if files { it.files.len() as u64 } else { it.bytes });
        if descending {
            groups.reverse();
        }
    }
}

/// Whether row groups are copied as they are, where rows need no change.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Copying {
    /// Where row groups are large enough to be read well.
    #[default]
    Auto,
    /// Wherever possible.
    Always,
    /// Nowhere.
    Never,
}

impl Request {
    /// Reads what people write.
    ///
    /// # Errors
    ///
    /// A strategy or an option that there is not, or that makes no sense; a column or a spec that the
    /// table does not have.
    pub fn parse(
        table: &Table,
        strategy: Option<&str>,
        sort_order: Option<&str>,
        condition: Option<&str>,
        options: BTreeMap<String, String>,
    ) -> Result<Self> {
        let order = order(table, strategy, sort_order)?;
        let mut options = Options::new("rewrite_data_files", options);
        let target = table.property("write.target-file-size-bytes", TARGET_FILE_BYTES);
        let sizes = Sizes::take(&mut options, target)?;
        let spec_id = options.take("output-spec-id")?;
        let spec_id = spec_id.unwrap_or(table.metadata().default_partition_spec_id());
        if icefield_table::partition::spec(table.metadata(), spec_id).is_err() {
            return Err(invalid(format!("`{}` has no partition spec {spec_id}", table.name())));
        }
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let groups = options.positive("max-concurrent-file-group-rewrites")?;
        let partial = options.take("partial-progress.enabled")?.unwrap_or(false);
        let commits = options.positive("partial-progress.max-commits")?.unwrap_or(10);
        let failed = options.take::<u64>("partial-progress.max-failed-commits")?;
        let job_order: Option<String> = options.take("rewrite-job-order")?;
        let copying: Option<String> = options.take("copy-row-groups")?;
        let count = |it: u64| usize::try_from(it).unwrap_or(usize::MAX);
        let request = Self {
            condition: condition.map(str::to_owned),
            order,
            is_policy: false,
            sizes,
            spec_id,
            groups_at_once: groups.map(count),
            cores,
            max_commits: partial.then_some(count(commits)),
            max_failed_commits: count(failed.unwrap_or(commits)),
            use_starting_sequence_number: options
                .take("use-starting-sequence-number")?
                .unwrap_or(true),
            remove_dangling: options.take("remove-dangling-deletes")?.unwrap_or(false),
            job_order: job_order.as_deref().map_or(Ok(JobOrder::None), parse_job_order)?,
            max_files: options.positive("max-files-to-rewrite")?.map(count),
            copying: copying.as_deref().map_or(Ok(Copying::Auto), parse_copying)?,
            bytes_per_second: options.positive("bytes-per-second")?,
        };
        // Spark's, about its shuffles; here there is nothing that they could mean.
        for name in [
            "compression-factor",
            "shuffle-partitions-per-file",
            "var-length-contribution",
            "max-output-size",
        ] {
            let _: Option<f64> = options.take(name)?;
        }
        options.done()?;
        Ok(request)
    }

    /// Groups at work side by side.
    pub(super) fn groups(&self) -> usize {
        let most = self.groups_at_once.unwrap_or(self.cores.min(5)).max(1);
        if self.sorts() { most.min(SORTS_MAX) } else { most }
    }

    /// Whether rows are brought into an order.
    pub fn sorts(&self) -> bool {
        self.order != Order::None
    }

    /// The pace of a rewrite of `table`.
    pub(super) fn pace(&self, table: &Table) -> SharedPace {
        let summary = table.metadata().current_snapshot().map(|it| it.summary().clone());
        let total = |key: &str| {
            let text = summary.as_ref()?.additional_properties.get(key)?;
            text.parse::<f64>().ok()
        };
        let (bytes, rows) = (total("total-files-size"), total("total-records"));
        let per_row = bytes.zip(rows).map_or(100.0, |(bytes, rows)| bytes / rows.max(1.0));
        let env = table.tables().warehouse().env.clone();
        self.bytes_per_second.map(|it| Arc::new(Pace::new(env, it, per_row)))
    }
}

fn order(table: &Table, strategy: Option<&str>, sort_order: Option<&str>) -> Result<Order> {
    let strategy = strategy.map(str::to_lowercase);
    match (strategy.as_deref(), sort_order) {
        (None | Some("binpack"), None) => Ok(Order::None),
        (Some("binpack"), Some(_)) => {
            Err(invalid("strategy `binpack` has no sort order").with_hint("use strategy `sort`"))
        }
        (None | Some("sort" | "zorder" | "z-order" | "hilbert"), Some(text)) => {
            let parsed = Order::parse(table, text);
            // `zorder` with bare columns means the curve through them.
            match (strategy.as_deref(), parsed) {
                (Some(curve @ ("zorder" | "z-order" | "hilbert")), Ok(Order::Columns(_))) => {
                    let curve = if curve == "hilbert" { "hilbert" } else { "zorder" };
                    Order::parse(table, &format!("{curve}({text})"))
                }
                (_, parsed) => parsed,
            }
        }
        (Some("sort"), None) => Order::of_table(table).ok_or_else(|| {
            let message = match table.metadata().default_sort_order().fields.is_empty() {
                true => format!("`{}` has no sort order, and none is given", table.name()),
                false => format!(
                    "the sort order of `{}` begins with what rows cannot be sorted by here",
                    table.name()
                ),
            };
            invalid(message)
                .with_hint("give sort_order => 'a, b', or ALTER TABLE … WRITE ORDERED BY a, b")
        }),
        (Some(curve @ ("zorder" | "z-order" | "hilbert")), None) => {
            Err(invalid(format!("strategy `{curve}` needs the columns of the curve"))
                .with_hint("give sort_order => 'zorder(a, b)'"))
        }
        (Some(other), _) => Err(invalid(format!("there is no strategy `{other}`"))
            .with_hint("there are binpack, sort, zorder and hilbert")),
    }
}

pub(crate) fn parse_job_order(text: &str) -> Result<JobOrder> {
    Ok(match text.to_lowercase().replace('_', "-").as_str() {
        "none" => JobOrder::None,
        "bytes-asc" => JobOrder::By { files: false, descending: false },
        "bytes-desc" => JobOrder::By { files: false, descending: true },
        "files-asc" => JobOrder::By { files: true, descending: false },
        "files-desc" => JobOrder::By { files: true, descending: true },
        _ => {
            return Err(invalid(format!("option `rewrite-job-order` cannot be `{text}`"))
                .with_hint("it is none, bytes-asc, bytes-desc, files-asc or files-desc"));
        }
    })
}

fn parse_copying(text: &str) -> Result<Copying> {
    match text.to_lowercase().as_str() {
        "auto" => Ok(Copying::Auto),
        "always" => Ok(Copying::Always),
        "never" => Ok(Copying::Never),
        _ => Err(invalid(format!("option `copy-row-groups` cannot be `{text}`"))
            .with_hint("it is auto, always or never")),
    }
}
