//! Views: a query under a name, as a JSON file that a pointer leads to ([view specification]).
//!
//! What is said of `metadata.json` holds for them too: a file is never changed, and the pointer moves from one to the next.
//!
//! [view specification]: https://iceberg.apache.org/view-spec/

use bytes::Bytes;
use serde_json::Value;

use crate::commit::unfit;
use crate::spec::{ViewMetadata, ViewUpdate, json};
use crate::{Env, Error, ErrorKind, Result, Storage, metadata};

/// A view as it stands.
#[derive(Debug, Clone)]
pub struct LoadedView {
    /// Where its current metadata lies.
    pub metadata_location: String,
    /// The content of that file.
    pub metadata: ViewMetadata,
}

/// Reads the metadata of a view.
///
/// # Errors
///
/// A file that is missing or is not view metadata.
pub async fn read(storage: &Storage, location: &str) -> Result<LoadedView> {
    let raw = metadata::plain(storage.read(location).await?, location)?;
    let metadata = json::from_slice(&raw).map_err(|error| {
        Error::new(ErrorKind::DataInvalid, format!("this is not Iceberg view metadata: {error}"))
            .with_context("metadata", location)
    })?;
    Ok(LoadedView { metadata_location: location.to_owned(), metadata })
}

/// The folder of metadata files: `write.metadata.path`, or `metadata` below the view.
pub fn folder(metadata: &ViewMetadata) -> String {
    match metadata.properties().get("write.metadata.path") {
        Some(path) => path.trim_end_matches('/').to_owned(),
        None => format!("{}/metadata", metadata.location().trim_end_matches('/')),
    }
}

/// Writes `metadata` as the file that follows `previous`, which nobody sees yet.
///
/// # Errors
///
/// Storage that refuses.
pub async fn write_next(
    storage: &Storage,
    env: &Env,
    metadata: ViewMetadata,
    previous: Option<&str>,
) -> Result<LoadedView> {
    let version = previous.map_or(0, |it| metadata::version_of(it) + 1);
    let name = format!("{version:05}-{}.metadata.json", env.uuid());
    let metadata_location = format!("{}/{name}", folder(&metadata));
    let text = serde_json::to_vec(&to_value(&metadata)?)?;
    storage.write(&metadata_location, Bytes::from(text)).await?;
    Ok(LoadedView { metadata_location, metadata })
}

/// The metadata as JSON, its versions in order.
///
/// # Errors
///
/// None that are known.
pub fn to_value(metadata: &ViewMetadata) -> Result<Value> {
    let mut value = json::to_value(metadata)?;
    for (list, id) in [("versions", "version-id"), ("schemas", "schema-id")] {
        if let Some(all) = value.get_mut(list).and_then(Value::as_array_mut) {
            all.sort_by_key(|it| it.get(id).and_then(Value::as_i64));
        }
    }
    Ok(value)
}

/// The metadata that updates make of `base`, in order.
///
/// # Errors
///
/// An update that does not fit.
pub fn apply(base: &ViewMetadata, updates: &[ViewUpdate]) -> Result<ViewMetadata> {
    let mut next = base.clone().into_builder();
    for update in updates.iter().cloned() {
        next = match update {
            ViewUpdate::AssignUuid { uuid } if uuid != base.uuid() => {
                let message = format!("the view has the UUID {}, which stays", base.uuid());
                return Err(Error::new(ErrorKind::DataInvalid, message));
            }
            ViewUpdate::AssignUuid { .. } => next,
            ViewUpdate::UpgradeFormatVersion { format_version } => {
                next.upgrade_format_version(format_version).map_err(unfit)?
            }
            ViewUpdate::AddSchema { schema, .. } => next.add_schema(schema),
            ViewUpdate::SetLocation { location } => next.set_location(location),
            ViewUpdate::SetProperties { updates } => next.set_properties(updates).map_err(unfit)?,
            ViewUpdate::RemoveProperties { removals } => next.remove_properties(&removals),
            ViewUpdate::AddViewVersion { view_version } => {
                next.add_version(view_version).map_err(unfit)?
            }
            ViewUpdate::SetCurrentViewVersion { view_version_id } => {
                next.set_current_version_id(view_version_id).map_err(unfit)?
            }
        };
    }
    Ok(next.build().map_err(unfit)?.metadata)
}
