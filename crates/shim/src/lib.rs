//! The small static program of the node: shim, container creator, exec helper and pod init; and its protocol.
