//! Whole-cluster tests, driven by real kubectl.
