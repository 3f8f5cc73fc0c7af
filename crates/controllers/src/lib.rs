//! The controllers of the controller manager, one folder each.
