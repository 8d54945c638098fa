//! Keys of S3 that a server vends with a table: taken when it is loaded, and asked for again before they run out.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use async_trait::async_trait;
use object_store::CredentialProvider;
use object_store::aws::AwsCredential;
use serde_json::Value;

use super::client::{Client, Method};
use super::wire::text;
use crate::storage::{S3Access, place};
use crate::{Result, Storage};

/// The header of those who take keys with a table.
pub(super) const WAYS: (&str, &str) = ("x-iceberg-access-delegation", "vended-credentials");
/// How long before keys run out new ones are asked for, in milliseconds.
const BEFORE_MS: i64 = 3 * 60 * 1000;

/// All keys that were vended, by the folder that they are for.
#[derive(Debug, Default)]
pub(super) struct Keys(Mutex<HashMap<String, Arc<Vended>>>);

/// The keys of one folder.
pub(super) struct Vended {
    folder: String,
    /// What is asked for new ones, below the catalog's address.
    path: String,
    client: Weak<Client>,
    now: Mutex<(Arc<AwsCredential>, Option<i64>)>,
}

impl std::fmt::Debug for Vended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vended").field("folder", &self.folder).finish_non_exhaustive()
    }
}

impl Keys {
    /// Whether there are keys for tables, and none for the one at this location.
    pub(super) fn lack(&self, location: &str) -> bool {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let is_in = |folder: &String| location.trim_end_matches('/').starts_with(folder.as_str());
        !all.is_empty() && !all.keys().any(is_in)
    }

    /// Takes the keys that came with a table, whose route is `path` and which lies at `location`.
    pub(super) fn take(
        &self,
        client: &Arc<Client>,
        storage: &Arc<Storage>,
        path: &str,
        location: &str,
        body: &Value,
    ) -> Result<()> {
        for (folder, config) in said(body, location) {
            let (Some(credential), true) = (credential(config), is_of_s3(&folder)) else {
                continue;
            };
            let now = (Arc::new(credential), ends(config));
            let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some(known) = all.get(&folder) {
                *known.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
                continue;
            }
            let vended = Arc::new(Vended {
                folder: folder.clone(),
                path: format!("{path}/credentials"),
                client: Arc::downgrade(client),
                now: Mutex::new(now),
            });
            let keys: Arc<dyn CredentialProvider<Credential = AwsCredential>> = vended.clone();
            let of = |key: &str| text(config, key).map(str::to_owned);
            storage.lend(
                &folder,
                S3Access {
                    keys,
                    endpoint: of("s3.endpoint"),
                    region: of("client.region").or(of("s3.region")),
                    is_path_style: text(config, "s3.path-style-access") == Some("true"),
                },
            )?;
            all.insert(folder, vended);
        }
        Ok(())
    }
}

fn is_of_s3(folder: &str) -> bool {
    place(folder).is_ok_and(|it| it.root.starts_with("s3://") && !it.path.as_ref().is_empty())
}

/// The folders that keys came for, each with its settings.
fn said<'a>(body: &'a Value, location: &str) -> Vec<(String, &'a Value)> {
    let listed = body.get("storage-credentials").and_then(Value::as_array).into_iter().flatten();
    let mut all: Vec<_> = listed
        .filter_map(|it| {
            Some((text(it, "prefix")?.trim_end_matches('/').to_owned(), it.get("config")?))
        })
        .collect();
    if let Some(config) = body.get("config").filter(|_| all.is_empty()) {
        all.push((location.trim_end_matches('/').to_owned(), config));
    }
    all
}

fn credential(config: &Value) -> Option<AwsCredential> {
    Some(AwsCredential {
        key_id: text(config, "s3.access-key-id")?.to_owned(),
        secret_key: text(config, "s3.secret-access-key")?.to_owned(),
        token: text(config, "s3.session-token").map(str::to_owned),
    })
}

/// When keys run out, in milliseconds since 1970.
fn ends(config: &Value) -> Option<i64> {
    text(config, "s3.session-token-expires-at-ms")?.parse().ok()
}

#[async_trait]
impl CredentialProvider for Vended {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> object_store::Result<Arc<AwsCredential>> {
        let held = || self.now.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let (keys, ends) = held();
        let Some(client) = self.client.upgrade() else { return Ok(keys) };
        if ends.is_none_or(|it| client.env.now_ms() < it - BEFORE_MS) {
            return Ok(keys);
        }
        let asked = client.ask(Method::GET, &self.path, &[], None, &[]).await;
        let body = match asked.and_then(super::client::Reply::ok) {
            Ok(reply) => reply.body,
            // They may still be good.
            Err(_) if ends.is_some_and(|it| client.env.now_ms() < it) => return Ok(keys),
            Err(error) => {
                return Err(object_store::Error::Generic { store: "S3", source: Box::new(error) });
            }
        };
        for (folder, config) in said(&body, &self.folder) {
            if let Some(credential) = credential(config).filter(|_| folder == self.folder) {
                let now = (Arc::new(credential), self::ends(config));
                *self.now.lock().unwrap_or_else(PoisonError::into_inner) = now;
            }
        }
        Ok(held().0)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_of_the_folder_that_they_came_for() {
        let config = json!({ "s3.access-key-id": "a", "s3.secret-access-key": "b" });
        let old = json!({ "config": config });
        assert_eq!(said(&old, "s3://b/t/")[0].0, "s3://b/t");
        let new = json!({ "config": {}, "storage-credentials": [{ "prefix": "s3://b/t/d/", "config": config }] });
        let found = said(&new, "s3://b/t");
        assert_eq!((found.len(), found[0].0.as_str()), (1, "s3://b/t/d"));
        assert_eq!(credential(found[0].1).unwrap().key_id, "a");
        assert!(credential(&json!({})).is_none());
        assert!(is_of_s3("s3a://b/t") && !is_of_s3("s3://b") && !is_of_s3("/t"));
    }
}
