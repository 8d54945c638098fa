//! The words of the Iceberg specification, in one place.
//!
//! All of Icefield takes the specification's types from here and not from the crate that defines
//! them, so that a type this crate reads too narrowly (variant, geometry, multi-argument
//! transforms) can be replaced in one place.

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
