//! Pod workers, probes, volumes and node status over the CRI.
