//! Who did what: lines that are only ever added, each of which vouches for the one before.
//!
//! ```text
//!   chain raw.flights     1 create ◀─hash─ 2 commit ◀─hash─ 3 commit        head: 3, hash of 3
//!   chain @ada            1 authenticate ◀─hash─ 2 load                     head: 2, hash of 2
//! ```
//!
//! The line of a change is written in the change's own transaction, on the chain of what it changes: its row is held
//! there anyway, so that changes of different tables do not wait for each other. What changes nothing (who came, what was
//! read, what was refused) stands on the chain of who asked. [`Walk`] follows the chains and says what does not fit.

use std::collections::BTreeMap;
use std::fmt;

use serde_json::Value;
use sha2::{Digest, Sha256};

/// Who asks, from where, with which request.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Actor {
    /// A principal, or on one's own machine the user.
    pub principal: String,
    /// Where from: the address of the other side, or the command.
    pub source: String,
    /// Tells requests apart, also in the server's log.
    pub request_id: String,
    /// Whether the principal proved who it is, so that what it makes is its own.
    pub is_authenticated: bool,
}

/// How something ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// It was done.
    Done,
    /// It was not allowed.
    Denied,
}

impl Outcome {
    /// The word for it in the log.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Denied => "denied",
        }
    }
}

/// Something that happened, to be written down.
#[derive(Debug, Clone, PartialEq)]
pub struct Event {
    /// What: `commit`, `create table`, `load table`, `grant`, …
    pub action: String,
    /// To what: `raw.flights`, a namespace, a principal; `` for the catalog itself.
    pub object: String,
    /// The current snapshot before, if it is a table that had one.
    pub before: Option<i64>,
    /// The current snapshot after.
    pub after: Option<i64>,
    /// How it ended.
    pub outcome: Outcome,
    /// What more there is to say: an object.
    pub detail: Value,
}

impl Event {
    /// Something that was done to an object.
    pub fn done(action: impl Into<String>, object: impl Into<String>) -> Self {
        Self {
            action: action.into(),
            object: object.into(),
            before: None,
            after: None,
            outcome: Outcome::Done,
            detail: Value::Object(serde_json::Map::new()),
        }
    }

    /// The same, which was not allowed.
    pub fn denied(action: impl Into<String>, object: impl Into<String>) -> Self {
        Self { outcome: Outcome::Denied, ..Self::done(action, object) }
    }

    /// The same with more to say.
    pub fn with(mut self, key: &str, value: impl Into<Value>) -> Self {
        if let Value::Object(detail) = &mut self.detail {
            detail.insert(key.to_owned(), value.into());
        }
        self
    }

    /// The same between two snapshots.
    pub fn between(self, before: Option<i64>, after: Option<i64>) -> Self {
        Self { before, after, ..self }
    }
}

/// A line of the log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AuditLine {
    /// The chain it stands on.
    pub chain: String,
    /// Its place there, from 1.
    pub sequence: i64,
    /// When it was written, in milliseconds since 1970.
    pub at_ms: i64,
    /// Who did it.
    pub principal: String,
    /// From where.
    pub source: String,
    /// With which request.
    pub request_id: String,
    /// What was done.
    pub action: String,
    /// To what.
    pub object: String,
    /// The table's current snapshot before.
    pub before: Option<i64>,
    /// And after.
    pub after: Option<i64>,
    /// `done` or `denied`.
    pub outcome: String,
    /// More, as a JSON object.
    pub detail: String,
    /// The hash of the line before; empty for the first.
    pub previous_hash: String,
    /// The hash of all of the above.
    pub hash: String,
}

impl AuditLine {
    /// The hash that the line must have: SHA-256 of its parts, each with its length before it.
    pub fn expected_hash(&self) -> String {
        let mut hash = Sha256::new();
        let numbers = [
            self.sequence.to_string(),
            self.at_ms.to_string(),
            self.before.map_or(String::new(), |it| it.to_string()),
            self.after.map_or(String::new(), |it| it.to_string()),
        ];
        let [sequence, at_ms, before, after] = &numbers;
        for part in [
            "icefield audit 1",
            &self.chain,
            sequence,
            at_ms,
            &self.principal,
            &self.source,
            &self.request_id,
            &self.action,
            &self.object,
            before,
            after,
            &self.outcome,
            &self.detail,
            &self.previous_hash,
        ] {
            hash.update(u64::try_from(part.len()).unwrap_or(u64::MAX).to_be_bytes());
            hash.update(part);
        }
        hex(&hash.finalize())
    }
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The end of a chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// How many lines the chain has.
    pub sequence: i64,
    /// The hash of the last.
    pub hash: String,
}

/// A place where a chain does not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Break {
    /// The chain.
    pub chain: String,
    /// The first line that is wrong, or is missing.
    pub sequence: i64,
    /// What is wrong.
    pub why: &'static str,
}

impl fmt::Display for Break {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {} of chain `{}` {}", self.sequence, self.chain, self.why)
    }
}

/// Follows chains, line by line: each chain's in order, chain after chain.
#[derive(Debug)]
pub struct Walk {
    heads: BTreeMap<String, Head>,
    at: Option<(String, Head)>,
    /// The lines that were followed.
    pub lines: u64,
    /// The first place of each chain that does not hold, in the order of the walk.
    pub breaks: Vec<Break>,
}

impl Walk {
    /// A walk towards these ends.
    pub fn new(heads: BTreeMap<String, Head>) -> Self {
        Self { heads, at: None, lines: 0, breaks: Vec::new() }
    }

    /// Takes the next line.
    pub fn step(&mut self, line: &AuditLine) {
        self.lines += 1;
        if self.at.as_ref().is_none_or(|(chain, _)| *chain != line.chain) {
            self.arrive();
            self.at = Some((line.chain.clone(), Head { sequence: 0, hash: String::new() }));
        }
        let Some((chain, before)) = &mut self.at else { return };
        let wanted = before.sequence + 1;
        let wrong = match () {
            () if line.sequence > wanted => Some((wanted, "is missing")),
            () if line.sequence < wanted => Some((line.sequence, "is there twice")),
            () if line.hash != line.expected_hash() => Some((wanted, "was altered")),
            () if line.previous_hash != before.hash => {
                Some((wanted, "does not follow from the line before: one of both was exchanged"))
            }
            () => None,
        };
        if let Some((sequence, why)) = wrong {
            broken(&mut self.breaks, chain, sequence, why);
        }
        *before = Head { sequence: line.sequence, hash: line.hash.clone() };
    }

    /// Compares where a chain ended with where it must.
    fn arrive(&mut self) {
        let Some((chain, last)) = self.at.take() else { return };
        match self.heads.remove(&chain) {
            None => broken(&mut self.breaks, &chain, last.sequence, "ends a chain without a head"),
            Some(head) if head == last => {}
            Some(head) if head.sequence > last.sequence => {
                broken(&mut self.breaks, &chain, last.sequence + 1, "is missing");
            }
            Some(_) => {
                broken(&mut self.breaks, &chain, last.sequence, "is not the one that ended it");
            }
        }
    }

    /// Ends the walk. What is in `breaks` then is all that does not hold.
    pub fn end(mut self) -> (u64, Vec<Break>) {
        self.arrive();
        for (chain, head) in std::mem::take(&mut self.heads) {
            if head.sequence > 0 {
                broken(&mut self.breaks, &chain, 1, "is missing, with all that came after");
            }
        }
        (self.lines, self.breaks)
    }
}

/// Notes the first break of a chain.
fn broken(breaks: &mut Vec<Break>, chain: &str, sequence: i64, why: &'static str) {
    if breaks.last().is_none_or(|it| it.chain != chain) {
        breaks.push(Break { chain: chain.to_owned(), sequence, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chain(name: &str, count: i64) -> Vec<AuditLine> {
        let mut previous_hash = String::new();
        (1..=count)
            .map(|sequence| {
                let text = str::to_owned;
                let mut line = AuditLine {
                    chain: text(name),
                    sequence,
                    at_ms: 1000 + sequence,
                    principal: text("ada"),
                    source: text("127.0.0.1"),
                    request_id: text("r"),
                    action: text("commit"),
                    object: text(name),
                    before: Some(sequence),
                    after: None,
                    outcome: text("done"),
                    detail: text("{}"),
                    previous_hash: std::mem::take(&mut previous_hash),
                    hash: String::new(),
                };
                line.hash = line.expected_hash();
                previous_hash = line.hash.clone();
                line
            })
            .collect()
    }

    fn verify(lines: &[AuditLine], heads: &[&AuditLine]) -> Vec<String> {
        let head = |it: &AuditLine| Head { sequence: it.sequence, hash: it.hash.clone() };
        let mut walk = Walk::new(heads.iter().map(|it| (it.chain.clone(), head(it))).collect());
        lines.iter().for_each(|it| walk.step(it));
        walk.end().1.iter().map(|it| format!("{}:{} {}", it.chain, it.sequence, it.why)).collect()
    }

    #[test]
    fn what_is_whole_holds_and_anything_else_is_found() {
        let (a, b) = (chain("a", 5), chain("b", 3));
        let all: Vec<_> = a.iter().chain(&b).cloned().collect();
        let heads = [&a[4], &b[2]];
        assert_eq!(verify(&all, &heads), [""; 0]);
        for place in 0..all.len() {
            let (chain, sequence) = (all[place].chain.as_str(), all[place].sequence);
            let mut removed = all.clone();
            removed.remove(place);
            assert_eq!(verify(&removed, &heads), [format!("{chain}:{sequence} is missing")]);
            let changes: [fn(&mut AuditLine); 5] = [
                |it| it.principal = "eve".to_owned(),
                |it| it.at_ms += 1,
                |it| it.before = None,
                |it| it.outcome = "denied".to_owned(),
                |it| std::mem::swap(&mut it.source, &mut it.request_id),
            ];
            for change in changes {
                let mut altered = all.clone();
                change(&mut altered[place]);
                assert_eq!(verify(&altered, &heads), [format!("{chain}:{sequence} was altered")]);
                // Whoever makes the hash fit breaks what follows, or the head.
                altered[place].hash = altered[place].expected_hash();
                assert_eq!(verify(&altered, &heads).len(), 1);
            }
        }
        let mut swapped = all.clone();
        let (second, third) = (all[1].clone(), all[2].clone());
        swapped[1] = AuditLine { sequence: 2, ..third };
        swapped[2] = AuditLine { sequence: 3, ..second };
        assert_eq!(verify(&swapped, &heads), ["a:2 was altered"]);
        assert_eq!(verify(&b, &heads), ["a:1 is missing, with all that came after"]);
        assert_eq!(verify(&all, &heads[..1]), ["b:3 ends a chain without a head"]);
    }
}
