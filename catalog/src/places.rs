//! Where tables lie, and whether two lie in one another's folder.

/// The folder of the table of which a metadata file is current.
pub fn folder_of(pointer: &str) -> String {
    let pointer = normal(pointer);
    let (folder, _) = pointer.rsplit_once('/').unwrap_or((&pointer, ""));
    folder.strip_suffix("/metadata").unwrap_or(folder).to_owned()
}

/// Whether a path is a folder, or lies in it; both [`normal`].
pub fn is_in(path: &str, folder: &str) -> bool {
    path == folder || path.strip_prefix(folder).is_some_and(|it| it.starts_with('/'))
}

/// A place in the spelling that is compared.
pub fn normal(location: &str) -> String {
    let location = location.trim_end_matches('/');
    match location.strip_prefix("file:") {
        Some(path) => format!("file:///{}", path.trim_start_matches('/')),
        None if location.starts_with('/') => format!("file://{location}"),
        None => location.replace("s3a://", "s3://").replace("s3n://", "s3://"),
    }
}

/// Whether two folders are one, or one lies in the other; both [`normal`].
pub fn overlap(one: &str, other: &str) -> bool {
    is_in(one, other) || is_in(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_lies_where_its_metadata_says() {
        assert_eq!(folder_of("file:/w/raw/t/metadata/1.metadata.json"), "file:///w/raw/t");
        assert!(is_in("file:///w/raw/t/x", &folder_of("/w/raw/t/metadata/1.metadata.json")));
        assert!(!is_in("file:///w/raw/t2", "file:///w/raw/t"));
    }
}
