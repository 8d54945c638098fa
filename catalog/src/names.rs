//! Names with dots and slashes in them.
//!
//! Engines that speak REST send names as lists, so that a level may be called `a.b` or `a/b`. In SQL, in the database, in grants
//! and in the audit log a dot stands between the levels, and in paths a slash. There such a name is kept with these two as
//! they are in a URL, and is what it was again on the wire:
//!
//! ```text
//! on the wire  ["new.db"]  "tab/le"     kept  new%2Edb.tab%2Fle     folder  new_db/tab_le
//! ```
//!
//! No name on the wire has `%2E` or `%2F` itself: servers refuse it, as a trick.

/// A level or a name as it is kept.
pub fn kept(name: &str) -> String {
    name.replace('.', "%2E").replace('/', "%2F")
}

/// A kept level or name as it is on the wire.
pub fn spoken(name: &str) -> String {
    name.replace("%2E", ".").replace("%2F", "/")
}

/// A kept level or name as it is in a folder's path, where nobody has to read it back: what a URL would decode is left out.
pub fn in_path(name: &str) -> String {
    name.replace("%2E", "_").replace("%2F", "_")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_come_back_as_they_were() {
        for (name, inner) in [("a.b/c", "a%2Eb%2Fc"), ("ä ö%", "ä ö%"), ("plain", "plain")] {
            assert_eq!(kept(name), inner);
            assert_eq!(spoken(inner), name);
        }
        assert_eq!(in_path("a%2Eb"), "a_b");
    }
}
