//! Routes and VXLAN between nodes, NetworkPolicy.
