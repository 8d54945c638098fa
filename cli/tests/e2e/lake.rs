//! A warehouse in a temporary folder, and the binary pointed at it.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use tempfile::TempDir;

/// A JSON object's values in the order they are written.
struct Row(Vec<Value>);

impl<'de> serde::Deserialize<'de> for Row {
    fn deserialize<D: serde::Deserializer<'de>>(json: D) -> Result<Self, D::Error> {
        struct Values;
        impl<'de> serde::de::Visitor<'de> for Values {
            type Value = Row;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Row, A::Error> {
                let mut values = Vec::new();
                while let Some((_, value)) = map.next_entry::<String, Value>()? {
                    values.push(value);
                }
                Ok(Row(values))
            }
        }
        json.deserialize_map(Values)
    }
}

pub(crate) struct Lake {
    folder: TempDir,
}

impl Lake {
    pub(crate) fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub(crate) fn warehouse(&self) -> PathBuf {
        self.folder.path().join("warehouse")
    }

    /// A file beside the warehouse.
    pub(crate) fn file(&self, name: &str, content: &str) -> String {
        let path = self.folder.path().join(name);
        std::fs::write(&path, content).unwrap();
        path.display().to_string()
    }

    /// The binary, pointed at the warehouse.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_icefield"));
        command.args(args).current_dir(self.folder.path()).env("NO_COLOR", "1");
        command.env("ICEFIELD_WAREHOUSE", self.warehouse());
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Output {
        self.command(args).output().unwrap()
    }

    /// Standard output of a command that succeeds.
    pub(crate) fn ok(&self, args: &[&str]) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{args:?}: {error}");
        String::from_utf8(output.stdout).unwrap()
    }

    /// Standard error of a command that fails with `code`.
    pub(crate) fn fails(&self, args: &[&str], code: i32) -> String {
        let output = self.run(args);
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        let out = String::from_utf8_lossy(&output.stdout);
        assert_eq!(output.status.code(), Some(code), "{args:?}: {out}{error}");
        assert!(!error.contains("panicked"), "{args:?}: {error}");
        error
    }

    /// The rows of a query, each the values of its columns.
    pub(crate) fn rows(&self, sql: &str) -> Vec<Vec<Value>> {
        let text = self.ok(&["sql", "--format", "json", "-c", sql]);
        let rows: Vec<Row> = serde_json::from_str(&text).unwrap();
        rows.into_iter().map(|row| row.0).collect()
    }

    /// The one value of a query.
    pub(crate) fn value(&self, sql: &str) -> Value {
        self.rows(sql).remove(0).remove(0)
    }

    /// Runs statements that change things.
    pub(crate) fn exec(&self, sql: &str) {
        self.ok(&["sql", "-c", sql]);
    }
}

/// A folder of the repository.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join(path)
}
