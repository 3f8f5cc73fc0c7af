//! Queue, snapshot and framework, one file per plugin.
