//! Where files go. No path is ever used twice.

use icefield_catalog::spec::TableMetadata;
use icefield_catalog::{Env, metadata};

/// The folder of data files: `write.data.path`, or `data` below the table.
pub fn data_folder(metadata: &TableMetadata) -> String {
    let properties = metadata.properties();
    let path =
        properties.get("write.data.path").or_else(|| properties.get("write.folder-storage.path"));
    match path {
        Some(path) => path.trim_end_matches('/').to_owned(),
        None => format!("{}/data", metadata.location().trim_end_matches('/')),
    }
}

/// A new data file's location. `partition` is its folder, empty for none; `task` and `number` tell
/// files of one write apart for people, `write` for good.
pub fn data_file(
    metadata: &TableMetadata,
    partition: &str,
    task: usize,
    write: &str,
    number: usize,
) -> String {
    let folder = data_folder(metadata);
    let partition = partition.split('/').map(short).collect::<Vec<_>>().join("/");
    let name = format!("{task:05}-{number:05}-{write}.parquet");
    let spread = metadata
        .properties()
        .get("write.object-storage.enabled")
        .is_some_and(|it| it.eq_ignore_ascii_case("true"));
    match (spread, partition.as_str()) {
        (false, "") => format!("{folder}/{name}"),
        (false, partition) => format!("{folder}/{partition}/{name}"),
        (true, partition) => {
            let rest = match partition {
                "" => name,
                partition => format!("{partition}/{name}"),
            };
            format!("{folder}/{}/{rest}", entropy(&rest))
        }
    }
}

/// A new delete file's location, beside the data.
pub fn delete_file(metadata: &TableMetadata, env: &Env, extension: &str) -> String {
    format!("{}/{}-deletes.{extension}", data_folder(metadata), env.uuid())
}

/// Bytes of a folder's name beyond which it is cut: file systems end at 255, and object stores at 1024 for all of
/// a path.
const FOLDER_BYTES: usize = 128;

/// The name of a partition's folder; of a long one, how it begins and a hash of all of it. (The partition is told by
/// the manifest, and its folder is for people.)
fn short(folder: &str) -> String {
    if folder.len() <= FOLDER_BYTES {
        return folder.to_owned();
    }
    let mut end = FOLDER_BYTES - 17;
    // No character is cut, nor one that is written `%2F`.
    let is_cut = |end: usize| {
        let before = folder.as_bytes().get(end.saturating_sub(2)..end).unwrap_or_default();
        !folder.is_char_boundary(end) || before.contains(&b'%')
    };
    while is_cut(end) {
        end -= 1;
    }
    let hash = folder.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    format!("{}~{hash:016x}", folder.get(..end).unwrap_or_default())
}

/// Folders from a hash of the path, so that object stores spread the load (trap T-88).
fn entropy(path: &str) -> String {
    let hash = path
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let bits = format!("{:020b}", hash & 0xf_ffff);
    let part = |start: usize, end: usize| bits.get(start..end).unwrap_or_default();
    format!("{}/{}/{}/{}", part(0, 4), part(4, 8), part(8, 12), part(12, 20))
}

/// A new manifest's location.
pub fn manifest(table: &TableMetadata, env: &Env) -> String {
    format!("{}/{}-m0.avro", metadata::folder(table), env.uuid())
}

/// A new manifest list's location (trap T-01: a new one each attempt).
pub fn manifest_list(table: &TableMetadata, env: &Env, snapshot_id: i64, attempt: u32) -> String {
    format!("{}/snap-{snapshot_id}-{attempt}-{}.avro", metadata::folder(table), env.uuid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_folders_are_cut_and_told_apart() {
        assert_eq!(short("s=apple"), "s=apple");
        let (one, other) = (short(&"x".repeat(500)), short(&"x".repeat(501)));
        assert!(one != other && one.len() == FOLDER_BYTES, "{one} {other}");
        for begin in 0..4 {
            let cut = short(&format!("{}{}", "x".repeat(begin), "%C3%BC".repeat(100)));
            let kept = cut.split('~').next().unwrap();
            let ends = kept.rfind('%').is_none_or(|it| it + 3 == kept.len());
            assert!(ends && cut.len() <= FOLDER_BYTES, "{cut}");
            let cut = short(&format!("{}{}", "x".repeat(begin), "ü".repeat(100)));
            assert!(cut.len() <= FOLDER_BYTES, "{cut}");
        }
    }
}
