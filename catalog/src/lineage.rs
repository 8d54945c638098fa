//! What a snapshot was made from, as its summary says it: the tables that its statement read, each at a snapshot.
//!
//! ```text
//!   icefield.sources = [{"table":"raw.orders","table-uuid":"9c12…","snapshot-id":3051729675574597004}]
//! ```
//!
//! A table is known by its UUID, whatever it is called by now. The audit log has the same, and keeps it when the snapshot
//! has expired.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The key of the summary.
pub const SOURCES: &str = "icefield.sources";
/// Sources that a summary names; a statement that reads more is rare, and a summary is read often.
const SOURCES_MAX: usize = 100;

/// A table that was read.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Source {
    /// What it was called.
    pub table: String,
    /// Which it is.
    pub table_uuid: String,
    /// The snapshot that was read.
    pub snapshot_id: i64,
}

/// The sources that a summary names; none, if it has none that can be read.
pub fn sources(summary: &std::collections::HashMap<String, String>) -> Vec<Source> {
    summary.get(SOURCES).map(|it| decode(it)).unwrap_or_default()
}

/// Sources as a summary has them; `None` if there are none.
pub fn encode(mut sources: Vec<Source>) -> Option<String> {
    sources.sort();
    sources.dedup();
    sources.truncate(SOURCES_MAX);
    if sources.is_empty() {
        return None;
    }
    serde_json::to_string(&sources).ok()
}

/// Adds what a second statement of the same snapshot was made from.
pub fn join(summary: &mut BTreeMap<String, String>, more: &str) {
    let mut all = summary.get(SOURCES).map(|it| decode(it)).unwrap_or_default();
    all.extend(decode(more));
    if let Some(text) = encode(all) {
        summary.insert(SOURCES.to_owned(), text);
    }
}

fn decode(text: &str) -> Vec<Source> {
    serde_json::from_str(text).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_joined_once_each() {
        let source = |table: &str| Source {
            table: table.to_owned(),
            table_uuid: "u".to_owned(),
            snapshot_id: 7,
        };
        let mut summary = BTreeMap::new();
        for names in [vec!["b", "a"], vec!["a", "c"]] {
            let text = encode(names.into_iter().map(source).collect()).unwrap();
            join(&mut summary, &text);
        }
        let summary = summary.into_iter().collect();
        let names: Vec<_> = sources(&summary).into_iter().map(|it| it.table).collect();
        assert_eq!(names, ["a", "b", "c"]);
        assert!(sources(&[(SOURCES.to_owned(), "not JSON".to_owned())].into()).is_empty());
        assert_eq!(encode(Vec::new()), None);
    }
}
