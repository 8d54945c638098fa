//! Names of tables, as people write them and as providers are asked for them.
//!
//! `raw.flights`, `lake.raw.flights`, `flights`, `raw.flights.snapshots` and nested namespaces all
//! become three parts, catalog, namespace and table, in which the last may say more:
//! `flights$snapshots` is a metadata table, `flights@v:5` a version.

use std::collections::HashMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    DataType, ExcludeSelectItem, Expr, FunctionArg, FunctionArgExpr, Ident, ObjectName,
    ObjectNamePart, Query, Select, SelectItem, SelectItemQualifiedWildcardKind, Statement,
    TableAlias, TableFactor, Value, VisitMut, VisitorMut,
};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::Token;
use icefield_catalog::warehouse::CATALOG_NAME;
use icefield_table::table::METADATA_COLUMNS;

use crate::parser::Sql;
use crate::{Error, Result};

/// The namespace of names that have none.
pub(crate) const SEARCH: &str = "default";
/// The namespace of tables read by their path.
pub(crate) const BY_PATH: &str = "$path";
/// DataFusion's own description of everything.
const INFORMATION: &str = "information_schema";

/// The metadata tables.
pub(crate) const METADATA_TABLES: [&str; 16] = [
    "snapshots",
    "history",
    "files",
    "data_files",
    "delete_files",
    "manifests",
    "refs",
    "partitions",
    "metadata_log_entries",
    "position_deletes",
    "entries",
    "all_files",
    "all_data_files",
    "all_delete_files",
    "all_manifests",
    "all_entries",
];

/// A table's last part taken apart.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TableName {
    pub(crate) table: String,
    /// One of [`METADATA_TABLES`].
    pub(crate) metadata: Option<String>,
    /// `v:` and an id or name, or `t:` and milliseconds.
    pub(crate) version: Option<String>,
    /// Whether the metadata columns come with it.
    pub(crate) with_positions: bool,
}

/// What a table's name ends with if the metadata columns come with it.
const WITH_POSITIONS: &str = "$positions";

impl TableName {
    pub(crate) fn parse(text: &str) -> Self {
        let (text, version) = match text.split_once('@') {
            Some((text, version)) => (text, Some(version.to_owned())),
            None => (text, None),
        };
        let (text, with_positions) = match text.strip_suffix(WITH_POSITIONS) {
            Some(table) => (table, true),
            None => (text, false),
        };
        let (table, metadata) = match text.rsplit_once('$') {
            Some((table, kind)) if METADATA_TABLES.contains(&kind) => {
                (table, Some(kind.to_owned()))
            }
            _ => (text, None),
        };
        Self { table: table.to_owned(), metadata, version, with_positions }
    }
}

/// The parts of a name, folded to lower case where they are not quoted.
pub(crate) fn parts(name: &ObjectName) -> Vec<String> {
    let part = |it: &ObjectNamePart| match it {
        ObjectNamePart::Identifier(ident) => folded(ident),
        ObjectNamePart::Function(function) => function.name.value.to_lowercase(),
    };
    name.0.iter().map(part).collect()
}

pub(crate) fn folded(ident: &Ident) -> String {
    match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    }
}

/// A name with dots between its parts.
///
/// # Errors
///
/// A part with a dot in it: it would be taken for two.
pub(crate) fn dotted(name: &ObjectName) -> Result<String> {
    let parts = parts(name);
    match parts.iter().find(|it| it.contains('.')) {
        None => Ok(parts.join(".")),
        Some(part) => Err(Error::invalid(format!(
            "`{part}` in `{name}` has a dot in it, and cannot be told from two names"
        ))
        .with_hint("such a table or column can be read, not changed")),
    }
}

/// A dotted name without the quotes that it has, as SQL takes it; `None` if it has none, or is no name.
pub fn unquoted(name: &str) -> Option<String> {
    let dialect = Sql::default();
    let mut parser = Parser::new(&dialect).try_with_sql(name).ok()?;
    let parsed = parser.parse_object_name(false).ok()?;
    let is_quoted = name.contains(['"', '`']) && parser.peek_token().token == Token::EOF;
    is_quoted.then(|| dotted(&parsed).ok()).flatten().filter(|it| it != name)
}

/// Refuses a name that would mean what a table tells of itself: `sales.history` is the history of `sales`.
pub(crate) fn refuse_metadata(namespace: &[String], name: &str) -> Result<()> {
    let is_free = matches!(namespace, [only] if is_tier(only)) || !METADATA_TABLES.contains(&name);
    match is_free {
        true => Ok(()),
        false => Err(Error::invalid(format!(
            "`{}.{name}` means the metadata table `{name}` of a table `{0}`",
            namespace.join(".")
        ))
        .with_hint("choose another name, or one of the namespaces raw, cleaned and curated")),
    }
}

/// Refuses to give a table a name by which it could not be found.
pub(crate) fn refuse_unusable(name: &str) -> Result<()> {
    match name.contains('@') || is_path(name) {
        false => Ok(()),
        true => Err(Error::invalid(format!("a table cannot be called `{name}`")).with_hint(
            "leave out dots, slashes and @, which mean something else in names of tables",
        )),
    }
}

/// Whether a name has a dot or a slash in it, also as they are kept of clients that send some (`icefield_catalog::names`).
pub(crate) fn is_path(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    name.contains(['.', '/']) || lower.contains("%2e") || lower.contains("%2f")
}

/// Namespace and table of a name that has to be a table's: for CREATE, DROP and the like.
pub(crate) fn table_parts(name: &ObjectName, current: &str) -> Result<(Vec<String>, String)> {
    let mut parts = parts(name);
    if parts.len() > 2 && parts.first().is_some_and(|it| it == CATALOG_NAME) {
        parts.remove(0);
    }
    let table = parts.pop().ok_or_else(|| Error::invalid("a table needs a name"))?;
    if parts.is_empty() {
        if current == SEARCH {
            return Err(Error::invalid(format!("table `{table}` needs a namespace"))
                .with_hint(format!("write raw.{table}, or say USE raw first")));
        }
        parts = current.split('.').map(str::to_owned).collect();
    }
    Ok((parts, table))
}

/// Whether a time is written with more than six digits that count behind its point.
fn has_nanoseconds(time: &str) -> bool {
    let digits = time.split_once('.').map_or("", |(_, rest)| rest);
    let end = digits.find(|it: char| !it.is_ascii_digit()).unwrap_or(digits.len());
    digits.get(6..end).is_some_and(|it| it.contains(|digit| digit != '0'))
}

/// Rewrites the names of tables in a statement, and gives times the precision that they are written in.
pub(crate) fn normalize(
    statement: &mut impl VisitMut,
    current: &str,
    attached: &[String],
) -> Result<()> {
    let mut visitor = Names { current, attached, failed: None };
    let _ = statement.visit(&mut visitor);
    match visitor.failed {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

struct Names<'a> {
    current: &'a str,
    /// The catalogs beside the own one.
    attached: &'a [String],
    failed: Option<Error>,
}

impl VisitorMut for Names<'_> {
    type Break = ();

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        if let Expr::TypedString(it) = expr
            && let DataType::Timestamp(precision @ None, _) = &mut it.data_type
            && it.value.value.clone().into_string().is_some_and(|it| has_nanoseconds(&it))
        {
            *precision = Some(9);
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_relation(&mut self, name: &mut ObjectName) -> ControlFlow<()> {
        if let Some(made) = three_parts(&parts(name), self.current, self.attached) {
            *name = made;
        }
        ControlFlow::Continue(())
    }

    /// `t.*` means the table that FROM calls `raw.t`.
    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let joins = select.from.iter().flat_map(|it| &it.joins).map(|it| &it.relation);
        let factors = select.from.iter().map(|it| &it.relation).chain(joins);
        let mut tables = Vec::new();
        for factor in factors {
            if let TableFactor::Table { name, alias: None, args: None, .. } = factor
                && let Some(made) = three_parts(&parts(name), self.current, self.attached)
            {
                tables.push((parts(name).pop(), made));
            }
        }
        for item in &mut select.projection {
            if let SelectItem::QualifiedWildcard(
                SelectItemQualifiedWildcardKind::ObjectName(name),
                _,
            ) = item
            {
                let wanted = parts(name);
                let found = tables.iter().find(|(bare, made)| {
                    let is_bare = wanted.len() == 1 && bare.as_ref() == wanted.first();
                    is_bare
                        || three_parts(&wanted, self.current, self.attached).as_ref() == Some(made)
                });
                if let Some((_, made)) = found {
                    *name = made.clone();
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        let TableFactor::Table { name, alias, args, .. } = factor else {
            return ControlFlow::Continue(());
        };
        let known = parts(name);
        if let (Some(arguments), [function]) = (args.as_ref(), known.as_slice())
            && function == "iceberg_scan"
        {
            match scan_arguments(&arguments.args) {
                Ok(text) => {
                    *name = quoted(&[CATALOG_NAME, BY_PATH, &text]);
                    *args = None;
                    alias.get_or_insert_with(|| alias_of("iceberg_scan"));
                }
                Err(error) => {
                    self.failed = Some(error);
                    return ControlFlow::Break(());
                }
            }
            return ControlFlow::Continue(());
        }
        if args.is_none()
            && let Some(made) = three_parts(&known, self.current, self.attached)
        {
            // A metadata table or a version goes by the name that was written.
            let last = known.last().map(String::as_str).unwrap_or_default();
            let bare = last.split('@').next().unwrap_or(last);
            if made.0.last().map(ToString::to_string) != Some(format!("\"{bare}\"")) {
                alias.get_or_insert_with(|| alias_of(bare));
            }
            *name = made;
        }
        ControlFlow::Continue(())
    }
}

/// A name of several parts as catalog, namespace and table; `None` for one to leave alone.
fn three_parts(parts: &[String], current: &str, attached: &[String]) -> Option<ObjectName> {
    let mut parts: Vec<&str> = parts.iter().map(String::as_str).collect();
    if parts.contains(&INFORMATION) || parts.contains(&BY_PATH) || parts.len() < 2 {
        return None;
    }
    let mut catalog = CATALOG_NAME;
    if let Some(first) = parts.first().copied().filter(|_| parts.len() > 2)
        && (first == CATALOG_NAME || attached.iter().any(|it| it == first))
    {
        parts.remove(0);
        catalog = first;
    }
    let last = parts.pop()?;
    let (bare, version) = match last.split_once('@') {
        Some((bare, version)) => (bare, format!("@{version}")),
        None => (last, String::new()),
    };
    let table = match parts.len() {
        // `flights.snapshots`: a tier is never called like a table of it would be.
        1 if catalog == CATALOG_NAME
            && METADATA_TABLES.contains(&bare)
            && !is_tier(parts.first()?) =>
        {
            let table = parts.pop()?;
            parts.push(current);
            format!("{table}${bare}{version}")
        }
        2.. if METADATA_TABLES.contains(&bare) => {
            let table = parts.pop()?;
            format!("{table}${bare}{version}")
        }
        2.. if version.is_empty() && selected(bare).is_some() => {
            let table = parts.pop()?;
            format!("{table}{}", selected(bare)?)
        }
        _ => format!("{bare}{version}"),
    };
    Some(quoted(&[catalog, &parts.join("."), &table]))
}

/// What a table's name ends with that is read and written on a branch.
pub(crate) const ON_BRANCH: &str = "@b:";

/// The version that Spark's words behind a table's name mean: `t.branch_x`, `t.tag_x`, `t.snapshot_id_5`, `t.at_timestamp_5`.
fn selected(word: &str) -> Option<String> {
    let number = |it: &str| it.parse::<i64>().is_ok();
    let (kind, of) = ["branch_", "tag_", "snapshot_id_", "at_timestamp_"]
        .iter()
        .find_map(|kind| Some((*kind, word.strip_prefix(kind)?)))?;
    match kind {
        _ if of.is_empty() => None,
        "branch_" => Some(format!("{ON_BRANCH}{of}")),
        "tag_" => Some(format!("@v:{of}")),
        "snapshot_id_" if number(of) => Some(format!("@v:{of}")),
        "at_timestamp_" if number(of) => Some(format!("@t:{of}")),
        _ => None,
    }
}

pub(crate) fn is_tier(name: &str) -> bool {
    icefield_catalog::warehouse::TIERS.contains(&name)
}

pub(crate) fn quoted(parts: &[&str]) -> ObjectName {
    let part = |it: &&str| ObjectNamePart::Identifier(Ident::with_quote('"', *it));
    ObjectName(parts.iter().map(part).collect())
}

fn alias_of(name: &str) -> TableAlias {
    TableAlias { explicit: true, name: Ident::with_quote('"', name), columns: Vec::new(), at: None }
}

/// The arguments of `iceberg_scan` as JSON, which is the table's name at [`BY_PATH`].
fn scan_arguments(arguments: &[FunctionArg]) -> Result<String> {
    let mut out = serde_json::Map::new();
    for argument in arguments {
        let (name, value) = match argument {
            FunctionArg::Unnamed(FunctionArgExpr::Expr(value)) => ("path".to_owned(), value),
            FunctionArg::Named { name, arg: FunctionArgExpr::Expr(value), .. } => {
                (name.value.to_lowercase(), value)
            }
            other => {
                return Err(Error::invalid(format!("iceberg_scan: `{other}` is not an argument")));
            }
        };
        let value = match value {
            Expr::Value(value) => match &value.value {
                Value::Number(number, _) => serde_json::Value::String(number.clone()),
                Value::SingleQuotedString(text) => serde_json::Value::String(text.clone()),
                Value::Boolean(flag) => serde_json::Value::Bool(*flag),
                other => return Err(Error::invalid(format!("iceberg_scan: {other} is no value"))),
            },
            other => {
                return Err(Error::invalid(format!("iceberg_scan: `{other}` is not a constant")));
            }
        };
        if !matches!(name.as_str(), "path" | "snapshot_id" | "allow_moved_paths") {
            return Err(Error::invalid(format!("iceberg_scan: there is no argument `{name}`"))
                .with_hint(
                    "arguments are a path, snapshot_id => N and allow_moved_paths => true",
                ));
        }
        if out.insert(name.clone(), value).is_some() {
            return Err(Error::invalid(format!("iceberg_scan: `{name}` is given twice")));
        }
    }
    if !out.contains_key("path") {
        return Err(Error::invalid(
            "iceberg_scan needs the path of a table or of its metadata file",
        ));
    }
    Ok(serde_json::Value::Object(out).to_string())
}

/// Puts the tables of a statement that are named without a namespace into one. Queries in WITH are no tables, nor are `others`.
pub(crate) fn qualify(statement: &mut impl VisitMut, namespace: &str, others: &[String]) {
    let mut visitor = Qualified { namespace, named: others.to_vec() };
    let _ = statement.visit(&mut visitor);
}

struct Qualified<'a> {
    namespace: &'a str,
    named: Vec<String>,
}

impl VisitorMut for Qualified<'_> {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let with = query.with.iter().flat_map(|it| &it.cte_tables);
        self.named.extend(with.map(|it| folded(&it.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if let TableFactor::Table { name, alias, args: None, .. } = factor
            && let [only] = parts(name).as_slice()
            && !self.named.contains(only)
        {
            let bare = only.split(['@', '$']).next().unwrap_or(only);
            alias.get_or_insert_with(|| alias_of(bare));
            *name = quoted(&[CATALOG_NAME, self.namespace, only]);
        }
        ControlFlow::Continue(())
    }
}

/// Gives the tables of a statement their metadata columns, and keeps those out of its stars.
pub(crate) fn ask_for_positions(statement: &mut impl VisitMut) {
    let mut visitor = Positions { named: Vec::new() };
    let _ = statement.visit(&mut visitor);
}

struct Positions {
    /// Queries in WITH, which are no tables.
    named: Vec<String>,
}

impl Positions {
    fn is_table(&self, factor: &TableFactor) -> bool {
        match factor {
            TableFactor::Table { name, args: None, .. } => {
                let name = parts(name);
                let last = name.last().map(String::as_str).unwrap_or_default();
                let is_ours = name.iter().any(|it| it.starts_with('$')) || last.contains('$');
                !(is_ours || name.len() == 1 && self.named.contains(&last.to_owned()))
            }
            _ => false,
        }
    }
}

impl VisitorMut for Positions {
    type Break = ();

    fn pre_visit_query(&mut self, query: &mut Query) -> ControlFlow<()> {
        let with = query.with.iter().flat_map(|it| &it.cte_tables);
        self.named.extend(with.map(|it| folded(&it.alias.name)));
        ControlFlow::Continue(())
    }

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let has_table = select.from.iter().any(|it| self.is_table(&it.relation));
        if !has_table {
            return ControlFlow::Continue(());
        }
        let hidden = || {
            let names = METADATA_COLUMNS.iter().map(|it| ObjectName::from(Ident::new(*it)));
            ExcludeSelectItem::Multiple(names.collect())
        };
        for item in &mut select.projection {
            if let SelectItem::Wildcard(options) | SelectItem::QualifiedWildcard(_, options) = item
                && options.opt_exclude.is_none()
            {
                options.opt_exclude = Some(hidden());
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_table_factor(&mut self, factor: &mut TableFactor) -> ControlFlow<()> {
        if !self.is_table(factor) {
            return ControlFlow::Continue(());
        }
        if let TableFactor::Table { name, alias, .. } = factor
            && let Some(last) = parts(name).pop()
            && let Some(part) = name.0.last_mut()
        {
            let (bare, version) = match last.split_once('@') {
                Some((bare, version)) => (bare.to_owned(), format!("@{version}")),
                None => (last, String::new()),
            };
            alias.get_or_insert_with(|| alias_of(&bare));
            let made = format!("{bare}{WITH_POSITIONS}{version}");
            *part = ObjectNamePart::Identifier(Ident::with_quote('"', made));
        }
        ControlFlow::Continue(())
    }
}

/// Lets columns be written in any case: an unquoted name that is no column as it stands, but is one
/// in another case, becomes that one.
pub(crate) fn fold_columns(
    statement: &mut datafusion::sql::parser::Statement,
    columns: &HashMap<String, Option<String>>,
) {
    use datafusion::sql::parser::Statement;
    match statement {
        Statement::Explain(explain) => fold_columns(&mut explain.statement, columns),
        Statement::Statement(inner) if !columns.is_empty() => {
            let _ = inner.visit(&mut Columns(columns));
        }
        _ => {}
    }
}

struct Columns<'a>(&'a HashMap<String, Option<String>>);

impl Columns<'_> {
    fn fold(&self, ident: &mut Ident) {
        if ident.quote_style.is_none()
            && let Some(Some(exact)) = self.0.get(&ident.value.to_lowercase())
        {
            *ident = Ident::with_quote('"', exact);
        }
    }
}

impl VisitorMut for Columns<'_> {
    type Break = ();

    fn pre_visit_statement(&mut self, statement: &mut Statement) -> ControlFlow<()> {
        if let Statement::Insert(insert) = statement {
            for name in &mut insert.columns {
                if let [ObjectNamePart::Identifier(ident)] = name.0.as_mut_slice() {
                    self.fold(ident);
                }
            }
        }
        ControlFlow::Continue(())
    }

    fn pre_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<()> {
        match expr {
            Expr::Identifier(ident) => self.fold(ident),
            Expr::CompoundIdentifier(idents) => {
                if let Some(last) = idents.last_mut() {
                    self.fold(last);
                }
            }
            _ => {}
        }
        ControlFlow::Continue(())
    }
}

/// Names the columns of a SELECT that have none by what they say. DataFusion names a cast like what
/// is cast, and then refuses both side by side.
pub(crate) fn name_columns(statement: &mut impl VisitMut) {
    let _ = statement.visit(&mut Unnamed);
}

struct Unnamed;

impl VisitorMut for Unnamed {
    type Break = ();

    fn pre_visit_select(&mut self, select: &mut Select) -> ControlFlow<()> {
        let mut taken: Vec<String> = Vec::new();
        for item in &mut select.projection {
            let SelectItem::UnnamedExpr(expr) = item else { continue };
            let (mut name, is_column) = match &*expr {
                Expr::Identifier(ident) => (folded(ident), true),
                Expr::CompoundIdentifier(idents) => {
                    (idents.last().map(folded).unwrap_or_default(), true)
                }
                other => (other.to_string(), false),
            };
            let is_taken = taken.contains(&name);
            while taken.contains(&name) {
                name.push('\'');
            }
            taken.push(name.clone());
            // A column is named already, unless it stands there twice.
            if !is_column || is_taken {
                let alias = Ident::with_quote('"', name);
                *item = SelectItem::ExprWithAlias { expr: expr.clone(), alias };
            }
        }
        ControlFlow::Continue(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn three(name: &str) -> Option<String> {
        let parts: Vec<String> = name.split('.').map(str::to_owned).collect();
        three_parts(&parts, SEARCH, &["other".to_owned()]).map(|it| it.to_string())
    }

    #[test]
    fn names_become_three_parts() {
        for (name, wanted) in [
            ("flights", None),
            ("raw.flights", Some(r#""lake"."raw"."flights""#)),
            ("lake.raw.flights", Some(r#""lake"."raw"."flights""#)),
            ("raw.flights.snapshots", Some(r#""lake"."raw"."flights$snapshots""#)),
            ("lake.raw.flights.files@v:5", Some(r#""lake"."raw"."flights$files@v:5""#)),
            ("flights.snapshots", Some(r#""lake"."default"."flights$snapshots""#)),
            ("raw.snapshots", Some(r#""lake"."raw"."snapshots""#)),
            ("a.b.t", Some(r#""lake"."a.b"."t""#)),
            ("information_schema.tables", None),
            ("other.raw.t", Some(r#""other"."raw"."t""#)),
            ("other.a.b.t.files@v:5", Some(r#""other"."a.b"."t$files@v:5""#)),
            ("other.t", Some(r#""lake"."other"."t""#)),
        ] {
            assert_eq!(three(name).as_deref(), wanted, "{name}");
        }
    }

    #[test]
    fn last_parts_come_apart() {
        let name = TableName::parse("flights$files@v:main");
        assert_eq!(name.table, "flights");
        assert_eq!(name.metadata.as_deref(), Some("files"));
        assert_eq!(name.version.as_deref(), Some("v:main"));
    }

    #[test]
    fn quotes_come_off() {
        for (name, wanted) in [
            (r#"raw."My Table""#, Some("raw.My Table")),
            ("lake.`raw`.`My Table`", Some("lake.raw.My Table")),
            (r#"RAW."T""#, Some("raw.T")),
            ("raw.t", None),
            (r#"raw."a.b""#, None),
            (r#"raw."t"#, None),
            (r#"raw."t" or more"#, None),
        ] {
            assert_eq!(unquoted(name).as_deref(), wanted, "{name}");
        }
    }
}
