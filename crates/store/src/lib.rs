//! Revisioned keys and bytes: the one contract, and its engines.
