//! The rows of the built-in kinds, their typed structs, and one file of hooks per kind.
