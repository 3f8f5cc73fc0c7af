//! What a new cluster has.
