//! The table, and its readers.
