//! The cluster DNS, answered from the informers.
