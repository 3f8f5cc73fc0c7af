//! Keys, certificates, signing, kubeconfig, rotation.
