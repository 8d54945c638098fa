//! Taking turns: who changes a table waits for who changes it already.
//!
//! Nothing depends on it but time: the catalog settles races, also those of several servers.

use std::collections::{BTreeSet, HashMap};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use icefield_catalog::spec::TableIdent;
use tokio::sync::{Mutex as Turn, OwnedMutexGuard};

/// The tables that are being changed.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<HashMap<TableIdent, Weak<Turn<()>>>>);

impl Turns {
    /// Waits for one's turn at all of these tables. It ends when what is given is dropped.
    pub(crate) async fn take(
        &self,
        tables: impl Iterator<Item = &TableIdent>,
    ) -> Vec<OwnedMutexGuard<()>> {
        // In one order, so that two who need the same tables cannot wait for each other.
        let tables: BTreeSet<&TableIdent> = tables.collect();
        let mut taken = Vec::with_capacity(tables.len());
        for table in tables {
            taken.push(self.turn(table).lock_owned().await);
        }
        taken
    }

    fn turn(&self, table: &TableIdent) -> Arc<Turn<()>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turn) = all.get(table).and_then(Weak::upgrade) {
            return turn;
        }
        all.retain(|_, it| it.strong_count() > 0);
        let turn = Arc::default();
        all.insert(table.clone(), Arc::downgrade(&turn));
        turn
    }
}
