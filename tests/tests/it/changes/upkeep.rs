//! Upkeep among the statements of a case: whatever it does to files, rows stay as they are, and so
//! do their ids, and every snapshot that is kept reads as it did.

use std::collections::{BTreeMap, BTreeSet};

use arrow::array::{Array, AsArray, RecordBatch};
use arrow::datatypes::Int64Type;
use futures::TryStreamExt;
use icefield_catalog::spec::FormatVersion;
use icefield_query::{Answer, Session};
use icefield_table::{Table, Tables, snapshot};
use icefield_tests::{equality, raw_t, reachable, settings};

use super::{Case, Condition, Dice};

/// Later than anything that a test makes: files in memory have the machine's time, snapshots the
/// seed's.
const LATER_MS: u64 = 4_102_444_800_000;

/// A session that can call upkeep.
pub(super) fn session(tables: Tables) -> Session {
    let session = Session::new(tables, settings()).unwrap();
    session.with_procedures(icefield_compaction::procedures())
}

/// A text as SQL has it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// A condition on the table's own columns.
fn condition(dice: &mut Dice) -> String {
    loop {
        let condition = Condition::random(dice, 1, None);
        if !format!("{condition:?}").contains("IdInOther") {
            return quoted(&condition.sql());
        }
    }
}

fn rewrite_data_files(dice: &mut Dice, spec_ids: &[i32]) -> String {
    let strategy = dice.one_of(&[
        "",
        ", strategy => 'binpack'",
        ", strategy => 'sort', sort_order => 'k DESC NULLS LAST, id'",
        ", sort_order => 's, d'",
        ", strategy => 'zorder', sort_order => 'id, k'",
        ", sort_order => 'zorder(day, d)'",
        ", sort_order => 'hilbert(id, day, k)'",
    ]);
    let mut options: Vec<(&str, String)> = Vec::new();
    let mut option = |dice: &mut Dice, name: &'static str, values: &[&str]| {
        if dice.roll(3) == 0 {
            options.push((name, dice.one_of(values).to_owned()));
        }
    };
    option(dice, "copy-row-groups", &["always", "never", "auto"]);
    option(dice, "target-file-size-bytes", &["900", "2500", "1000000"]);
    option(dice, "max-file-group-size-bytes", &["3000", "9000"]);
    option(dice, "delete-file-threshold", &["1", "2"]);
    option(dice, "delete-ratio-threshold", &["0.05", "1"]);
    option(dice, "partial-progress.enabled", &["true"]);
    option(dice, "partial-progress.max-commits", &["1", "3"]);
    option(dice, "max-concurrent-file-group-rewrites", &["1", "4"]);
    option(dice, "use-starting-sequence-number", &["false", "true"]);
    option(dice, "remove-dangling-deletes", &["true"]);
    option(dice, "rewrite-job-order", &["bytes-asc", "bytes-desc", "files-asc", "files-desc"]);
    option(dice, "max-files-to-rewrite", &["2", "5"]);
    option(dice, "rewrite-all", &["true", "true", "false"]);
    options.push(("min-input-files", (1 + dice.roll(3)).to_string()));
    if dice.roll(3) == 0 {
        options.push(("output-spec-id", dice.one_of(spec_ids).to_string()));
    }
    let options: Vec<_> =
        options.iter().map(|(name, value)| format!("'{name}', '{value}'")).collect();
    let only = match dice.roll(4) {
        0 => format!(", where => {}", condition(dice)),
        _ => String::new(),
    };
    format!(
        "CALL system.rewrite_data_files(table => 'cleaned.t'{strategy}, options => map({}){only})",
        options.join(", ")
    )
}

fn other_procedure(dice: &mut Dice, spec_ids: &[i32]) -> String {
    match dice.roll(8) {
        0 => "CALL system.rewrite_manifests('cleaned.t')".to_owned(),
        1 => {
            let spec_id = dice.one_of(spec_ids);
            format!("CALL system.rewrite_manifests(table => 'cleaned.t', spec_id => {spec_id})")
        }
        2 => {
            let only = match dice.roll(2) {
                0 => format!(", where => {}", condition(dice)),
                _ => String::new(),
            };
            let all = dice.one_of(&["'rewrite-all', 'true'", "'min-input-files', '1'"]);
            format!("CALL system.rewrite_position_delete_files('cleaned.t', map({all}){only})")
        }
        3 => "CALL system.remove_dangling_deletes('cleaned.t')".to_owned(),
        4 | 5 => {
            let last = 1 + dice.roll(4);
            let clean = dice.one_of(&["", ", clean_expired_metadata => true"]);
            format!(
                "CALL system.expire_snapshots(table => 'cleaned.t', older_than => {LATER_MS}, \
                 retain_last => {last}{clean})"
            )
        }
        _ => format!(
            "CALL lake.system.remove_orphan_files('cleaned.t', {LATER_MS}, allow_recent => true)"
        ),
    }
}

/// Ids, row ids and the numbers of the commits that changed the rows last.
type Lineage = BTreeMap<i64, (Option<i64>, Option<i64>)>;

impl Case {
    /// Now and then: a change of the layout, a tag, or some upkeep.
    pub(super) async fn upkeep(&mut self, dice: &mut Dice) {
        match dice.roll(10) {
            0 => self.layout(dice).await,
            1 => self.tag(dice).await,
            2..=4 => self.call(dice).await,
            5 => self.equality_deletes(dice).await,
            _ => {}
        }
    }

    async fn table(&self) -> Table {
        self.session.table("cleaned.t").await.unwrap()
    }

    /// Partitions or sorts new files otherwise.
    async fn layout(&mut self, dice: &mut Dice) {
        let table = self.table().await;
        let fields = table.metadata().default_partition_spec().fields().to_vec();
        let sql = match fields.first() {
            _ if dice.roll(3) == 0 => {
                let orders = ["ORDERED BY id", "ORDERED BY k DESC, s", "UNORDERED"];
                format!("WRITE {}", dice.one_of(&orders))
            }
            Some(field) if dice.roll(2) == 0 => format!("DROP PARTITION FIELD {}", field.name),
            _ => format!(
                "ADD PARTITION FIELD {}",
                dice.one_of(&["bucket(2, k)", "truncate(10, id)", "s", "day(day)"])
            ),
        };
        // What is there already, or would be named alike, is refused; that is tested elsewhere.
        let sql = format!("ALTER TABLE cleaned.t {sql}");
        if self.session.run(&sql).await.is_ok() {
            self.log.push(sql);
        }
    }

    /// Another writer deletes some ids, whichever files they are in.
    async fn equality_deletes(&mut self, dice: &mut Dice) {
        let table = self.table().await;
        let mut specs = table.metadata().partition_specs_iter();
        // In a partition, they would reach only that.
        let Some(spec) = specs.find(|it| it.fields().is_empty()) else { return };
        if table.metadata().current_snapshot_id().is_none() {
            return;
        }
        let ids: BTreeSet<i64> = (0..=dice.roll(6)).map(|_| dice.roll(120) as i64).collect();
        let values: Vec<_> = ids.iter().map(|it| format!("({it})")).collect();
        let keys = format!("cleaned.keys{}", self.log.len());
        self.run(&format!(
            "CREATE TABLE {keys} AS SELECT CAST(id AS BIGINT) AS id FROM (VALUES {}) v(id)",
            values.join(", ")
        ))
        .await;
        let mut file = equality::keys(&self.session.table(&keys).await.unwrap()).await;
        // Among the table's own files, as its writer would have put it.
        let storage = &table.tables().warehouse().storage;
        let bytes = storage.read(&file.path).await.unwrap();
        file.path = format!("{}/data/{}.parquet", table.metadata().location(), self.log.len());
        storage.write(&file.path, bytes).await.unwrap();
        let (spec_id, ident) = (spec.spec_id(), raw_t());
        let id = equality::commit(table.tables(), &ident, file, spec_id, Vec::new()).await;
        self.log.push("-- equality deletes of these".to_owned());
        self.rows.retain(|id, _| !ids.contains(id));
        let found = self.read("cleaned.t", self.extra.as_ref()).await;
        if format!("{found:?}") != format!("{:?}", self.rows) {
            self.fail(&format!("equality deletes left\n{found:?}\nand not\n{:?}", self.rows));
        }
        self.past.push((id, self.rows.clone(), self.extra.clone()));
    }

    async fn tag(&mut self, dice: &mut Dice) {
        if self.table().await.metadata().current_snapshot_id().is_none() {
            return;
        }
        let name = dice.one_of(&["a", "b", "c"]);
        self.run(&match dice.roll(3) {
            0 => format!("ALTER TABLE cleaned.t DROP TAG IF EXISTS {name}"),
            _ => format!("ALTER TABLE cleaned.t CREATE OR REPLACE TAG {name}"),
        })
        .await;
    }

    async fn call(&mut self, dice: &mut Dice) {
        let before = self.table().await;
        let specs = before.metadata().partition_specs_iter();
        let mut spec_ids: Vec<i32> = specs.map(|it| it.spec_id()).collect();
        spec_ids.sort_unstable();
        let sql = match dice.roll(2) {
            0 => rewrite_data_files(dice, &spec_ids),
            _ => other_procedure(dice, &spec_ids),
        };
        let lineage = self.lineage(&before).await;
        self.log.push(sql.clone());
        let answer = match self.session.run(&sql).await {
            Ok(Answer::Rows(rows)) => rows.stream.try_collect::<Vec<RecordBatch>>().await.unwrap(),
            Ok(Answer::Done(_)) => self.fail("a procedure answers with a table"),
            Err(error) => self.fail(&format!("{error}")),
        };
        self.log.push(format!("-- {answer:?}"));
        let after = self.table().await;
        let found = self.read("cleaned.t", self.extra.as_ref()).await;
        if format!("{found:?}") != format!("{:?}", self.rows) {
            self.fail(&format!("upkeep made the rows\n{found:?}\nof\n{:?}", self.rows));
        }
        if self.lineage(&after).await != lineage {
            let now = self.lineage(&after).await;
            self.fail(&format!("upkeep made the lineage\n{now:?}\nof\n{lineage:?}"));
        }
        self.kept(&before, &after, sql.contains("expire_snapshots"));
        if sql.contains("remove_orphan_files") {
            let what = format!("seed {}", self.seed);
            reachable::assert_exactly_reachable(&after, &what).await;
        }
        self.replaced(&before, &after);
        self.past.retain(|(id, ..)| after.metadata().snapshot_by_id(*id).is_some());
        if let Some(id) = after.metadata().current_snapshot_id()
            && before.metadata().current_snapshot_id() != Some(id)
        {
            self.past.push((id, self.rows.clone(), self.extra.clone()));
        }
        // What changes no file of theirs is looked at in the end.
        if !(sql.contains("expire_snapshots") || sql.contains("remove_orphan_files")) {
            return;
        }
        for (id, rows, extra) in &self.past {
            let found =
                self.read(&format!("cleaned.t FOR VERSION AS OF {id}"), extra.as_ref()).await;
            if format!("{found:?}") != format!("{rows:?}") {
                self.fail(&format!("snapshot {id} was\n{rows:?}\nand is\n{found:?}"));
            }
        }
    }

    /// Snapshots go only by expiry, and never those with a name.
    fn kept(&self, before: &Table, after: &Table, expires: bool) {
        for (name, reference) in snapshot::refs(before.metadata()).unwrap() {
            if after.metadata().snapshot_by_id(reference.snapshot_id).is_none() {
                self.fail(&format!("the snapshot of `{name}` is gone"));
            }
        }
        let gone = |it: &&icefield_catalog::spec::SnapshotRef| {
            after.metadata().snapshot_by_id(it.snapshot_id()).is_none()
        };
        if !expires && before.metadata().snapshots().any(|it| gone(&it)) {
            self.fail("a snapshot is gone that nobody expired");
        }
        let entries = after.metadata().history().iter();
        let mut lost =
            entries.filter(|it| after.metadata().snapshot_by_id(it.snapshot_id).is_none());
        if let Some(lost) = lost.next() {
            self.fail(&format!("t62: the log names {}, which is gone", lost.snapshot_id));
        }
    }

    /// Snapshots of upkeep are replacements, and add no more rows than they take (trap T-14).
    fn replaced(&self, before: &Table, after: &Table) {
        for made in after.metadata().snapshots() {
            if before.metadata().snapshot_by_id(made.snapshot_id()).is_some() {
                continue;
            }
            let summary = made.summary();
            let number = |key: &str| {
                let text = summary.additional_properties.get(key);
                text.map_or(0, |it| it.parse::<u64>().unwrap())
            };
            let is_replace = summary.operation == icefield_catalog::spec::Operation::Replace;
            if !is_replace || number("added-records") > number("deleted-records") {
                self.fail(&format!("t14: upkeep made {summary:?}"));
            }
        }
    }

    async fn lineage(&self, table: &Table) -> Lineage {
        let mut found = Lineage::new();
        if table.metadata().format_version() < FormatVersion::V3 {
            return found;
        }
        let sql = "SELECT id, _row_id, _last_updated_sequence_number FROM cleaned.t";
        let Answer::Rows(rows) = self.session.run(sql).await.unwrap() else { panic!("no rows") };
        for batch in rows.stream.try_collect::<Vec<RecordBatch>>().await.unwrap() {
            let column = |place: usize| batch.column(place).as_primitive::<Int64Type>().clone();
            let (ids, row_ids, numbers) = (column(0), column(1), column(2));
            for row in 0..batch.num_rows() {
                let row_id = row_ids.is_valid(row).then(|| row_ids.value(row));
                let number = numbers.is_valid(row).then(|| numbers.value(row));
                found.insert(ids.value(row), (row_id, number));
            }
        }
        found
    }
}
