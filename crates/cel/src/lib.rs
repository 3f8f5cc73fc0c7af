//! Kubernetes' CEL: parse, type-check, cost, evaluate over `Value`.
