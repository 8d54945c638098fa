//! The lines between snapshots: one rail for each branch, from its head down to where it left another.

use std::collections::HashMap;

use icefield_catalog::spec::SnapshotRef;

/// What is drawn beside a snapshot.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Rail {
    /// Lines above it, where rails end in that of this snapshot.
    pub(super) before: Vec<String>,
    /// Beside it.
    pub(super) at: String,
    /// Beside the line below it.
    pub(super) below: String,
}

impl Rail {
    /// Letters of the wider of its lines.
    pub(super) fn width(&self) -> usize {
        self.at.chars().count().max(self.below.chars().count())
    }
}

/// The rails of snapshots, of which each stands above its parent.
pub(super) fn draw(life: &[SnapshotRef]) -> Vec<Rail> {
    let steps: Vec<_> = life.iter().map(|it| (it.snapshot_id(), it.parent_snapshot_id())).collect();
    drawn(&steps)
}

/// As [`draw`], of ids with their parents'.
fn drawn(life: &[(i64, Option<i64>)]) -> Vec<Rail> {
    // The snapshot that each rail leads to next.
    let mut rails: Vec<Option<i64>> = Vec::new();
    let places: HashMap<i64, usize> =
        life.iter().enumerate().map(|(place, (id, _))| (*id, place)).collect();
    let mut all = Vec::with_capacity(life.len());
    for (index, (id, parent)) in life.iter().enumerate() {
        let own = rails.iter().position(|it| *it == Some(*id));
        let own = own.unwrap_or_else(|| free(&mut rails));
        let mut rail = Rail::default();
        for other in (own + 1..rails.len()).rev() {
            if rails.get(other) == Some(&Some(*id)) {
                rail.before.push(joined(&rails, own, other));
                set(&mut rails, other, None);
            }
        }
        while rails.last() == Some(&None) && rails.len() > own + 1 {
            rails.pop();
        }
        set(&mut rails, own, Some(*id));
        rail.at = line(&rails, |place| place == own);
        // What was expired is not there to lead to.
        let goes_on = parent.filter(|it| places.get(it).is_some_and(|place| *place > index));
        set(&mut rails, own, goes_on);
        rail.below = line(&rails, |_| false);
        all.push(rail);
    }
    all
}

fn set(rails: &mut [Option<i64>], place: usize, to: Option<i64>) {
    if let Some(rail) = rails.get_mut(place) {
        *rail = to;
    }
}

/// The first place without a rail.
fn free(rails: &mut Vec<Option<i64>>) -> usize {
    rails.iter().position(Option::is_none).unwrap_or_else(|| {
        rails.push(None);
        rails.len() - 1
    })
}

fn line(rails: &[Option<i64>], is_here: impl Fn(usize) -> bool) -> String {
    let letter = |(place, rail): (usize, &Option<i64>)| match (is_here(place), rail) {
        (true, _) => "●",
        (false, Some(_)) => "│",
        (false, None) => " ",
    };
    rails.iter().enumerate().map(letter).collect::<Vec<_>>().join(" ")
}

/// A line in which the rail at `from` ends in the one at `to`.
fn joined(rails: &[Option<i64>], to: usize, from: usize) -> String {
    let mut out = String::new();
    for (place, rail) in rails.iter().enumerate() {
        let letter = match (place, rail) {
            (place, _) if place == to => '├',
            (place, _) if place == from => '╯',
            (place, Some(_)) if place > to && place < from => '┼',
            (place, None) if place > to && place < from => '─',
            (_, Some(_)) => '│',
            (_, None) => ' ',
        };
        out.push(letter);
        out.push(if place >= to && place < from { '─' } else { ' ' });
    }
    out.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(life: &[(i64, Option<i64>)]) -> String {
        let mut out = String::new();
        for ((id, _), rail) in life.iter().zip(drawn(life)) {
            for line in rail.before {
                out.push_str(&format!("{line}\n"));
            }
            out.push_str(&format!("{} {id}\n", rail.at));
        }
        out
    }

    #[test]
    fn a_line_is_one_rail() {
        assert_eq!(shown(&[(3, Some(2)), (2, Some(1)), (1, None)]), "● 3\n● 2\n● 1\n");
        // The parent of the oldest was expired.
        assert_eq!(drawn(&[(2, Some(1))])[0].below.trim(), "");
    }

    #[test]
    fn branches_leave_where_they_were_made() {
        let life = [(5, Some(2)), (4, Some(2)), (3, Some(1)), (2, Some(1)), (1, None)];
        let wanted = "● 5\n│ ● 4\n│ │ ● 3\n├─╯ │\n●   │ 2\n├───╯\n● 1\n";
        assert_eq!(shown(&life), wanted);
    }

    #[test]
    fn unrelated_lines_stand_beside_each_other() {
        assert_eq!(shown(&[(2, None), (1, None)]), "● 2\n● 1\n");
        assert_eq!(shown(&[(3, Some(1)), (2, None), (1, None)]), "● 3\n│ ● 2\n● 1\n");
    }
}
