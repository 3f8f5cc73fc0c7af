//! Filters, authentication, authorization, admission, verb handlers, registry, watch cache.
