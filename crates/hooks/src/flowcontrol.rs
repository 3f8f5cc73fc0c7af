//! Hooks of `flowcontrol.apiserver.k8s.io`.

use super::Row;
use super::flowcontrol_validation;
use super::plain::Plain;
use super::templates::{AGE, NAME};
use super::tree::{absent_or, column, int, list, name, object_age, or, text, with};
use apimachinery::value::Value;

const GROUP: &str = "flowcontrol.apiserver.k8s.io";

pub(super) const STRATEGIES: &[Row] =
    &[(GROUP, "FlowSchema", &FLOW_SCHEMAS), (GROUP, "PriorityLevelConfiguration", &PRIORITY_LEVELS)];

static FLOW_SCHEMAS: Plain = Plain {
    default: |schema| with(schema, "spec", |spec| or(spec, "matchingPrecedence", 1000)),
    validate: flowcontrol_validation::validate_schema,
    has_generation: true,
    columns: &[
        NAME,
        column(
            "PriorityLevel",
            "string",
            0,
            "`name` is the name of the priority level configuration being referenced Required.",
        ),
        column(
            "MatchingPrecedence",
            "string",
            0,
            "`matchingPrecedence` is used to choose among the FlowSchemas that match a given request. The chosen FlowSchema is among those with the numerically lowest (which we take to be logically highest) MatchingPrecedence.  Each MatchingPrecedence value must be ranged in [1,10000]. Note that if the precedence is not specified, it will be set to 1000 as default.",
        ),
        column(
            "DistinguisherMethod",
            "string",
            0,
            "`distinguisherMethod` defines how to compute the flow distinguisher for requests that match this schema. `nil` specifies that the distinguisher is disabled and thus will always be the empty string.",
        ),
        AGE,
        column("MissingPL", "string", 0, "references a broken or non-existent PriorityLevelConfiguration"),
    ],
    cells: |schema, now| {
        let method = match text(schema, &["spec", "distinguisherMethod", "type"]) {
            "" => "<none>",
            method => method,
        };
        let mut conditions = list(schema, &["status", "conditions"]).iter();
        let dangling = conditions.find(|c| text(c, &["type"]) == "Dangling");
        vec![
            name(schema),
            text(schema, &["spec", "priorityLevelConfiguration", "name"]).into(),
            int(schema, &["spec", "matchingPrecedence"]).into(),
            method.into(),
            object_age(schema, now).into(),
            dangling.map_or("?", |c| text(c, &["status"])).into(),
        ]
    },
    ..Plain::NEW
};

static PRIORITY_LEVELS: Plain = Plain {
    default: |level| {
        with(level, "spec", |spec| {
            with(spec, "exempt", |exempt| {
                absent_or(exempt, "nominalConcurrencyShares", 0);
                absent_or(exempt, "lendablePercent", 0);
            });
            with(spec, "limited", |limited| {
                absent_or(limited, "nominalConcurrencyShares", 30);
                absent_or(limited, "lendablePercent", 0);
                with(limited, "limitResponse", |response| {
                    with(response, "queuing", |queuing| {
                        or(queuing, "queues", 64);
                        or(queuing, "handSize", 8);
                        or(queuing, "queueLengthLimit", 50);
                    });
                });
            });
        });
    },
    validate: flowcontrol_validation::validate_level,
    has_generation: true,
    columns: &[
        NAME,
        column(
            "Type",
            "string",
            0,
            "`type` indicates whether this priority level is subject to limitation on request execution.  A value of `\"Exempt\"` means that requests of this priority level are not subject to a limit (and thus are never queued) and do not detract from the capacity made available to other priority levels.  A value of `\"Limited\"` means that (a) requests of this priority level _are_ subject to limits and (b) some of the server's limited capacity is made available exclusively to this priority level. Required.",
        ),
        column(
            "NominalConcurrencyShares",
            "string",
            0,
            "`nominalConcurrencyShares` (NCS) contributes to the computation of the NominalConcurrencyLimit (NominalCL) of this level. This is the number of execution seats available at this priority level. This is used both for requests dispatched from this priority level as well as requests dispatched from other priority levels borrowing seats from this level. The server's concurrency limit (ServerCL) is divided among the Limited priority levels in proportion to their NCS values:\n\nNominalCL(i)  = ceil( ServerCL * NCS(i) / sum_ncs ) sum_ncs = sum[priority level k] NCS(k)\n\nBigger numbers mean a larger nominal concurrency limit, at the expense of every other priority level.\n\nIf not specified, this field defaults to a value of 30.\n\nSetting this field to zero supports the construction of a \"jail\" for this priority level that is used to hold some request(s)",
        ),
        column(
            "Queues",
            "string",
            0,
            "`queues` is the number of queues for this priority level. The queues exist independently at each apiserver. The value must be positive.  Setting it to 1 effectively precludes shufflesharding and thus makes the distinguisher method of associated flow schemas irrelevant.  This field has a default value of 64.",
        ),
        column(
            "HandSize",
            "string",
            0,
            "`handSize` is a small positive number that configures the shuffle sharding of requests into queues.  When enqueuing a request at this priority level the request's flow identifier (a string pair) is hashed and the hash value is used to shuffle the list of queues and deal a hand of the size specified here.  The request is put into one of the shortest queues in that hand. `handSize` must be no larger than `queues`, and should be significantly smaller (so that a few heavy flows do not saturate most of the queues).  See the user-facing documentation for more extensive guidance on setting this field.  This field has a default value of 8.",
        ),
        column(
            "QueueLengthLimit",
            "string",
            0,
            "`queueLengthLimit` is the maximum number of requests allowed to be waiting in a given queue of this priority level at a time; excess requests are rejected.  This value must be positive.  If not specified, it will be defaulted to 50.",
        ),
        AGE,
    ],
    cells: |level, now| {
        let limited = &level["spec"]["limited"];
        let queuing = &limited["limitResponse"]["queuing"];
        let or_none = |value: &Value| if value.is_null() { Value::from("<none>") } else { value.clone() };
        vec![
            name(level),
            text(level, &["spec", "type"]).into(),
            or_none(&limited["nominalConcurrencyShares"]),
            or_none(&queuing["queues"]),
            or_none(&queuing["handSize"]),
            or_none(&queuing["queueLengthLimit"]),
            object_age(level, now).into(),
        ]
    },
    ..Plain::NEW
};
