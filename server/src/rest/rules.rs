//! What each route needs of who comes: the rules of the gate, told from the request alone.

use icefield_catalog::names;
use icefield_catalog::rights::{Object, Role};
use icefield_catalog::spec::{NamespaceIdent, TableIdent};
use serde_json::Value;

use super::call::{self, Call};
use super::delegation;
use super::refusal::Refusal;
use crate::gate::Need;

type Needs = Result<Vec<Need>, Refusal>;

/// Anybody who said who they are. Lists leave out what the caller may not see.
pub(crate) fn anybody(_: &Call) -> Needs {
    Ok(Vec::new())
}

/// Who reads everything, as what counts everybody's requests is of everything.
pub(crate) fn reads_all(_: &Call) -> Needs {
    Ok(vec![Need::May(Role::Reader, Object::Catalog)])
}

pub(crate) fn sees_parent(call: &Call) -> Needs {
    match call.asked("parent") {
        None | Some("") => Ok(Vec::new()),
        Some(parent) => Ok(vec![Need::Sees(Object::Namespace(call::namespace(parent)?))]),
    }
}

pub(crate) fn sees_namespace(call: &Call) -> Needs {
    Ok(vec![Need::Sees(Object::Namespace(call.namespace()?))])
}

/// A namespace is made by who owns what it will be in.
pub(crate) fn makes_namespace(call: &Call) -> Needs {
    let body: Value = call.json()?;
    let mut levels = strings(body.get("namespace"));
    levels.pop();
    let above = match levels.is_empty() {
        true => Object::Catalog,
        false => Object::Namespace(call::levels(levels)?),
    };
    Ok(vec![Need::May(Role::Owner, above)])
}

pub(crate) fn owns_namespace(call: &Call) -> Needs {
    Ok(vec![Need::May(Role::Owner, Object::Namespace(call.namespace()?))])
}

pub(crate) fn writes_namespace(call: &Call) -> Needs {
    Ok(vec![Need::May(Role::Writer, Object::Namespace(call.namespace()?))])
}

/// Whoever gives a name to metadata that lies somewhere could give one to anybody's.
pub(crate) fn registers(_: &Call) -> Needs {
    Ok(vec![Need::May(Role::Administrator, Object::Catalog)])
}

pub(crate) fn reads_table(call: &Call) -> Needs {
    Ok(vec![Need::May(Role::Reader, Object::Table(call.table()?))])
}

/// A request to S3 that is to be signed reads files, or writes some.
pub(crate) fn signs(call: &Call) -> Needs {
    Ok(vec![Need::May(delegation::role(call)?, Object::Table(call.table()?))])
}

pub(crate) fn owns_table(call: &Call) -> Needs {
    Ok(vec![Need::May(Role::Owner, Object::Table(call.table()?))])
}

pub(crate) fn reads_view(call: &Call) -> Needs {
    Ok(vec![Need::May(Role::Reader, Object::Table(call.view()?))])
}

pub(crate) fn owns_view(call: &Call) -> Needs {
    Ok(vec![Need::May(Role::Owner, Object::Table(call.view()?))])
}

/// Who owns what is renamed, and may make something where it goes.
pub(crate) fn renames(call: &Call) -> Needs {
    let body: Value = call.json()?;
    let from = identifier(body.get("source"))?;
    let to = identifier(body.get("destination"))?;
    Ok(vec![
        Need::May(Role::Owner, Object::Table(from)),
        Need::May(Role::Writer, Object::Namespace(to.namespace().clone())),
    ])
}

pub(crate) fn commits(call: &Call) -> Needs {
    Ok(vec![change(call.table()?, &call.json()?)?])
}

pub(crate) fn commits_several(call: &Call) -> Needs {
    let body: Value = call.json()?;
    let changes = body.get("table-changes").and_then(Value::as_array);
    let changes = changes.ok_or_else(|| Refusal::bad("there is no list of `table-changes`"))?;
    changes.iter().map(|it| change(identifier(it.get("identifier"))?, it)).collect()
}

/// The updates that write rows. All others change how a table is.
const OF_WRITERS: [&str; 6] = [
    "add-snapshot",
    "set-snapshot-ref",
    "add-schema",
    "set-current-schema",
    "set-statistics",
    "set-partition-statistics",
];

/// What a change of a table needs: what its updates do. What does not say so is refused: parsed as something else, it could
/// do more than it was taken for.
fn change(table: TableIdent, change: &Value) -> Result<Need, Refusal> {
    let all = |name: &str, key: &str| {
        let wrong = || Refusal::bad(format!("`{name}` is no list of objects with a `{key}`"));
        let values = change.get(name).and_then(Value::as_array).ok_or_else(wrong)?;
        let named = values.iter().map(|it| it.get(key).and_then(Value::as_str));
        named.collect::<Option<Vec<_>>>().ok_or_else(wrong)
    };
    if all("requirements", "type")?.contains(&"assert-create") {
        return Ok(Need::May(Role::Writer, Object::Namespace(table.namespace().clone())));
    }
    let actions = all("updates", "action")?;
    let updates = change.get("updates").and_then(Value::as_array).into_iter().flatten();
    let mut each = actions.iter().zip(updates);
    let writes = each.all(|(action, it)| OF_WRITERS.contains(action) || brings_keys(action, it));
    Ok(Need::May(if writes { Role::Writer } else { Role::Owner }, Object::Table(table)))
}

/// Whether an update only says what landed with rows: our own client keeps that in properties.
fn brings_keys(action: &str, update: &Value) -> bool {
    let set = update.get("updates").and_then(Value::as_object);
    action == "set-properties"
        && set.is_some_and(|it| it.keys().all(|key| key.starts_with("icefield.ledger.")))
}

fn identifier(value: Option<&Value>) -> Result<TableIdent, Refusal> {
    let levels = strings(value.and_then(|it| it.get("namespace")));
    let name = value.and_then(|it| it.get("name")).and_then(Value::as_str);
    let name = name.ok_or_else(|| Refusal::bad("an identifier has no `name`"))?;
    let namespace: NamespaceIdent = call::levels(levels)?;
    Ok(TableIdent::new(namespace, names::kept(name)))
}

fn strings(value: Option<&Value>) -> Vec<String> {
    let all = value.and_then(Value::as_array).into_iter().flatten();
    all.filter_map(|it| it.as_str().map(str::to_owned)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn writers_write_rows_and_owners_change_the_table() {
        let table = TableIdent::from_strs(["raw", "t"]).unwrap();
        let needs = |requirements: Value, updates: Value| {
            let body = json!({ "requirements": requirements, "updates": updates });
            change(table.clone(), &body).unwrap()
        };
        let on = Object::Table(table.clone());
        let action = |it: &str| json!([{ "action": it }]);
        for (update, role) in [
            ("add-snapshot", Role::Writer),
            ("add-schema", Role::Writer),
            ("set-properties", Role::Owner),
            ("set-location", Role::Owner),
            ("remove-snapshots", Role::Owner),
            ("never heard of", Role::Owner),
        ] {
            assert_eq!(needs(json!([]), action(update)), Need::May(role, on.clone()), "{update}");
        }
        let set = |key: &str| json!([{ "action": "set-properties", "updates": { (key): "1" } }]);
        let writer = Need::May(Role::Writer, on.clone());
        assert_eq!(needs(json!([]), set("icefield.ledger.f.csv")), writer, "what landed");
        assert_eq!(needs(json!([]), set("a")), Need::May(Role::Owner, on.clone()));
        for (requirements, updates) in [
            (json!([]), json!([["set-properties", { "a": "b" }]])),
            (json!([["assert-create"]]), json!([])),
            (json!([]), json!({ "action": "add-snapshot" })),
            (Value::Null, json!([])),
        ] {
            let body = json!({ "requirements": requirements, "updates": updates });
            assert!(change(table.clone(), &body).is_err(), "{body}");
        }
        let creates = needs(json!([{ "type": "assert-create" }]), action("set-properties"));
        let namespace = Object::Namespace(table.namespace().clone());
        assert_eq!(creates, Need::May(Role::Writer, namespace));
    }
}
