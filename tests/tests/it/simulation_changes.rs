//! Changes of all kinds on one thread, from a seed, with storage and catalog that fail.
//!
//! Writers append, remove, delete rows by position, copy and rewrite files, set properties, and one
//! of them may upgrade the table. Each change notes its number in its snapshot's summary; afterwards
//! the history is replayed into a model, change by change, and every snapshot has to equal it:
//!
//! ```text
//!   asked ─▶ acknowledged   in the history once
//!         ─▶ refused        not in the history
//!         ─▶ unknown        in the history at most once
//!   snapshot n  =  snapshot n-1 with the change that its summary names, and nothing else
//! ```
//!
//! A failing seed is printed; run it alone with `ICEFIELD_SEED=<seed>`.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use icefield_catalog::Env;
use icefield_catalog::spec::{
    DataFileFormat, ManifestContentType, ManifestStatus, Operation, SnapshotRef,
};
use icefield_table::commit::{self, Change, Check, DeletedRows, change};
use icefield_table::deletes::{one_path, positions_of};
use icefield_table::manifest::DataFile;
use icefield_table::{At, Result, Table, Tables, evolve, partition, scan, snapshot};
use icefield_tests::simulation::{Unreliable, each_seed, in_simulated_time};
use icefield_tests::{create_raw_t, raw_t};
use roaring::RoaringTreemap;

const SEEDS: u64 = 250;
const WRITERS: u64 = 4;
const CHANGES: u64 = 6;
/// Rows of an appended file: few, so that files lose their last one.
const ROWS: u64 = 6;
/// The key in a snapshot's summary that tells which change made it.
const MARK: &str = "test.change";

#[test]
fn no_seed_loses_or_halves_a_change() {
    each_seed(SEEDS, |seed| drop(simulate(seed)));
}

#[test]
fn the_same_seed_makes_the_same_history() {
    assert_eq!(simulate(5), simulate(5));
}

/// What a writer wanted, in the words of the model.
#[derive(Debug, Clone, Default)]
struct Asked {
    /// The snapshot it was worked out from.
    base: Option<i64>,
    added: Option<(String, u64)>,
    /// Files to go, each with the rows that were seen to be deleted of it.
    removed: BTreeMap<String, RoaringTreemap>,
    deleted: BTreeMap<String, RoaringTreemap>,
    rewrites: bool,
    no_new_rows: bool,
    unchanged: bool,
    property: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Told {
    Acknowledged,
    Refused,
    Unknown,
}

type Asks = BTreeMap<u64, (Asked, Told)>;

/// Runs a seed and gives what each writer was told, and how many snapshots there are.
fn simulate(seed: u64) -> (Vec<(u64, Told)>, usize) {
    in_simulated_time(run(seed))
}

async fn run(seed: u64) -> (Vec<(u64, Told)>, usize) {
    let world = Unreliable::new(seed);
    let version = if seed.is_multiple_of(3) { "3" } else { "2" };
    let properties = [("format-version", version), ("commit.manifest.min-count-to-merge", "3")];
    create_raw_t(&world.tables, &properties).await;

    world.upset(150, 20);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        // Half of the writers are another process.
        let tables = if writer % 2 == 0 { world.tables.clone() } else { world.other_process() };
        let upgrades = version == "2" && seed % 3 == 1 && writer == 1;
        writers.spawn(write(tables, world.env.clone(), writer, upgrades));
    }
    let asks: Asks = writers.join_all().await.into_iter().flatten().collect();
    world.calm();
    let history = audit(&world.other_process(), &asks).await;
    (asks.into_iter().map(|(number, (_, told))| (number, told)).collect(), history)
}

async fn write(tables: Tables, env: Env, writer: u64, upgrades: bool) -> Asks {
    let mut asks = Asks::new();
    for at in 0..CHANGES {
        let number = writer * CHANGES + at;
        if upgrades && at == CHANGES / 2 {
            upgrade(&tables).await;
        }
        // What cannot be read is not asked for.
        if let Ok(asked) = ask(&tables, &env, number).await {
            asks.insert(number, asked);
        }
        env.sleep(env.jitter(Duration::from_millis(30))).await;
    }
    asks
}

/// Makes a table of format version 2 one of version 3; whether it succeeds does not matter.
async fn upgrade(tables: &Tables) {
    if let Ok(table) = tables.load(&raw_t()).await {
        let set = || HashMap::from([("format-version".to_owned(), "3".to_owned())]);
        let _ = commit::evolve(&table, |_| evolve::properties(set(), Vec::new())).await;
    }
}

fn told<T>(done: &Result<T>) -> Told {
    match done {
        Ok(_) => Told::Acknowledged,
        Err(error) if error.message().contains("unknown") => Told::Unknown,
        Err(_) => Told::Refused,
    }
}

/// Works a change out from the table as it is, and makes it.
async fn ask(tables: &Tables, env: &Env, number: u64) -> Result<(Asked, Told)> {
    let table = tables.load(&raw_t()).await?;
    let live: Vec<Live> = live(&table, &At::Now).await?.into_values().collect();
    let dice = |sides: u64| env.random() % sides;
    let kind = if live.is_empty() { 0 } else { dice(9) };
    let mut asked = Asked { base: table.metadata().current_snapshot_id(), ..Asked::default() };
    if kind == 8 {
        asked.property = true;
        let set = || HashMap::from([(format!("{MARK}.{number}"), "1".to_owned())]);
        let done = commit::evolve(&table, |_| evolve::properties(set(), Vec::new())).await;
        return Ok((asked, told(&done)));
    }
    // One or two files of those there are.
    let first = dice(live.len().max(1) as u64) as usize;
    let chosen: Vec<&Live> = live.iter().skip(first).take(1 + dice(2) as usize).collect();
    let mut new = Change::default();
    let mut rows = ROWS;
    match kind {
        0 | 1 => {}
        // Whole files go, perhaps with something in their place.
        2 | 3 => {
            rows = if kind == 2 { 0 } else { 1 + dice(ROWS) };
            remove(&chosen, &mut asked, &mut new);
        }
        // The rows stay and their files change.
        4 => {
            asked.rewrites = true;
            rows = remove(&chosen, &mut asked, &mut new);
        }
        // Rows go, perhaps with others in their place.
        _ => {
            rows = if kind == 5 { 1 + dice(ROWS) } else { 0 };
            for it in chosen {
                let here: Vec<u64> =
                    (0..it.file.record_count).filter(|row| !it.deleted.contains(*row)).collect();
                let some = 1 + dice(here.len() as u64) as usize;
                let positions: RoaringTreemap =
                    here.iter().cycle().skip(dice(ROWS) as usize).take(some).copied().collect();
                asked.deleted.insert(it.file.path.clone(), positions.clone());
                new.deleted.push(DeletedRows {
                    file: it.file.clone(),
                    sequence_number: it.sequence_number,
                    positions,
                });
            }
        }
    }
    if rows > 0 {
        let path = format!("memory:///w/cleaned/t/data/{number}.parquet");
        new.files.push(DataFile::parquet(path.clone(), 0, rows, 100 + number));
        asked.added = Some((path, rows));
    }
    if kind > 1 {
        asked.no_new_rows = dice(4) == 0;
        asked.unchanged = dice(8) == 0;
        new.checks.push(Check {
            from: asked.base,
            no_new_rows: asked.no_new_rows,
            unchanged: asked.unchanged,
            ..Check::default()
        });
    }
    new.rewrites = asked.rewrites;
    new.summary.insert(MARK.to_owned(), number.to_string());
    let done = change(&table, new).await;
    Ok((asked, told(&done)))
}

/// Has files removed; the rows that were left in them.
fn remove(chosen: &[&Live], asked: &mut Asked, new: &mut Change) -> u64 {
    for it in chosen {
        asked.removed.insert(it.file.path.clone(), it.deleted.clone());
        new.removed.push(it.file.clone());
    }
    chosen.iter().map(|it| it.file.record_count - it.deleted.len()).sum()
}

/// A data file of a snapshot.
struct Live {
    file: DataFile,
    sequence_number: i64,
    first_row_id: Option<i64>,
    deleted: RoaringTreemap,
}

/// The data files of a version, as a scan sees them.
async fn live(table: &Table, at: &At) -> Result<BTreeMap<String, Live>> {
    let metadata = table.metadata();
    let version = snapshot::resolve(metadata, at)?;
    let mut all = BTreeMap::new();
    for task in scan::plan(table, &version, None).await?.tasks {
        let (manifest, index) = task.entry();
        let spec = partition::spec(metadata, manifest.spec_id)?;
        let types = partition::field_types(metadata, spec)?;
        let file = manifest.entry(index, &types)?.file;
        let deleted = positions_of(table, &file.path, &task.deletes).await?;
        let (sequence_number, first_row_id) = (task.sequence_number(), task.first_row_id());
        let path = file.path.clone();
        let twice = all.insert(path, Live { file, sequence_number, first_row_id, deleted });
        assert!(twice.is_none(), "t44: a path is in a snapshot twice");
    }
    Ok(all)
}

/// A data file as the model has it.
#[derive(Debug, Clone, PartialEq)]
struct Modelled {
    rows: u64,
    deleted: RoaringTreemap,
}

type Model = BTreeMap<String, Modelled>;

/// Replays the history; gives its length.
async fn audit(tables: &Tables, asks: &Asks) -> usize {
    let table = tables.load(&raw_t()).await.unwrap();
    let metadata = table.metadata();
    let mut line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    line.reverse();
    assert_eq!(line.len(), metadata.snapshots().len(), "every snapshot is behind the head");

    let mut model = Model::new();
    let mut landed = BTreeSet::new();
    let mut numbers: BTreeMap<String, (i64, Option<i64>)> = BTreeMap::new();
    let mut next_row_id = None;
    for (place, snapshot) in line.iter().enumerate() {
        let mark = snapshot.summary().additional_properties[MARK].parse().unwrap();
        assert!(landed.insert(mark), "change {mark} landed twice");
        let asked = &asks[&mark].0;
        checks_hold(&line[..place], asked);
        apply(&mut model, asked);
        let found = live(&table, &At::Id(snapshot.snapshot_id())).await.unwrap();
        let seen: Model = found
            .iter()
            .map(|(path, it)| {
                let (rows, deleted) = (it.file.record_count, it.deleted.clone());
                (path.clone(), Modelled { rows, deleted })
            })
            .collect();
        assert_eq!(seen, model, "after change {mark}: {asked:?}");
        sequence_numbers(snapshot, place, &found, &numbers, asked);
        row_ids(snapshot, &found, &numbers, &mut next_row_id);
        numbers = found
            .into_iter()
            .map(|(path, it)| (path, (it.sequence_number, it.first_row_id)))
            .collect();
        manifests(&table, snapshot, &model).await;
    }
    if let Some(next) = next_row_id {
        assert_eq!(metadata.next_row_id(), next, "t54: the table goes on from its last snapshot");
    }
    for (number, (asked, told)) in asks {
        let is_there = match asked.property {
            true => metadata.properties().contains_key(&format!("{MARK}.{number}")),
            false => landed.contains(number),
        };
        match told {
            Told::Acknowledged => assert!(is_there, "change {number} was acknowledged and is lost"),
            Told::Refused => assert!(!is_there, "change {number} was refused and is there"),
            Told::Unknown => {}
        }
    }
    line.len()
}

fn apply(model: &mut Model, asked: &Asked) {
    for (path, seen) in &asked.removed {
        let gone = model.remove(path);
        let gone = gone.unwrap_or_else(|| panic!("{path} was removed twice"));
        assert_eq!(gone.deleted, *seen, "rows of {path} were deleted, and what was seen is old");
    }
    for (path, positions) in &asked.deleted {
        let file = model.get_mut(path);
        let file = file.unwrap_or_else(|| panic!("rows of {path} were deleted, which is gone"));
        assert!(file.deleted.is_disjoint(positions), "a row of {path} was deleted twice");
        file.deleted |= positions;
        if file.deleted.len() == file.rows {
            model.remove(path);
        }
    }
    if let Some((path, rows)) = &asked.added {
        let file = Modelled { rows: *rows, deleted: RoaringTreemap::new() };
        assert!(model.insert(path.clone(), file).is_none());
    }
}

/// What a change relied on was still so when it landed on `before`.
fn checks_hold(before: &[SnapshotRef], asked: &Asked) {
    let read = before.iter().position(|it| Some(it.snapshot_id()) == asked.base);
    let since = &before[read.map_or(0, |it| it + 1)..];
    for snapshot in since.iter().filter(|it| it.summary().operation != Operation::Replace) {
        assert!(!asked.unchanged, "something changed since");
        let adds = snapshot.summary().additional_properties.contains_key("added-data-files");
        assert!(!(asked.no_new_rows && adds), "rows were added since");
    }
}

fn sequence_numbers(
    snapshot: &SnapshotRef,
    place: usize,
    found: &BTreeMap<String, Live>,
    before: &BTreeMap<String, (i64, Option<i64>)>,
    asked: &Asked,
) {
    assert_eq!(snapshot.sequence_number(), place as i64 + 1, "each snapshot has the next number");
    for (path, it) in found {
        match before.get(path) {
            Some((number, _)) => assert_eq!(it.sequence_number, *number, "t23: {path}"),
            // Rewritten files may be as old as the rows in them (trap T-24).
            None if asked.rewrites => assert!(it.sequence_number <= snapshot.sequence_number()),
            None => assert_eq!(it.sequence_number, snapshot.sequence_number(), "t26: {path}"),
        }
    }
}

fn row_ids(
    snapshot: &SnapshotRef,
    found: &BTreeMap<String, Live>,
    before: &BTreeMap<String, (i64, Option<i64>)>,
    next: &mut Option<u64>,
) {
    let Some((first, added)) = snapshot.row_range() else {
        assert!(found.values().all(|it| it.first_row_id.is_none()), "t58: ids before the upgrade");
        return;
    };
    assert_eq!(first, next.unwrap_or(0), "t54: a snapshot begins where the one before ended");
    let end = first + added;
    *next = Some(end);
    let mut ranges = Vec::new();
    for (path, it) in found {
        let id = it.first_row_id.unwrap_or_else(|| panic!("t55: {path} has no row ids"));
        if let Some((_, Some(known))) = before.get(path) {
            assert_eq!(id, *known, "t57: {path} keeps its row ids");
        }
        ranges.push((id as u64, id as u64 + it.file.record_count));
    }
    ranges.sort_unstable();
    assert!(ranges.windows(2).all(|it| it[0].1 <= it[1].0), "t56: row ids overlap: {ranges:?}");
    assert!(ranges.last().is_none_or(|it| it.1 <= end), "t54: row ids beyond the snapshot's");
}

/// What manifests and their list say, and what the summary makes of it.
async fn manifests(table: &Table, snapshot: &SnapshotRef, model: &Model) {
    let metadata = table.metadata();
    let is_v3 = snapshot.first_row_id().is_some();
    let mut totals = [0_u64; 5];
    let mut vectors = HashSet::new();
    for line in table.manifest_list(snapshot.manifest_list()).await.unwrap().iter() {
        let manifest = table.manifest(line).await.unwrap();
        let types = partition::spec(metadata, line.spec_id).unwrap();
        let types = partition::field_types(metadata, types).unwrap();
        let is_own = line.added_snapshot_id == snapshot.snapshot_id();
        assert!(is_own || line.may_have_live_files(), "t28: a manifest of nothing is carried on");
        let mut counts = [0, 0, 0];
        let mut least: Option<i64> = None;
        for index in 0..manifest.len() {
            let status = manifest.status(index);
            let by_writer = manifest.snapshot_id(index) == Some(line.added_snapshot_id);
            assert_eq!(by_writer, status != ManifestStatus::Existing, "t113: {status:?}");
            counts[match status {
                ManifestStatus::Added => 0,
                ManifestStatus::Existing => 1,
                ManifestStatus::Deleted => 2,
            }] += 1;
            if !manifest.is_live(index) {
                continue;
            }
            let number = manifest.sequence_number(index);
            least = Some(least.map_or(number, |it| it.min(number)));
            let entry = manifest.entry(index, &types).unwrap();
            let file = &entry.file;
            totals[4] += file.content_size_bytes.map_or(file.file_size_bytes, |it| it as u64);
            if line.content == ManifestContentType::Data {
                totals[0] += 1;
                totals[1] += file.record_count;
                continue;
            }
            totals[2] += 1;
            totals[3] += file.record_count;
            let path = one_path(&entry).unwrap();
            assert!(model.contains_key(&path), "t37: deletes of {path}, which is gone");
            let is_vector = file.format == DataFileFormat::Puffin;
            assert!(!is_vector || vectors.insert(path.clone()), "t34: two vectors of {path}");
            assert!(is_vector == is_v3 || status == ManifestStatus::Existing || !is_own, "t41");
        }
        assert_eq!(line.files, counts.map(Some), "counts of {}", line.path);
        if let Some(least) = least {
            assert_eq!(line.min_sequence_number, least, "t25: {}", line.path);
        }
    }
    let summary = &snapshot.summary().additional_properties;
    for (key, total) in [
        "total-data-files",
        "total-records",
        "total-delete-files",
        "total-position-deletes",
        "total-files-size",
    ]
    .iter()
    .zip(totals)
    {
        assert_eq!(summary[*key], total.to_string(), "t13: {key}");
    }
}
