//! Pure knowledge that two rooms need: pod requests and QoS, taints, affinity, template hash, ready conditions.
