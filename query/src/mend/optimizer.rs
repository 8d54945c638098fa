//! DataFusion's optimizers without what gives wrong answers in version 54.
//!
//! | what it does | what comes of it | here |
//! |---|---|---|
//! | takes a column for unique, in the wrong place, after a computed one | DISTINCT, GROUP BY and ORDER BY lose columns | [`Forget`]: nothing is taken for unique |
//! | drops GROUP BY of a constant | a row where there are none to group | [`NotAll`]: not the last |
//! | pushes filters down by the names of columns | a filter of one side of a join filters the other | [`Careful`]: not where names come twice |
//! | puts subqueries above a sort | nobody asks for the order any more, and the sort goes | [`Ordered`] |

use std::fmt;
use std::sync::Arc;

use datafusion::common::config::ConfigOptions;
use datafusion::common::tree_node::{Transformed, TransformedResult, TreeNode};
use datafusion::common::{DFSchemaRef, FunctionalDependencies, Result};
use datafusion::execution::TaskContext;
use datafusion::logical_expr::{Expr, LogicalPlan};
use datafusion::optimizer::optimizer::Optimizer;
use datafusion::optimizer::{ApplyOrder, OptimizerConfig, OptimizerRule};
use datafusion::physical_optimizer::PhysicalOptimizerRule;
use datafusion::physical_optimizer::optimizer::PhysicalOptimizer;
use datafusion::physical_optimizer::output_requirements::OutputRequirements;
use datafusion::physical_plan::{
    DisplayAs, DisplayFormatType, ExecutionPlan, PlanProperties, SendableRecordBatchStream,
};

/// The rules for logical plans.
pub(crate) fn rules() -> Vec<Arc<dyn OptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn OptimizerRule + Send + Sync>> = Vec::new();
    for rule in Optimizer::new().rules {
        match rule.name() {
            "eliminate_group_by_constant" => {
                rules.push(Arc::new(NotAll(rule)));
                continue;
            }
            // Those that ask what is unique.
            "replace_distinct_aggregate" | "eliminate_duplicated_expr" | "optimize_projections" => {
                rules.push(Arc::new(Forget));
            }
            _ => {}
        }
        rules.push(rule);
    }
    rules
}

/// The rules for physical plans.
pub(crate) fn physical_rules() -> Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> {
    let mut rules: Vec<Arc<dyn PhysicalOptimizerRule + Send + Sync>> = vec![Arc::new(Ordered)];
    for rule in PhysicalOptimizer::new().rules {
        rules.push(match rule.name().starts_with("FilterPushdown") {
            true => Arc::new(Careful(rule)),
            false => rule,
        });
    }
    rules
}

/// Drops constants from a GROUP BY that has a column beside them. Without any group a query over no rows has one row.
#[derive(Debug)]
struct NotAll(Arc<dyn OptimizerRule + Send + Sync>);

impl OptimizerRule for NotAll {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn apply_order(&self) -> Option<ApplyOrder> {
        self.0.apply_order()
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        config: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        let is_column = |it: &Expr| matches!(it, Expr::Column(_));
        match &plan {
            LogicalPlan::Aggregate(it) if it.group_expr.iter().any(is_column) => {
                self.0.rewrite(plan, config)
            }
            _ => Ok(Transformed::no(plan)),
        }
    }
}

/// Forgets which columns are unique: DataFusion counts them wrongly in a projection that computes something before
/// them, and takes a column that is unique on one side of a join for unique in the join.
#[derive(Debug)]
struct Forget;

impl OptimizerRule for Forget {
    fn name(&self) -> &str {
        "forget_dependencies"
    }

    fn supports_rewrite(&self) -> bool {
        true
    }

    fn rewrite(
        &self,
        plan: LogicalPlan,
        _: &dyn OptimizerConfig,
    ) -> Result<Transformed<LogicalPlan>> {
        // It changes nothing that another pass would have to look at.
        let plan = plan.transform_up_with_subqueries(|plan| Ok(Transformed::no(forgotten(plan)?)));
        plan.data().map(Transformed::no)
    }
}

fn forgotten(mut plan: LogicalPlan) -> Result<LogicalPlan> {
    let schema = match &mut plan {
        LogicalPlan::Projection(it) => &mut it.schema,
        LogicalPlan::Aggregate(it) => &mut it.schema,
        LogicalPlan::SubqueryAlias(it) => &mut it.schema,
        LogicalPlan::Join(it) => &mut it.schema,
        LogicalPlan::Window(it) => &mut it.schema,
        LogicalPlan::Union(it) => &mut it.schema,
        LogicalPlan::Unnest(it) => &mut it.schema,
        _ => return Ok(plan),
    };
    forget(schema)?;
    Ok(plan)
}

fn forget(schema: &mut DFSchemaRef) -> Result<()> {
    if !schema.functional_dependencies().is_empty() {
        let bare = schema.as_ref().clone();
        *schema = Arc::new(bare.with_functional_dependencies(FunctionalDependencies::empty())?);
    }
    Ok(())
}

/// Asks for the order of what stands below subqueries at the top of a plan, where nobody else does.
#[derive(Debug)]
struct Ordered;

impl PhysicalOptimizerRule for Ordered {
    fn name(&self) -> &str {
        "ordered_below_subqueries"
    }

    fn schema_check(&self) -> bool {
        true
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        if plan.name() != "ScalarSubqueryExec" {
            return Ok(plan);
        }
        let mut children: Vec<_> = plan.children().into_iter().cloned().collect();
        if let Some(rows) = children.first_mut() {
            *rows = OutputRequirements::new_add_mode().optimize(Arc::clone(rows), config)?;
        }
        plan.with_new_children(children)
    }
}

/// Pushes filters down, but not through plans in which two columns have one name: it finds columns by their names.
#[derive(Debug)]
struct Careful(Arc<dyn PhysicalOptimizerRule + Send + Sync>);

impl PhysicalOptimizerRule for Careful {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn schema_check(&self) -> bool {
        self.0.schema_check()
    }

    fn optimize(
        &self,
        plan: Arc<dyn ExecutionPlan>,
        config: &ConfigOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let shielded = plan.transform_up(|plan| {
            Ok(match has_names_twice(&plan) {
                true => Transformed::yes(Arc::new(Shield(plan)) as Arc<dyn ExecutionPlan>),
                false => Transformed::no(plan),
            })
        });
        let pushed = self.0.optimize(shielded.data()?, config)?;
        let bare = pushed.transform_up(|plan| {
            Ok(match plan.downcast_ref::<Shield>() {
                Some(Shield(inner)) => Transformed::yes(Arc::clone(inner)),
                None => Transformed::no(plan),
            })
        });
        bare.data()
    }
}

fn has_names_twice(plan: &Arc<dyn ExecutionPlan>) -> bool {
    let schema = plan.schema();
    let mut seen = std::collections::HashSet::new();
    schema.fields().iter().any(|it| !seen.insert(it.name().as_str()))
}

/// A plan through which no filter goes down. It is there only while filters do.
#[derive(Debug)]
struct Shield(Arc<dyn ExecutionPlan>);

impl DisplayAs for Shield {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Shield")
    }
}

impl ExecutionPlan for Shield {
    fn name(&self) -> &str {
        "Shield"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        self.0.properties()
    }

    fn maintains_input_order(&self) -> Vec<bool> {
        vec![true]
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.0]
    }

    fn with_new_children(
        self: Arc<Self>,
        children: Vec<Arc<dyn ExecutionPlan>>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let inner = children.into_iter().next().unwrap_or_else(|| Arc::clone(&self.0));
        Ok(Arc::new(Self(inner)))
    }

    fn execute(
        &self,
        partition: usize,
        task: Arc<TaskContext>,
    ) -> Result<SendableRecordBatchStream> {
        self.0.execute(partition, task)
    }
}
