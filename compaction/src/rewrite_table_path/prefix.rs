//! Paths with another prefix.

use icefield_query::Result;
use icefield_table::deletes::positions::FILE_PATH;
use icefield_table::manifest::Metrics;

use crate::invalid;

/// What paths begin with, and what they are to begin with.
#[derive(Debug, Clone)]
pub(super) struct Prefix {
    from: String,
    to: String,
}

impl Prefix {
    /// # Errors
    ///
    /// Prefixes that are empty or the same.
    pub(super) fn new(from: &str, to: &str) -> Result<Self> {
        let (from, to) = (from.trim_end_matches('/'), to.trim_end_matches('/'));
        if from.is_empty() || to.is_empty() {
            return Err(invalid("`source_prefix` and `target_prefix` are no empty texts"));
        }
        if [from, to].iter().any(|it| it.ends_with(':')) {
            return Err(invalid("a prefix is more than `file:///` or the like: it names a folder"));
        }
        if from == to {
            return Err(invalid("`source_prefix` and `target_prefix` are the same"));
        }
        Ok(Self { from: from.to_owned(), to: to.to_owned() })
    }

    /// What comes after the prefix, without a slash before it.
    pub(super) fn below<'a>(&self, path: &'a str) -> Result<&'a str> {
        let below = path.strip_prefix(&self.from);
        let below =
            below.and_then(|it| if it.is_empty() { Some(it) } else { it.strip_prefix('/') });
        below.ok_or_else(|| {
            invalid(format!("`{path}` does not begin with the prefix `{}`", self.from))
                .with_hint("DESCRIBE EXTENDED says where the table lies; paths are compared as they are written")
        })
    }

    /// A path with the other prefix.
    pub(super) fn moved(&self, path: &str) -> Result<String> {
        Ok(match self.below(path)? {
            "" => self.to.clone(),
            below => format!("{}/{below}", self.to),
        })
    }

    /// The bounds of paths in a file of positions. What was cut bounds nothing under another prefix, and goes.
    pub(super) fn move_bounds(&self, metrics: &mut Metrics) {
        for bounds in [&mut metrics.lower_bounds, &mut metrics.upper_bounds] {
            let Some(bound) = bounds.remove(&FILE_PATH) else { continue };
            let moved = std::str::from_utf8(&bound).ok().and_then(|it| self.moved(it).ok());
            if let Some(moved) = moved {
                bounds.insert(FILE_PATH, moved.into_bytes());
            }
        }
        // One side alone would be compared with whole paths.
        if !(metrics.lower_bounds.contains_key(&FILE_PATH)
            && metrics.upper_bounds.contains_key(&FILE_PATH))
        {
            metrics.lower_bounds.remove(&FILE_PATH);
            metrics.upper_bounds.remove(&FILE_PATH);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_ends_where_a_folder_does() {
        let prefix = Prefix::new("file:///a/b/", "s3://c").unwrap();
        assert_eq!(prefix.moved("file:///a/b/x/y").unwrap(), "s3://c/x/y");
        assert_eq!(prefix.moved("file:///a/b").unwrap(), "s3://c");
        assert!(prefix.moved("file:///a/bc/x").unwrap_err().message.contains("/a/bc/x"));
        assert!(Prefix::new("/a/", "/a").is_err());
    }
}
