//! Running CNI plugins, and the built-in pod network.
