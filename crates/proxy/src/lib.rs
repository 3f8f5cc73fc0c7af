//! Services on the node: plans a rule set and applies the difference over netlink.
