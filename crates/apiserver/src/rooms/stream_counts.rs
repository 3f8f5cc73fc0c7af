//! How connections to kubelets are handed on, counted.

use component::metrics::{CounterVec, Opts, Registry, Stability};
use std::sync::{Arc, OnceLock};

/// Upstream's counts of exec, attach and port-forward; there from the first time that one is asked for.
#[derive(Clone, Default)]
pub struct Counts(Arc<OnceLock<Families>>);

struct Families {
    routed: CounterVec,
    translated: CounterVec,
}

impl Counts {
    fn families(&self, registry: &Registry) -> &Families {
        let counter = |name: &str, help: &str, labels: &[&str]| {
            registry.counter_vec(Opts { name, help, stability: Stability::Alpha }, labels)
        };
        self.0.get_or_init(|| Families {
            routed: counter(
                "apiserver_websocket_streaming_requests_total",
                "Total number of WebSocket streaming requests (exec/attach/portforward) routed by the API server, labeled by \
                 subresource and proxy_type. proxy_type is proxied_to_kubelet when the kubelet handles the request directly; \
                 otherwise translated_at_apiserver.",
                &["subresource", "proxy_type"],
            ),
            translated: counter(
                "apiserver_stream_translator_requests_total",
                "Total number of requests that were handled by the StreamTranslatorProxy, which processes streaming \
                 RemoteCommand/V5",
                &["code"],
            ),
        })
    }

    /// One that the kubelet speaks to the client of.
    pub(super) fn handed(&self, registry: &Registry, subresource: &str) {
        self.families(registry).routed.with(&[subresource, "proxied_to_kubelet"]).inc();
    }

    /// One that the API server has ended itself.
    pub(super) fn ended(&self, registry: &Registry, subresource: &str, code: &str) {
        let families = self.families(registry);
        families.routed.with(&[subresource, "translated_at_apiserver"]).inc();
        families.translated.with(&[code]).inc();
    }
}
