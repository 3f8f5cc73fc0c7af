//! The options of requests, as they stand in bodies and query strings. [`super::query`] reads them
//! from query strings.

use super::*;

wire! {
    /// How to delete.
    DeleteOptions {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        grace_period_seconds: Option<i64> = "omit" "null_default",
        preconditions: Option<Preconditions> = "omit" "null_default",
        orphan_dependents: Option<bool> = "omit" "null_default",
        /// `Orphan`, `Background` or `Foreground`.
        propagation_policy: Option<String> = "omit" "null_default",
        dry_run: Vec<String> = "omit" "null_list",
        ignore_store_read_error_with_cluster_breaking_potential: Option<bool> = "omit" "null_default",
    }

    /// What must hold for a change to go ahead.
    Preconditions {
        uid: Option<String> = "omit" "null_default",
        resource_version: Option<String> = "omit" "null_default",
    }

    /// How to get one object.
    GetOptions {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        resource_version: String = "omit" "null_default",
    }

    /// What to list or watch.
    ListOptions {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        label_selector: String = "omit" "null_default",
        field_selector: String = "omit" "null_default",
        watch: bool = "omit" "null_default",
        allow_watch_bookmarks: bool = "omit" "null_default",
        resource_version: String = "omit" "null_default",
        /// `NotOlderThan` or `Exact`.
        resource_version_match: String = "omit" "null_default",
        timeout_seconds: Option<i64> = "omit" "null_default",
        limit: i64 = "omit" "null_default",
        #[serde(rename = "continue")]
        continue_token: String = "omit" "null_default",
        send_initial_events: Option<bool> = "omit" "null_default",
        shard_selector: String = "omit" "null_default",
    }

    /// How to create.
    CreateOptions {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        dry_run: Vec<String> = "omit" "null_list",
        field_manager: String = "omit" "null_default",
        /// `Ignore`, `Warn` or `Strict`.
        field_validation: String = "omit" "null_default",
    }

    /// How to update.
    UpdateOptions {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        dry_run: Vec<String> = "omit" "null_list",
        field_manager: String = "omit" "null_default",
        field_validation: String = "omit" "null_default",
    }

    /// How to patch or apply.
    PatchOptions {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        dry_run: Vec<String> = "omit" "null_list",
        force: Option<bool> = "omit" "null_default",
        field_manager: String = "omit" "null_default",
        field_validation: String = "omit" "null_default",
    }

    /// How to show a table.
    TableOptions {
        kind: String = "omit" "null_default",
        api_version: String = "omit" "null_default",
        /// `None`, `Metadata` (the default) or `Object`.
        include_object: String = "omit" "null_default",
    }
}
