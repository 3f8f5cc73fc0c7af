//! Hollow nodes: thousands of simulated kubelets against any API server.
