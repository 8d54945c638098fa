//! Views: queries under a name, in the catalog as Iceberg has them, or for the session alone.
//!
//! ```text
//!   SELECT … FROM v      planned ─▶ no table `v` ─▶ a view? ─▶ its query planned, in its own namespace ─▶ planned again
//! ```
//!
//! A view of the catalog has versions, each with its query in one or several dialects. Ours is `icefield`; of others' those are
//! read that are near to it ([`foreign`]). Its columns are called as its schema has them, whatever its query calls them by now.

mod foreign;

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};

use arrow::datatypes::DataType;
use datafusion::catalog::TableProvider;
use datafusion::common::TableReference;
use datafusion::datasource::ViewTable;
use datafusion::execution::SessionState;
use datafusion::logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder};
use datafusion::sql::parser::Statement;
use datafusion::sql::sqlparser::ast;
use icefield_catalog::ErrorKind;
use icefield_catalog::names::kept;
use icefield_catalog::spec::{TableIdent, ViewMetadata};
use icefield_table::arrow as shapes;

use crate::names::{self, SEARCH};
use crate::provider::catalog::NAME;
use crate::provider::{Lake, ident};
use crate::{Error, Result, Session, parser};

/// The dialect of our own queries.
pub(crate) const DIALECT: &str = "icefield";
/// Dialects whose queries we try, the nearest first.
const DIALECTS: [&str; 6] = [DIALECT, "datafusion", "duckdb", "postgres", "trino", "spark"];
/// Views within views, beyond which it is a circle.
const DEPTH_MAX: usize = 32;

/// A query under a name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct View {
    /// The query.
    pub(crate) query: String,
    /// What its columns are called; as the query has them if empty.
    pub(crate) columns: Vec<String>,
    /// The namespace of names in it that have none.
    pub(crate) namespace: String,
    /// The dialect it is written in, and the types of its columns there, if it is another's.
    pub(crate) foreign: Option<(String, Vec<DataType>)>,
}

/// A view of the catalog as a query that can be read here.
///
/// # Errors
///
/// One that is written in no dialect that is near to ours.
pub(crate) fn of_metadata(name: &str, metadata: &ViewMetadata) -> Result<View> {
    let version = metadata.current_version();
    let schema = metadata.current_schema();
    let all = serde_json::to_value(version.representations()).unwrap_or_default();
    let all: Vec<(String, String)> = all
        .as_array()
        .into_iter()
        .flatten()
        .filter_map(|it| {
            let text = |key: &str| it.get(key).and_then(serde_json::Value::as_str);
            Some((text("dialect")?.to_lowercase(), text("sql")?.to_owned()))
        })
        .collect();
    let found = DIALECTS.iter().find_map(|wanted| all.iter().find(|it| it.0 == *wanted));
    let Some((dialect, query)) = found else {
        let there: Vec<&str> = all.iter().map(|it| it.0.as_str()).collect();
        return Err(Error::unsupported(format!(
            "view `{name}` is written for {}, which is not read here",
            there.join(", ")
        )));
    };
    let columns = schema.as_struct().fields().iter().map(|it| it.name.clone()).collect();
    let namespace = version
        .default_namespace()
        .as_ref()
        .iter()
        .map(|it| kept(it))
        .collect::<Vec<_>>()
        .join(".");
    let types =
        || shapes::schema(schema).fields().iter().map(|it| it.data_type().clone()).collect();
    let foreign = (!foreign::is_ours(dialect)).then(|| (dialect.clone(), types()));
    Ok(View { query: query.clone(), columns, namespace, foreign })
}

/// Views that a statement reads, known to the planner as long as this is there.
pub(crate) struct Put {
    lake: Arc<Lake>,
    name: (String, String),
    /// What was known by that name: the same view may be read by another that the statement reads.
    before: Option<Arc<dyn TableProvider>>,
}

impl Drop for Put {
    fn drop(&mut self) {
        let mut known = self.lake.views.lock().unwrap_or_else(PoisonError::into_inner);
        match self.before.take() {
            Some(before) => drop(known.insert(self.name.clone(), before)),
            None => drop(known.remove(&self.name)),
        }
    }
}

impl Lake {
    /// A view that the statement at work reads, planned.
    pub(crate) fn planned_view(
        &self,
        namespace: &str,
        name: &str,
    ) -> Option<Arc<dyn TableProvider>> {
        let known = self.views.lock().unwrap_or_else(PoisonError::into_inner);
        known.get(&(namespace.to_owned(), name.to_owned())).cloned()
    }

    /// Remembers a view of the session, or forgets it; whether there was one.
    pub(crate) fn set_temporary(&self, name: &str, view: Option<View>) -> bool {
        let mut all = self.temporary.lock().unwrap_or_else(PoisonError::into_inner);
        match view {
            Some(view) => all.insert(name.to_owned(), view).is_some(),
            None => all.remove(name).is_some(),
        }
    }

    /// The views of the session.
    pub(crate) fn temporaries(&self) -> BTreeMap<String, View> {
        self.temporary.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A view of the catalog; `None` if there is none of this name.
    pub(crate) async fn view(&self, view: &TableIdent) -> Result<Option<ViewMetadata>> {
        let warehouse = self.tables.warehouse();
        match warehouse.catalog.load_view(&warehouse.storage, view).await {
            Ok(found) => Ok(Some(found.metadata)),
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::TableNotFound
                        | ErrorKind::NamespaceNotFound
                        | ErrorKind::FeatureUnsupported
                ) =>
            {
                Ok(None)
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Session {
    /// Makes the views known that a statement names: those of the session, and with `all` those of catalogs too. Nothing, if it
    /// names none.
    pub(crate) async fn put_views(
        &self,
        state: &SessionState,
        statement: &Statement,
        all: bool,
        depth: usize,
    ) -> Result<Vec<Put>> {
        let temporaries = self.lake.temporaries();
        if temporaries.is_empty() && !all {
            return Ok(Vec::new());
        }
        let mut puts = Vec::new();
        for reference in state.resolve_table_references(statement)? {
            let name: Vec<String> = match &reference {
                TableReference::Bare { table } => vec![table.to_string()],
                TableReference::Partial { schema, table } => {
                    vec![NAME.to_owned(), schema.to_string(), table.to_string()]
                }
                TableReference::Full { catalog, schema, table } => {
                    vec![catalog.to_string(), schema.to_string(), table.to_string()]
                }
            };
            let Some((lake, key, view)) = self.view_of(&name, &temporaries, all).await? else {
                continue;
            };
            let shown = key.1.clone();
            let made = lake.making.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if made.is_some_and(|it| it == key) {
                return Err(Error::invalid(format!("view `{shown}` cannot read itself")));
            }
            if depth >= DEPTH_MAX {
                return Err(Error::invalid(format!(
                    "view `{shown}` reads itself, by way of others"
                )));
            }
            let plan = Box::pin(self.view_plan(state, &shown, &view, depth + 1)).await?;
            let provider: Arc<dyn TableProvider> = Arc::new(ViewTable::new(plan, Some(view.query)));
            let mut known = lake.views.lock().unwrap_or_else(PoisonError::into_inner);
            let before = known.insert(key.clone(), provider);
            drop(known);
            puts.push(Put { lake, name: key, before });
        }
        Ok(puts)
    }

    /// The view that a name means, and where the planner will look for it.
    async fn view_of(
        &self,
        name: &[String],
        temporaries: &BTreeMap<String, View>,
        all: bool,
    ) -> Result<Option<(Arc<Lake>, (String, String), View)>> {
        if let [name] = name {
            let key = (SEARCH.to_owned(), name.clone());
            if let Some(view) = temporaries.get(name) {
                return Ok(Some((Arc::clone(&self.lake), key, view.clone())));
            }
            if !all {
                return Ok(None);
            }
            let current = self.lake.current();
            let spaces = match current == SEARCH {
                true => icefield_catalog::warehouse::TIERS.map(str::to_owned).to_vec(),
                false => vec![current],
            };
            for space in spaces {
                if let Some(metadata) = self.lake.view(&ident(&space, name)?).await? {
                    let view = of_metadata(&format!("{space}.{name}"), &metadata)?;
                    return Ok(Some((Arc::clone(&self.lake), key, view)));
                }
            }
            return Ok(None);
        }
        let [catalog, space, name] = name else { return Ok(None) };
        if !all || name.contains(['@', '$']) || space.starts_with('$') {
            return Ok(None);
        }
        let attached = self.attached.lake(catalog);
        let lake = attached.clone().unwrap_or_else(|| Arc::clone(&self.lake));
        let Ok(named) = ident(space, name) else { return Ok(None) };
        let Some(metadata) = lake.view(&named).await? else { return Ok(None) };
        if attached.is_some() {
            return Err(Error::unsupported(format!(
                "`{catalog}.{space}.{name}` is a view of another catalog"
            ))
            .with_hint("its names would be looked for in this one; open its catalog itself"));
        }
        let view = of_metadata(&format!("{space}.{name}"), &metadata)?;
        Ok(Some((lake, (space.clone(), name.clone()), view)))
    }

    /// The plan of a view's query, with the columns of the view.
    async fn view_plan(
        &self,
        state: &SessionState,
        name: &str,
        view: &View,
        depth: usize,
    ) -> Result<LogicalPlan> {
        let of_view = |mut error: Error| {
            error.message = format!("view `{name}`: {}", error.message);
            // Its places are in another text.
            error.place = None;
            error
        };
        let plan = self.query_plan(state, view, depth).await.map_err(of_view)?;
        if view.columns.is_empty() {
            return Ok(plan);
        }
        let own = plan.schema().columns();
        if own.len() != view.columns.len() {
            return Err(Error::invalid(format!(
                "view `{name}` has {} columns, and its query gives {} by now",
                view.columns.len(),
                own.len()
            ))
            .with_hint("CREATE OR REPLACE VIEW makes it anew"));
        }
        let mut own: Vec<Expr> = own.into_iter().map(Expr::Column).collect();
        if let Some((dialect, types)) = &view.foreign {
            foreign::refuse(&plan, dialect).map_err(of_view)?;
            own = foreign::typed(own, &plan, types, dialect).map_err(of_view)?;
        }
        let named = own.into_iter().zip(&view.columns);
        let named = named.map(|(column, name)| column.alias(name.clone()));
        Ok(LogicalPlanBuilder::from(plan).project(named.collect::<Vec<_>>())?.build()?)
    }

    /// The plan of a query in a namespace of its own.
    pub(crate) async fn query_plan(
        &self,
        state: &SessionState,
        view: &View,
        depth: usize,
    ) -> Result<LogicalPlan> {
        let mut statements = parser::tokens(&view.query)?;
        let mut tokens = match statements.len() {
            1 => statements.remove(0),
            _ => return Err(Error::invalid("it is not one query")),
        };
        let made = Box::pin(self.expand_changes(&mut tokens, &view.namespace)).await?;
        let planned = async {
            let (mut tokens, found) = parser::time_travel(tokens)?;
            self.resolve_versions(&mut tokens, found).await?;
            let mut statement = self.parse_in(tokens, &view.namespace)?;
            if let Some((dialect, _)) = &view.foreign
                && let Statement::Statement(inner) = &mut statement
            {
                let namespaces = self.lake.namespaces().await?;
                foreign::translate(inner.as_mut(), dialect, &namespaces)?;
            }
            if view.namespace != SEARCH
                && let Statement::Statement(inner) = &mut statement
            {
                let others: Vec<String> = self.lake.temporaries().into_keys().collect();
                names::qualify(inner.as_mut(), &view.namespace, &others);
            }
            let is_query = matches!(&statement, Statement::Statement(inner)
                if matches!(**inner, ast::Statement::Query(_)));
            match is_query {
                true => self.plan_within(state, statement, depth).await,
                false => Err(Error::invalid("it is no query")),
            }
        }
        .await;
        for name in &made {
            self.lake.forget(name);
        }
        planned
    }
}
