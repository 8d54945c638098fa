//! Bounds of geometries: the box that all of a file's lie in ([bound serialization]).
//!
//! Parquet's own statistics of a column chunk have that box. It is exact for `geometry`, whose edges are
//! straight. An edge of a `geography` bulges towards a pole, out of the box of its ends; so boxes are kept of
//! geographies that are points alone.
//!
//! [bound serialization]: https://iceberg.apache.org/spec/#bound-serialization

use std::sync::{Arc, Once};

use icefield_catalog::{Error, ErrorKind, Result};
use parquet::basic::LogicalType;
use parquet::file::metadata::ColumnChunkMetaData;
use parquet::file::statistics::Statistics;
use parquet::geospatial::accumulator::{
    GeoStatsAccumulator, GeoStatsAccumulatorFactory, ParquetGeoStatsAccumulator,
    init_geo_stats_accumulator_factory,
};
use parquet::geospatial::bounding_box::BoundingBox;
use parquet::geospatial::statistics::GeospatialStatistics;
use parquet::schema::types::ColumnDescPtr;

/// Has boxes written for points of geographies too; without effect from the second time on.
pub(super) fn install() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // Another's factory in the same process writes fewer bounds, none that are wrong.
        let _ = init_geo_stats_accumulator_factory(Arc::new(Boxes));
    });
}

struct Boxes;

impl GeoStatsAccumulatorFactory for Boxes {
    fn new_accumulator(&self, column: &ColumnDescPtr) -> Box<dyn GeoStatsAccumulator> {
        let is_flat = matches!(column.logical_type_ref(), Some(LogicalType::Geometry { .. }));
        Box::new(Accumulator {
            inner: ParquetGeoStatsAccumulator::default(),
            is_flat,
            has_edges: false,
        })
    }
}

struct Accumulator {
    inner: ParquetGeoStatsAccumulator,
    is_flat: bool,
    has_edges: bool,
}

impl GeoStatsAccumulator for Accumulator {
    fn is_valid(&self) -> bool {
        !self.has_edges && self.inner.is_valid()
    }

    fn update_wkb(&mut self, wkb: &[u8]) {
        self.has_edges |= !self.is_flat && !is_of_points(wkb);
        if !self.has_edges {
            self.inner.update_wkb(wkb);
        }
    }

    fn finish(&mut self) -> Option<Box<GeospatialStatistics>> {
        let made = self.inner.finish();
        let has_edges = std::mem::take(&mut self.has_edges);
        made.filter(|_| !has_edges)
    }
}

/// Whether WKB is a point or several.
fn is_of_points(wkb: &[u8]) -> bool {
    let kind: Option<[u8; 4]> = wkb.get(1..5).and_then(|it| it.try_into().ok());
    let kind = match (wkb.first(), kind) {
        (Some(0), Some(kind)) => u32::from_be_bytes(kind),
        (Some(1), Some(kind)) => u32::from_le_bytes(kind),
        _ => return false,
    };
    // The thousands tell of Z and M.
    matches!(kind % 1000, 1 | 4) && kind < 4000
}

/// Refuses bytes that are no WKB; `path` is the column.
///
/// # Errors
///
/// Such bytes.
pub(crate) fn refuse_other_bytes(path: &str, bytes: &[u8]) -> Result<()> {
    let refuse = |why: String| {
        Err(Error::new(
            ErrorKind::DataInvalid,
            format!("column `{path}` holds geometries, and a value is no well-known binary: {why}"),
        ))
    };
    match wkb::reader::read_wkb(bytes) {
        // Numbers of reference systems, which only some write, and what stands behind the shape make it longer.
        Ok(shape) if wkb::writer::geometry_wkb_size(&shape) != bytes.len() => {
            refuse("it is longer than its shape".to_owned())
        }
        Ok(_) => Ok(()),
        Err(error) => refuse(error.to_string()),
    }
}

/// The corners of the box that all chunks of a column lie in, in Iceberg's binary form; none if it is not known of
/// any.
pub(super) fn bounds<'a>(
    chunks: impl Iterator<Item = &'a ColumnChunkMetaData>,
) -> Option<(Vec<u8>, Vec<u8>)> {
    let mut all: Option<BoundingBox> = None;
    for chunk in chunks {
        let nulls = chunk.statistics().and_then(Statistics::null_count_opt);
        if nulls == u64::try_from(chunk.num_values()).ok() {
            continue;
        }
        let found = chunk.geo_statistics()?.bounding_box()?;
        // A box that crosses the antimeridian has its west right of its east, and no least or greatest.
        let is_plain = found.get_xmin() <= found.get_xmax() && found.get_ymin() <= found.get_ymax();
        if !is_plain {
            return None;
        }
        all = Some(match all {
            None => found.clone(),
            Some(before) => union(&before, found),
        });
    }
    let all = all?;
    let corner = |x: f64, y: f64, z: Option<f64>, m: Option<f64>| {
        let mut out: Vec<u8> = [x, y].into_iter().flat_map(f64::to_le_bytes).collect();
        if z.is_some() || m.is_some() {
            out.extend(z.unwrap_or(f64::NAN).to_le_bytes());
        }
        out.extend(m.into_iter().flat_map(f64::to_le_bytes));
        out
    };
    Some((
        corner(all.get_xmin(), all.get_ymin(), all.get_zmin(), all.get_mmin()),
        corner(all.get_xmax(), all.get_ymax(), all.get_zmax(), all.get_mmax()),
    ))
}

/// The least box that two lie in; a third or fourth dimension may be one's alone.
fn union(a: &BoundingBox, b: &BoundingBox) -> BoundingBox {
    let made = BoundingBox::new(
        a.get_xmin().min(b.get_xmin()),
        a.get_xmax().max(b.get_xmax()),
        a.get_ymin().min(b.get_ymin()),
        a.get_ymax().max(b.get_ymax()),
    );
    let either = |a: Option<f64>, b: Option<f64>, pick: fn(f64, f64) -> f64| match (a, b) {
        (Some(a), Some(b)) => Some(pick(a, b)),
        (one, other) => one.or(other),
    };
    let least = |a, b| either(a, b, f64::min);
    let most = |a, b| either(a, b, f64::max);
    let z = (least(a.get_zmin(), b.get_zmin()), most(a.get_zmax(), b.get_zmax()));
    let m = (least(a.get_mmin(), b.get_mmin()), most(a.get_mmax(), b.get_mmax()));
    let made = match z {
        (Some(least), Some(most)) => made.with_zrange(least, most),
        _ => made,
    };
    match m {
        (Some(least), Some(most)) => made.with_mrange(least, most),
        _ => made,
    }
}
