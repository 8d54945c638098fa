//! Every storage and catalog call of every kind of statement, in turn, never answers, answers too
//! late, or is cut half way; the caller waits no longer and is gone. The table is then as before or
//! as after, never between, and the statement, run again by another process, brings it to where it
//! should be, whether what hung goes on before that, after it, or never.
//!
//! ```text
//!   ICEFIELD_CUTS=all cargo test --workspace --test it cuts      all statements in all modes
//! ```

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use icefield_catalog::storage::faulty::{Request, Strike};
use icefield_tests::faulty_catalog::Fault;

use crate::faults::{Lake, MODES, STATEMENTS};

/// What becomes of what hung.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Then {
    /// It hangs for ever.
    Never,
    /// It goes on before the statement is run again.
    First,
    /// It goes on after the statement was run again.
    Last,
}

/// How a storage call is cut, and what then.
const CUTS: [(Strike, Then); 5] = [
    (Strike::HangBefore, Then::Never),
    (Strike::HangAfter, Then::Never),
    (Strike::Late, Then::First),
    (Strike::Late, Then::Last),
    (Strike::Partial, Then::Never),
];

/// Runs work on a clock that needs no time, so that what hangs can be waited for.
fn block_on<T>(work: impl Future<Output = T>) -> T {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(work)
}

/// Runs all cases, two at a time.
fn all<T: Sync>(cases: &[T], run: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    let work = || {
        while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
            run(case);
        }
    };
    std::thread::scope(|scope| {
        scope.spawn(work);
        scope.spawn(work);
    });
}

/// Whether all cases are asked for.
fn every() -> bool {
    std::env::var("ICEFIELD_CUTS").is_ok_and(|it| it == "all")
}

/// Statements, each in some mode.
fn statements() -> Vec<(&'static [&'static str], &'static str)> {
    let mut made = Vec::new();
    for (place, statements) in STATEMENTS.into_iter().enumerate() {
        let one = MODES[(place + 1) % MODES.len()];
        made.extend(
            MODES.into_iter().filter(|it| every() || *it == one).map(|it| (statements, it)),
        );
    }
    made
}

impl Lake {
    /// Runs statements until they are through, or one of their calls hangs. Whether all were
    /// acknowledged.
    async fn run_or_leave(&self, statements: &[&str]) -> bool {
        tokio::select! {
            biased;
            () = self.faults.hung.notified() => false,
            () = self.hung.notified() => false,
            acknowledged = self.run(statements) => acknowledged,
        }
    }

    /// Lets go on what hung, and waits until nothing is left to do.
    async fn release(&self) {
        self.faults.released.notify_one();
        self.released.notify_one();
        tokio::time::sleep(Duration::from_secs(600)).await;
    }

    /// What holds after statements were cut, and when they are run again.
    async fn check(&self, (before, after): (&str, &str), acknowledged: bool, of: &Of) {
        let holds = |found: &str| found == after || (found == before && !acknowledged);
        if of.then == Then::First {
            self.release().await;
        }
        let found = self.rows().await;
        assert!(holds(&found), "{of}\n{found}");
        assert!(self.run(of.statements).await, "again: {of}");
        assert_eq!(self.rows().await, after, "again: {of}");
        if of.then == Then::Last {
            self.release().await;
            assert_eq!(self.rows().await, after, "after a late answer: {of}");
        }
    }
}

/// A case.
#[derive(Clone)]
struct Of {
    statements: &'static [&'static str],
    mode: &'static str,
    how: String,
    then: Then,
}

impl std::fmt::Display for Of {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}, then {:?}: {:?}, {}", self.how, self.then, self.statements, self.mode)
    }
}

/// The rows before and after statements that nothing disturbs, and what they ask of storage.
async fn undisturbed(statements: &[&str], mode: &str) -> (String, String, Vec<Request>) {
    let lake = Lake::new(mode).await;
    let before = lake.rows().await;
    lake.faults.log.lock().unwrap().clear();
    assert!(lake.run(statements).await);
    let calls = lake.faults.log.lock().unwrap().iter().map(|it| it.0).collect();
    let after = lake.rows().await;
    assert_ne!(before, after);
    (before, after, calls)
}

/// Cuts those calls of statements that are asked for, in all ways.
fn cut(
    statements: &'static [&'static str],
    mode: &'static str,
    is_wanted: impl Fn(Request, Strike, Then) -> bool,
) -> usize {
    let (before, after, calls) = block_on(undisturbed(statements, mode));
    let mut cases = Vec::new();
    for (call, request) in (1..).zip(calls) {
        let cuts = CUTS.into_iter().filter(|(strike, then)| is_wanted(request, *strike, *then));
        cases.extend(cuts.map(|(strike, then)| (call, strike, then)));
    }
    all(&cases, |&(call, strike, then)| {
        let how = format!("{strike:?} of call {call}");
        let of = Of { statements, mode, how, then };
        block_on(async {
            let lake = Lake::new(mode).await;
            *lake.faults.strike.lock().unwrap() = strike;
            lake.faults.requests.store(0, Ordering::Relaxed);
            lake.faults.strike_at.store(call, Ordering::Relaxed);
            let acknowledged = lake.run_or_leave(statements).await;
            lake.faults.strike_at.store(0, Ordering::Relaxed);
            lake.check((&before, &after), acknowledged, &of).await;
        });
    });
    cases.len()
}

#[test]
fn no_storage_call_that_is_cut_leaves_a_change_half_done() {
    for (statements, mode) in statements() {
        let count = cut(statements, mode, |request, strike, then| match request {
            // A read does nothing that could be half done: whether it hangs before or after is one.
            Request::Read => (strike, then) == (Strike::Late, Then::Last),
            _ => true,
        });
        assert!(count > 20, "only {count} cases of {statements:?}");
    }
}

#[test]
fn no_upload_that_is_cut_leaves_a_change_half_done() {
    // Few rows, so long that their files are uploaded in parts.
    const LONG: &[&str] = &["INSERT OVERWRITE cleaned.t WHERE id < 20 \
                             SELECT i, repeat(CAST(i + 10 AS TEXT), 2000000) FROM range(0, 12) r(i)"];
    let mode = "'format-version' = '2', 'write.parquet.compression-codec' = 'uncompressed'";
    let count = cut(LONG, mode, |request, strike, then| {
        let is_one = strike == Strike::Partial || then == Then::Last;
        request == Request::Upload && (is_one || every())
    });
    assert!(count >= 8, "only {count} cases: nothing was uploaded in parts");
}

#[test]
fn no_commit_without_an_answer_leaves_a_change_half_done() {
    let mut cases = Vec::new();
    for (statements, mode) in statements() {
        let rows = block_on(undisturbed(statements, mode));
        for (fault, then) in [
            (Fault::HangBefore, Then::Never),
            (Fault::HangAfter, Then::Never),
            (Fault::Late, Then::First),
            (Fault::Late, Then::Last),
        ] {
            let how = format!("{fault:?} of the commit");
            cases.push((Of { statements, mode, how, then }, fault, rows.clone()));
        }
    }
    all(&cases, |(of, fault, (before, after, _))| {
        block_on(async {
            let lake = Lake::new(of.mode).await;
            *lake.next.lock().unwrap() = Some(*fault);
            let acknowledged = lake.run_or_leave(of.statements).await;
            assert!(!acknowledged, "{of}");
            lake.check((before, after), acknowledged, of).await;
        });
    });
}
