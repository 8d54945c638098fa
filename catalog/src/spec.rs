//! The words of the Iceberg specification, in one place.
//!
//! All of Icefield takes the specification's types from here and not from the crate that defines
//! them, so that what this crate reads too narrowly is put right in one place: [`V3Type`] has the types
//! that it does not know, and [`json`] reads and writes whatever may hold them.

mod check;
pub mod json;
mod v3;

pub use check::{refuse_misfits, refuse_schema};

pub use v3::{DEFAULT_CRS, EdgeAlgorithm, V3Type, primitive_name, type_name, works_on};

pub use iceberg::io::FileIO;
pub use iceberg::spec::{
    BlobMetadata, DataContentType, DataFile, DataFileBuilder, DataFileFormat, Datum, FormatVersion,
    ListType, Literal, MAIN_BRANCH, ManifestContentType, ManifestFile, ManifestList,
    ManifestListWriter, ManifestStatus, ManifestWriter, ManifestWriterBuilder, Map, MapType,
    NestedField, NestedFieldRef, NullOrder, Operation, PartitionField, PartitionSpec,
    PartitionSpecRef, PartitionStatisticsFile, PrimitiveLiteral, PrimitiveType, Schema, SchemaRef,
    Snapshot, SnapshotRef, SnapshotReference, SnapshotRetention, SortDirection, SortField,
    SortOrder, SortOrderRef, StatisticsFile, Struct, StructType, Summary, TableMetadata,
    TableMetadataBuilder, TableMetadataRef, Transform, Type, UnboundPartitionField,
    UnboundPartitionSpec, ViewFormatVersion, ViewMetadata, ViewMetadataBuilder, ViewVersion,
};
pub use iceberg::{NamespaceIdent, TableIdent, TableRequirement, TableUpdate, ViewUpdate};
