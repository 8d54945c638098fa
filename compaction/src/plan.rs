//! Which files are worth writing anew, and which of them together. A pure function: files in, groups
//! out.
//!
//! ```text
//!   partition a   ▪ ▪ ▪ ▪ ▪ ███          small ones, in groups of at most so many bytes
//!   partition b   ███ ███                fine as they are
//! ```

use std::collections::BTreeMap;

use icefield_query::Result;

use crate::invalid;
use crate::options::Options;

/// Files of a group at most: something of each is in memory while it is written.
const GROUP_FILES_MAX: usize = 5_000;

/// A data file as planning sees it.
#[derive(Debug, Clone, Default)]
pub struct Candidate {
    /// Bytes.
    pub bytes: u64,
    /// Rows, deleted ones too.
    pub rows: u64,
    /// Delete files that reach it.
    pub delete_files: usize,
    /// Those of them that delete by values, which every scan has to read and compare.
    pub equality_files: usize,
    /// Rows that delete files of this data file alone delete.
    pub deleted_rows: u64,
    /// Its partition: files of different partitions are never put together, unless they are of another
    /// partition spec than the wanted one.
    pub partition: String,
    /// Whether its rows are in the order that is wanted.
    pub is_sorted: bool,
    /// How many other files have values of the leading sort column in common with it.
    pub overlaps: usize,
    /// Whether it is written with the partition spec that is wanted.
    pub has_spec: bool,
}

/// When files are worth it.
#[derive(Debug, Clone, PartialEq)]
pub struct Sizes {
    /// Bytes that a file is to have.
    pub target: u64,
    /// Files with less are small.
    pub min: u64,
    /// Files with more are large.
    pub max: u64,
    /// Files that make a group worth it.
    pub min_input_files: usize,
    /// Bytes of a group at most.
    pub max_group: u64,
    /// Files of a group at most.
    pub max_group_files: usize,
    /// Delete files that make a data file worth it.
    pub delete_files: usize,
    /// Share of deleted rows that makes a data file worth it.
    pub delete_ratio: f64,
    /// Whether equality deletes make a data file worth it, however few.
    pub fold_equality: bool,
    /// Whether all are.
    pub all: bool,
}

/// Files that are read and written together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Places among the candidates.
    pub files: Vec<usize>,
    /// Their bytes.
    pub bytes: u64,
    /// Files that they become.
    pub outputs: usize,
}

impl Group {
    /// Leaves out all but the first `most` files, and those too if they are not worth it then.
    pub(crate) fn cut(&mut self, most: usize, files: &[Candidate], sizes: &Sizes, sorts: bool) {
        if self.files.len() <= most {
            return;
        }
        self.files.truncate(most);
        self.bytes = self.files.iter().filter_map(|it| files.get(*it)).map(|it| it.bytes).sum();
        self.outputs = sizes.outputs(self.bytes);
        let chosen: Vec<&Candidate> = self.files.iter().filter_map(|it| files.get(*it)).collect();
        if !sizes.is_worth_it(&chosen, self.bytes, self.outputs, sorts) {
            self.files.clear();
        }
    }
}

impl Sizes {
    /// Reads the options that say when files are worth it. `target` is the table's own.
    ///
    /// # Errors
    ///
    /// Sizes that contradict each other.
    pub(crate) fn take(options: &mut Options, target: u64) -> Result<Self> {
        let target = options.positive("target-file-size-bytes")?.unwrap_or(target).max(1);
        let share =
            |percent: u128| u64::try_from(u128::from(target) * percent / 100).unwrap_or(u64::MAX);
        let min = options.take("min-file-size-bytes")?.unwrap_or(share(75));
        let max = options.positive("max-file-size-bytes")?.unwrap_or(share(180));
        if min >= target {
            return Err(invalid(format!(
                "option `min-file-size-bytes` ({min}) has to be less than the target ({target})"
            )));
        }
        if max <= target {
            return Err(invalid(format!(
                "option `max-file-size-bytes` ({max}) has to be more than the target ({target})"
            )));
        }
        let count = |it: Option<u64>, default: usize| {
            it.map_or(default, |it| usize::try_from(it).unwrap_or(usize::MAX))
        };
        let delete_ratio: f64 = options.take("delete-ratio-threshold")?.unwrap_or(0.3);
        if !(delete_ratio > 0.0 && delete_ratio <= 1.0) {
            let message = "option `delete-ratio-threshold` is a share, more than 0 and at most 1";
            return Err(invalid(message));
        }
        Ok(Self {
            target,
            min,
            max,
            min_input_files: count(options.positive("min-input-files")?, 5),
            max_group: options.positive("max-file-group-size-bytes")?.unwrap_or(100 << 30),
            max_group_files: count(options.positive("max-file-group-input-files")?, usize::MAX)
                .min(GROUP_FILES_MAX),
            delete_files: count(options.positive("delete-file-threshold")?, usize::MAX),
            delete_ratio,
            fold_equality: options.take("fold-equality-deletes")?.unwrap_or(false),
            all: options.take("rewrite-all")?.unwrap_or(false),
        })
    }

    /// Whether deletes alone make a file worth it.
    fn has_many_deletes(&self, file: &Candidate) -> bool {
        let ratio = file.deleted_rows as f64 / file.rows.max(1) as f64;
        file.delete_files >= self.delete_files
            || (self.fold_equality && file.equality_files > 0)
            || (file.deleted_rows > 0 && ratio >= self.delete_ratio)
    }

    fn is_candidate(&self, file: &Candidate, sorts: bool) -> bool {
        self.all
            || file.bytes < self.min
            || file.bytes > self.max
            || self.has_many_deletes(file)
            // By size alone, sorting a table of large files would never do anything (trap T-120).
            || (sorts && (!file.is_sorted || file.overlaps > 0))
    }

    fn is_worth_it(&self, files: &[&Candidate], bytes: u64, outputs: usize, sorts: bool) -> bool {
        // By size alone, only if they become fewer, or smaller: else every run would do it again.
        let is_many = files.len() >= self.min_input_files || bytes > self.target;
        self.all
            || (is_many && outputs < files.len())
            || files.iter().any(|it| it.bytes > self.max)
            || files.iter().any(|it| self.has_many_deletes(it))
            || (sorts && files.iter().any(|it| !it.is_sorted || it.overlaps > 0))
    }

    /// How many files `bytes` become: none much larger than the target, no sliver at the end.
    pub fn outputs(&self, bytes: u64) -> usize {
        if bytes <= self.target {
            return 1;
        }
        let floor = bytes / self.target;
        let rest = bytes % self.target;
        // Spread over the others, the rest makes none of them too large.
        let spread = bytes / floor;
        let fits = spread < self.max.min((self.target / 10).saturating_mul(11));
        let count = match rest == 0 || (rest < self.min && fits) {
            true => floor,
            false => floor + 1,
        };
        usize::try_from(count).unwrap_or(usize::MAX)
    }
}

/// The groups that are worth it. `sorts` says whether rows are to be brought into an order.
pub fn plan(files: &[Candidate], sizes: &Sizes, sorts: bool) -> Vec<Group> {
    let mut by_partition: BTreeMap<(&str, bool), Vec<usize>> = BTreeMap::new();
    for (place, file) in files.iter().enumerate() {
        if sizes.is_candidate(file, sorts) {
            // Rows of another spec go to other partitions than they were in: grouped by the old ones, each
            // group would make a file in many of the new ones.
            let partition = if file.has_spec { file.partition.as_str() } else { "" };
            let key = (partition, file.has_spec);
            by_partition.entry(key).or_default().push(place);
        }
    }
    let mut groups = Vec::new();
    for places in by_partition.into_values() {
        for (places, bytes) in bins(files, places, sizes) {
            let chosen: Vec<&Candidate> = places.iter().filter_map(|it| files.get(*it)).collect();
            let rows: u64 = chosen.iter().map(|it| it.rows).sum();
            let gone: u64 = chosen.iter().map(|it| it.deleted_rows).sum();
            let left = rows.saturating_sub(gone) as f64 / rows.max(1) as f64;
            let outputs = sizes.outputs((bytes as f64 * left) as u64);
            if sizes.is_worth_it(&chosen, bytes, outputs, sorts) {
                groups.push(Group { files: places, bytes, outputs });
            }
        }
    }
    groups
}

/// Neighbours, each bin of at most so many bytes where that is possible.
fn bins(files: &[Candidate], places: Vec<usize>, sizes: &Sizes) -> Vec<(Vec<usize>, u64)> {
    let mut bins: Vec<(Vec<usize>, u64)> = Vec::new();
    for place in places {
        let bytes = files.get(place).map_or(0, |it| it.bytes);
        match bins.last_mut() {
            Some((bin, sum))
                if *sum + bytes <= sizes.max_group && bin.len() < sizes.max_group_files =>
            {
                *sum += bytes;
                bin.push(place);
            }
            _ => bins.push((vec![place], bytes)),
        }
    }
    bins
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sizes() -> Sizes {
        Sizes {
            target: 100,
            min: 75,
            max: 180,
            min_input_files: 3,
            max_group: 1000,
            max_group_files: 100,
            delete_files: usize::MAX,
            delete_ratio: 0.3,
            fold_equality: false,
            all: false,
        }
    }

    fn file(bytes: u64, partition: &str) -> Candidate {
        let partition = partition.to_owned();
        let (rows, is_sorted, has_spec) = (10, true, true);
        Candidate { bytes, rows, partition, is_sorted, has_spec, ..Candidate::default() }
    }

    #[test]
    fn small_files_of_one_partition_go_together() {
        let files = [file(10, "a"), file(20, "b"), file(90, "a"), file(5, "a"), file(7, "a")];
        let groups = plan(&files, &sizes(), false);
        assert_eq!(groups, [Group { files: vec![0, 3, 4], bytes: 22, outputs: 1 }]);
    }

    #[test]
    fn deletes_make_a_single_file_worth_it() {
        let mut files = [file(100, "a")];
        assert!(plan(&files, &sizes(), false).is_empty());
        files[0].deleted_rows = 3;
        assert_eq!(plan(&files, &sizes(), false).len(), 1);
        files[0].deleted_rows = 2;
        assert!(plan(&files, &sizes(), false).is_empty());
        files[0].delete_files = 2;
        assert_eq!(plan(&files, &Sizes { delete_files: 2, ..sizes() }, false).len(), 1);
    }

    #[test]
    fn t120_disorder_makes_files_of_a_good_size_worth_it() {
        let mut files = [file(100, "a"), file(100, "a")];
        assert!(plan(&files, &sizes(), true).is_empty(), "in order, and apart");
        files[0].overlaps = 1;
        files[1].overlaps = 1;
        assert_eq!(plan(&files, &sizes(), true).len(), 1);
        assert!(plan(&files, &sizes(), false).is_empty(), "nobody asked for order");
    }

    #[test]
    fn outputs_have_no_slivers() {
        let sizes = sizes();
        assert_eq!(sizes.outputs(99), 1);
        assert_eq!(sizes.outputs(105), 1, "one file of 105, not 100 and 5");
        assert_eq!(sizes.outputs(150), 2);
        assert_eq!(sizes.outputs(180), 2, "90 each");
        assert_eq!(sizes.outputs(1005), 10);
    }

    #[test]
    fn what_would_come_out_as_it_went_in_is_left() {
        let files = [file(60, "a"), file(60, "a")];
        assert!(plan(&files, &sizes(), false).is_empty(), "two files of 60 again");
        let large = [file(370, "a")];
        let groups = plan(&large, &sizes(), false);
        assert_eq!(groups[0].outputs, 4, "one that is too large is cut");
        let whole = Sizes { target: u64::MAX, max: u64::MAX, ..sizes() };
        assert_eq!(whole.outputs(1 << 40), 1);
    }

    #[test]
    fn files_of_other_specs_go_together_whatever_their_partition() {
        let mut files = [file(10, "a"), file(10, "b"), file(10, "c"), file(10, "d"), file(10, "e")];
        files[..4].iter_mut().for_each(|it| it.has_spec = false);
        let groups = plan(&files, &sizes(), false);
        assert_eq!(groups, [Group { files: vec![0, 1, 2, 3], bytes: 40, outputs: 1 }]);
    }

    #[test]
    fn a_group_is_cut_to_the_files_that_are_left() {
        let files: Vec<_> = (0..10).map(|_| file(60, "a")).collect();
        let mut groups = plan(&files, &sizes(), false);
        groups[0].cut(4, &files, &sizes(), false);
        assert_eq!(groups, [Group { files: vec![0, 1, 2, 3], bytes: 240, outputs: 3 }]);
        groups[0].cut(1, &files, &sizes(), false);
        assert!(groups[0].files.is_empty(), "one would come out as it went in");
    }

    #[test]
    fn groups_are_bounded() {
        let files: Vec<_> = (0..40).map(|_| file(70, "a")).collect();
        let groups = plan(&files, &sizes(), false);
        assert!(groups.iter().all(|it| it.bytes <= 1000));
        assert_eq!(groups.iter().map(|it| it.files.len()).sum::<usize>(), 40);
        let groups = plan(&files, &Sizes { max_group_files: 4, ..sizes() }, false);
        assert_eq!(groups.len(), 10);
    }
}
