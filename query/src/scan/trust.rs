//! What of a footer's statistics can be believed, whoever wrote it.
//!
//! DataFusion 54 takes them as they are: a missing count of nulls for none, and the `min` and `max` of old writers, who
//! compared bytes and unsigned numbers with signs, for bounds. Either loses rows. Where a chunk says such things, it is made to
//! say nothing.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use parquet::arrow::arrow_reader::ArrowReaderOptions;
use parquet::arrow::async_reader::AsyncFileReader;
use parquet::basic::{ColumnOrder, ConvertedType, LogicalType, Type};
use parquet::errors::Result;
use parquet::file::metadata::{ColumnChunkMetaData, ParquetMetaData, RowGroupMetaData};
use parquet::schema::types::ColumnDescriptor;

/// The footer, without statistics that mislead.
pub(crate) fn trusted(footer: Arc<ParquetMetaData>) -> Arc<ParquetMetaData> {
    let is_right = |group: &RowGroupMetaData| {
        group.columns().iter().enumerate().all(|(place, it)| holds(&footer, place, it))
    };
    if footer.row_groups().iter().all(is_right) {
        return footer;
    }
    match without(&footer) {
        Ok(made) => Arc::new(made),
        // A footer that was read can be made again.
        Err(_) => footer,
    }
}

/// Whether what a chunk says is so.
fn holds(footer: &ParquetMetaData, place: usize, chunk: &ColumnChunkMetaData) -> bool {
    let Some(statistics) = chunk.statistics() else { return true };
    if statistics.null_count_opt().is_none() {
        return false;
    }
    if statistics.min_bytes_opt().is_none() && statistics.max_bytes_opt().is_none() {
        return true;
    }
    let column = chunk.column_descr();
    let is_bytes = matches!(
        column.physical_type(),
        Type::BYTE_ARRAY | Type::FIXED_LEN_BYTE_ARRAY | Type::INT96
    );
    let has_order = footer.file_metadata().column_order(place) != ColumnOrder::UNDEFINED;
    match is_bytes || is_unsigned(column) {
        true => has_order && !statistics.is_min_max_deprecated(),
        false => true,
    }
}

fn is_unsigned(column: &ColumnDescriptor) -> bool {
    match column.logical_type_ref() {
        Some(LogicalType::Integer { is_signed, .. }) => !is_signed,
        Some(_) => false,
        None => matches!(
            column.converted_type(),
            ConvertedType::UINT_8
                | ConvertedType::UINT_16
                | ConvertedType::UINT_32
                | ConvertedType::UINT_64
        ),
    }
}

/// The footer without the statistics that do not hold, and without those of pages, which are no better.
fn without(footer: &ParquetMetaData) -> Result<ParquetMetaData> {
    let mut builder = footer.clone().into_builder();
    let groups = builder.take_row_groups();
    let groups = groups.into_iter().map(|group| {
        let columns = group.columns().iter().enumerate().map(|(place, chunk)| {
            let mut made = chunk.clone().into_builder();
            if !holds(footer, place, chunk) {
                made = made.clear_statistics();
            }
            made.set_column_index_offset(None).set_column_index_length(None).build()
        });
        let columns = columns.collect::<Result<Vec<_>>>()?;
        group.into_builder().set_column_metadata(columns).build()
    });
    let groups = groups.collect::<Result<Vec<_>>>()?;
    Ok(builder.set_row_groups(groups).set_column_index(None).build())
}

/// A reader that gives such footers.
pub(crate) struct Trusting(pub(crate) Box<dyn AsyncFileReader + Send>);

impl AsyncFileReader for Trusting {
    fn get_bytes(&mut self, range: Range<u64>) -> BoxFuture<'_, Result<Bytes>> {
        self.0.get_bytes(range)
    }

    fn get_byte_ranges(&mut self, ranges: Vec<Range<u64>>) -> BoxFuture<'_, Result<Vec<Bytes>>>
    where
        Self: Send,
    {
        self.0.get_byte_ranges(ranges)
    }

    fn get_metadata<'a>(
        &'a mut self,
        options: Option<&'a ArrowReaderOptions>,
    ) -> BoxFuture<'a, Result<Arc<ParquetMetaData>>> {
        async move { self.0.get_metadata(options).await.map(trusted) }.boxed()
    }
}
