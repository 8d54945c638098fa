//! Deletion vectors, and the Puffin files they lie in ([Puffin], trap T-35).
//!
//! ```text
//!   PFA1 │ blob │ blob │ … │ PFA1 │ JSON: type, offset, length of each │ its size │ flags │ PFA1
//!          └ length │ D1 D3 39 64 │ 64-bit roaring bitmap │ CRC-32
//! ```
//!
//! [Puffin]: https://iceberg.apache.org/puffin-spec/

use icefield_catalog::Result;
use icefield_catalog::spec::{DataContentType, DataFileFormat};
use roaring::RoaringTreemap;

use super::corrupt;
use super::positions::POS;
use crate::manifest::{DataFile, ManifestEntry};
use crate::puffin;
use crate::table::Table;

/// First bytes of a deletion vector's bitmap.
const VECTOR_MAGIC: [u8; 4] = [0xd1, 0xd3, 0x39, 0x64];

/// Reads the deletion vector that an entry names.
pub async fn load(table: &Table, entry: &ManifestEntry) -> Result<RoaringTreemap> {
    let location = table.locate(&entry.file.path);
    let (offset, length) = place(&entry.file, &location)?;
    let range = offset..offset.saturating_add(length);
    let blob = table.storage().read_range(&location, range).await?;
    let vector = decode(&blob, &location)?;
    if vector.len() != entry.file.record_count {
        return Err(corrupt(&location, "its rows are not as many as recorded"));
    }
    Ok(vector)
}

/// Where in its file a deletion vector is: offset and length in bytes.
pub fn place(file: &DataFile, location: &str) -> Result<(u64, u64)> {
    let (Some(offset), Some(length)) = (file.content_offset, file.content_size_bytes) else {
        return Err(corrupt(location, "where the vector is in it is not recorded"));
    };
    let unsigned = |it: i64| u64::try_from(it).map_err(|_| corrupt(location, "an offset"));
    Ok((unsigned(offset)?, unsigned(length)?))
}

/// Decodes a deletion vector's blob.
pub fn decode(blob: &[u8], location: &str) -> Result<RoaringTreemap> {
    let number = |range: std::ops::Range<usize>| {
        blob.get(range).and_then(|it| <[u8; 4]>::try_from(it).ok()).map(u32::from_be_bytes)
    };
    let length = number(0..4).ok_or_else(|| corrupt(location, "it is cut short"))? as usize;
    let body = blob.get(4..4 + length).ok_or_else(|| corrupt(location, "it is cut short"))?;
    if number(4 + length..8 + length) != Some(crc32(body)) {
        return Err(corrupt(location, "its checksum is wrong"));
    }
    let bitmap = body.strip_prefix(&VECTOR_MAGIC);
    let bitmap = bitmap.ok_or_else(|| corrupt(location, "it is no deletion vector"))?;
    RoaringTreemap::deserialize_from(bitmap).map_err(|_| corrupt(location, "its bitmap is damaged"))
}

/// Encodes a deletion vector's blob.
pub fn encode(positions: &RoaringTreemap) -> Result<Vec<u8>> {
    let mut body = VECTOR_MAGIC.to_vec();
    // Runs are shorter than single positions where many neighbours are deleted.
    let mut runs = positions.clone();
    runs.optimize();
    runs.serialize_into(&mut body)?;
    let length = u32::try_from(body.len())
        .map_err(|_| corrupt("a new deletion vector", "it is larger than 4 GiB"))?;
    let mut blob = length.to_be_bytes().to_vec();
    blob.extend_from_slice(&body);
    blob.extend_from_slice(&crc32(&body).to_be_bytes());
    Ok(blob)
}

/// A Puffin file of deletion vectors being made.
#[derive(Debug)]
pub struct PuffinWriter {
    location: String,
    writer: puffin::Writer,
    files: Vec<DataFile>,
}

impl PuffinWriter {
    /// A file that will lie at `location`.
    pub fn new(location: String) -> Self {
        Self { location, writer: puffin::Writer::default(), files: Vec::new() }
    }

    /// Adds the vector of `target`, whose partition spec and values it inherits.
    pub fn add(&mut self, target: &DataFile, positions: &RoaringTreemap) -> Result<()> {
        let blob = encode(positions)?;
        let about = puffin::Blob {
            kind: "deletion-vector-v1",
            fields: &[POS],
            snapshot_id: -1,
            sequence_number: -1,
            properties: &[
                ("referenced-data-file", target.path.clone()),
                ("cardinality", positions.len().to_string()),
            ],
        };
        let offset = self.writer.add(&about, &blob);
        let mut file = DataFile::parquet(self.location.clone(), target.spec_id, positions.len(), 0);
        file.content = DataContentType::PositionDeletes;
        file.format = DataFileFormat::Puffin;
        file.partition.clone_from(&target.partition);
        file.referenced_data_file = Some(target.path.clone());
        file.content_offset = i64::try_from(offset).ok();
        file.content_size_bytes = i64::try_from(blob.len()).ok();
        self.files.push(file);
        Ok(())
    }

    /// The file's bytes, and one delete file for each vector in it.
    pub fn finish(mut self) -> Result<(Vec<u8>, Vec<DataFile>)> {
        let (bytes, _) = self.writer.finish()?;
        for file in &mut self.files {
            file.file_size_bytes = bytes.len() as u64;
        }
        Ok((bytes, self.files))
    }
}

/// CRC-32 as gzip has it.
fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = flate2::Crc::new();
    crc.update(bytes);
    crc.sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t35_what_is_encoded_decodes_and_damage_is_noticed() {
        let sets = [
            RoaringTreemap::from_iter([0, 1, 5]),
            RoaringTreemap::from_iter((0..100_000).chain([1 << 33, (1 << 33) + 7])),
        ];
        for positions in sets {
            let blob = encode(&positions).unwrap();
            assert_eq!(decode(&blob, "x").unwrap(), positions);
            for place in [4, 9, blob.len() - 1] {
                let mut damaged = blob.clone();
                damaged[place] ^= 1;
                assert!(decode(&damaged, "x").is_err());
            }
            assert!(decode(&blob[..blob.len() - 2], "x").is_err());
        }
        // Runs: a hundred thousand neighbours take a few bytes.
        assert!(encode(&RoaringTreemap::from_iter(0..100_000)).unwrap().len() < 100);
    }

    #[test]
    fn a_puffin_file_says_where_its_vectors_are() {
        let mut writer = PuffinWriter::new("f.puffin".to_owned());
        for (path, positions) in [("a", vec![1, 2]), ("b", vec![7])] {
            let target = DataFile::parquet(path.to_owned(), 3, 10, 10);
            writer.add(&target, &RoaringTreemap::from_iter(positions)).unwrap();
        }
        let (bytes, files) = writer.finish().unwrap();
        assert!(bytes.starts_with(b"PFA1") && bytes.ends_with(b"PFA1"));
        let (offset, length) = place(&files[1], "f").unwrap();
        let blob = &bytes[offset as usize..(offset + length) as usize];
        assert_eq!(decode(blob, "f").unwrap(), RoaringTreemap::from_iter([7]));
        assert_eq!((files[0].record_count, files[0].spec_id), (2, 3));
        assert_eq!(files[1].referenced_data_file.as_deref(), Some("b"));
        assert!(files.iter().all(|it| it.file_size_bytes == bytes.len() as u64));
    }
}
