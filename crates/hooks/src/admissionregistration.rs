//! Hooks of `admissionregistration.k8s.io`: the configurations of webhooks.

use super::admissionregistration_validation::{validate_webhooks, validate_webhooks_update};
use super::plain::Plain;
use super::templates::{AGE, NAME};
use super::tree::{absent_or, column, each, list, name, object_age, with};
use super::{Column, Row};
use apimachinery::json;
use apimachinery::time::Time;
use apimachinery::value::Value;

const GROUP: &str = "admissionregistration.k8s.io";

pub(super) const STRATEGIES: &[Row] = &[
    (GROUP, "MutatingWebhookConfiguration", &MUTATING),
    (GROUP, "ValidatingWebhookConfiguration", &VALIDATING),
];

const COLUMNS: &[Column] = &[
    NAME,
    column(
        "Webhooks",
        "integer",
        0,
        "Webhooks indicates the number of webhooks registered in this configuration",
    ),
    AGE,
];

fn cells(configuration: &Value, now: Time) -> Vec<Value> {
    vec![
        name(configuration),
        list(configuration, &["webhooks"]).len().into(),
        object_age(configuration, now).into(),
    ]
}

fn default_webhooks(configuration: &mut Value) {
    each(configuration, "webhooks", |webhook| {
        absent_or(webhook, "failurePolicy", "Fail");
        absent_or(webhook, "matchPolicy", "Equivalent");
        absent_or(webhook, "namespaceSelector", json!({}));
        absent_or(webhook, "objectSelector", json!({}));
        absent_or(webhook, "timeoutSeconds", 10);
        each(webhook, "rules", |rule| absent_or(rule, "scope", "*"));
        with(webhook, "clientConfig", |client| {
            with(client, "service", |service| absent_or(service, "port", 443));
        });
    });
}

static VALIDATING: Plain = Plain {
    default: default_webhooks,
    validate_create: |webhooks, _| validate_webhooks(webhooks),
    validate_update: |new, old, _| validate_webhooks_update(new, old),
    columns: COLUMNS,
    cells,
    has_generation: true,
    ..Plain::NEW
};

static MUTATING: Plain = Plain {
    default: |configuration| {
        default_webhooks(configuration);
        each(configuration, "webhooks", |webhook| absent_or(webhook, "reinvocationPolicy", "Never"));
    },
    validate_create: |webhooks, _| validate_webhooks(webhooks),
    validate_update: |new, old, _| validate_webhooks_update(new, old),
    columns: COLUMNS,
    cells,
    has_generation: true,
    ..Plain::NEW
};
