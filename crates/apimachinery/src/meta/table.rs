//! `meta.k8s.io/v1` Table: rows for people, as `kubectl get` shows them.

use crate::value::Value;

use super::*;

wire! {
    /// A table of objects.
    Table {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        metadata: ListMeta = "always" "null_default",
        column_definitions: Vec<TableColumnDefinition> = "always" "null_default",
        rows: Vec<TableRow> = "always" "null_default",
    }

    /// What a column holds.
    TableColumnDefinition {
        name: String = "always" "null_default",
        /// An OpenAPI type: `string`, `integer`, `number`, `boolean`, `date`.
        #[serde(rename = "type")]
        type_: String = "always" "null_default",
        format: String = "always" "null_default",
        description: String = "always" "null_default",
        /// 0 is shown always, above only when wide output is asked for.
        priority: i32 = "always" "null_default",
    }

    /// One object.
    TableRow {
        cells: Vec<Value> = "always" "null_default",
        conditions: Vec<TableRowCondition> = "omit" "null_default",
        /// The object, its metadata or nothing, as the request asked.
        object: Option<Value> = "omit" "null_default",
    }

    /// A mark on a row, such as `Completed`.
    TableRowCondition {
        #[serde(rename = "type")]
        type_: String = "always" "null_default",
        status: String = "always" "null_default",
        reason: String = "omit" "null_default",
        message: String = "omit" "null_default",
    }
}
