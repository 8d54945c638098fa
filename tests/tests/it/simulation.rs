//! The commit path on one thread, from a seed, with storage and catalog that fail.
//!
//! Writers append; some appends share a key. Whatever fails: what was acknowledged is there once,
//! what was refused is there at most once, each key landed once, and every snapshot of the history
//! holds exactly the rows of its parent and its own. A failing seed is printed; run it alone with
//! `ICEFIELD_SEED=<seed>`.

use std::collections::{BTreeMap, HashMap};

use icefield_catalog::Env;
use icefield_table::commit::{Change, change};
use icefield_table::manifest::DataFile;
use icefield_table::{Tables, snapshot};
use icefield_tests::simulation::{Unreliable, each_seed, in_simulated_time};
use icefield_tests::{create_raw_t, raw_t};

const SEEDS: u64 = 2000;
const WRITERS: u64 = 4;
const APPENDS: u64 = 4;

#[test]
fn no_seed_loses_or_doubles_a_row() {
    each_seed(SEEDS, |seed| drop(simulate(seed)));
}

#[test]
fn the_same_seed_takes_the_same_way() {
    assert_eq!(simulate(11), simulate(11));
}

/// Runs a seed and gives what happened: each writer's answers, and the history's lengths.
fn simulate(seed: u64) -> (Vec<(u64, bool)>, usize) {
    in_simulated_time(run(seed))
}

async fn run(seed: u64) -> (Vec<(u64, bool)>, usize) {
    let world = Unreliable::new(seed);
    let version = if seed.is_multiple_of(2) { "2" } else { "3" };
    // Few manifests before they are merged, so that merging is raced too.
    let properties = [("format-version", version), ("commit.manifest.min-count-to-merge", "3")];
    create_raw_t(&world.tables, &properties).await;

    world.upset(200, 30);
    let mut writers = tokio::task::JoinSet::new();
    for writer in 0..WRITERS {
        // Half of the writers are another process.
        let tables = if writer % 2 == 0 { world.tables.clone() } else { world.other_process() };
        writers.spawn(write(tables, world.env.clone(), writer));
    }
    let mut answers: Vec<(u64, bool)> = writers.join_all().await.into_iter().flatten().collect();
    answers.sort_unstable();
    world.calm();
    let history = audit(&world.other_process(), &answers).await;
    (answers, history)
}

/// Appends files of one row each; the file's path tells which append it was.
async fn write(tables: Tables, env: Env, writer: u64) -> Vec<(u64, bool)> {
    let mut answers = Vec::new();
    for number in 0..APPENDS {
        let id = writer * APPENDS + number;
        let keys = match number {
            // Two writers have the same key.
            0 => vec![format!("shared-{}", writer / 2)],
            _ => vec![format!("own-{id}")],
        };
        let file = DataFile::parquet(format!("memory:///w/cleaned/t/data/{id}.parquet"), 0, 1, 100);
        let new = Change { files: vec![file], keys, ..Change::default() };
        let Ok(table) = tables.load(&raw_t()).await else {
            answers.push((id, false));
            continue;
        };
        let done = change(&table, new).await;
        answers.push((id, done.is_ok_and(|it| !it.was_there)));
        env.sleep(env.jitter(std::time::Duration::from_millis(30))).await;
    }
    answers
}

/// Checks every snapshot of the history; gives its length.
async fn audit(tables: &Tables, answers: &[(u64, bool)]) -> usize {
    let table = tables.load(&raw_t()).await.unwrap();
    let metadata = table.metadata();
    let line = snapshot::ancestors(metadata, metadata.current_snapshot_id());
    assert_eq!(line.len(), metadata.snapshots().len(), "every snapshot is behind the head");
    let mut contents = Vec::new();
    for snapshot in line.iter().rev() {
        let mut files: HashMap<String, i64> = HashMap::new();
        let mut row_ids = Vec::new();
        let lines = table.manifest_list(snapshot.manifest_list()).await.unwrap();
        for line in lines.iter() {
            let manifest = table.manifest(line).await.unwrap();
            for index in (0..manifest.len()).filter(|it| manifest.is_live(*it)) {
                let path = manifest.file_path(index).unwrap().to_owned();
                let number = manifest.sequence_number(index);
                assert!(number >= line.min_sequence_number && number <= snapshot.sequence_number());
                assert!(files.insert(path, number).is_none(), "t44: a path is in a snapshot twice");
                row_ids.extend(manifest.first_row_id(index, line.first_row_id));
            }
        }
        let total = &snapshot.summary().additional_properties["total-records"];
        assert_eq!(total, &files.len().to_string(), "t13: totals add up");
        let distinct: std::collections::HashSet<_> = row_ids.iter().collect();
        assert_eq!(distinct.len(), row_ids.len(), "t55: no row id is given twice");
        contents.push(files);
    }
    for pair in contents.windows(2) {
        let kept = pair[0].iter().all(|(path, number)| pair[1].get(path) == Some(number));
        assert!(kept && pair[1].len() == pair[0].len() + 1, "t23: files keep their numbers");
    }
    let last = contents.pop().unwrap_or_default();
    let is_there = |id: u64| last.contains_key(&format!("memory:///w/cleaned/t/data/{id}.parquet"));
    for (id, acknowledged) in answers {
        assert!(!acknowledged || is_there(*id), "append {id} was acknowledged and is lost");
    }
    let mut shared: BTreeMap<u64, usize> = BTreeMap::new();
    for writer in 0..WRITERS {
        *shared.entry(writer / 2).or_default() += usize::from(is_there(writer * APPENDS));
    }
    assert!(shared.values().all(|it| *it <= 1), "a key landed twice: {shared:?}");
    line.len()
}
