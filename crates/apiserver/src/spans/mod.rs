//! Spans of requests, for a collector of traces (`--tracing-config-file`): upstream's names and attributes, sampled as
//! OpenTelemetry samples, told by [`otlp`]. Without a file nothing is made; the context of a trace that a request came
//! with is handed on to those who are asked because of it ([`w3c`]), as upstream does it.

mod config;
#[allow(clippy::all, clippy::pedantic, unreachable_pub, missing_docs, dead_code, reason = "generated")]
mod generated;
mod http;
mod otlp;
mod w3c;

pub use config::Configuration;
pub(crate) use http::{Asking, Served, began, verb};
pub(crate) use w3c::SpanContext;

use crate::context;
use crate::egress::Egress;
use aws_lc_rs::rand;
use generated::any_value::Value;
use generated::{AnyValue, Event, KeyValue, Span as Data, SpanKind, Status, StatusCode};
use std::pin::pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

/// By which of upstream's packages spans are made.
const HTTP: &str = "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp";
const COMPONENT: &str = "k8s.io/component-base/tracing";
const FILTER: &str = "k8s.op/apiserver/pkg/endpoints/filterlatency";
/// That a link or span says whether its parent is elsewhere, and that it is.
const KNOWS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// Makes spans of what is sampled.
pub struct Tracer {
    /// Traces whose number is below are sampled.
    bound: u64,
    made: mpsc::Sender<otlp::Made>,
}

impl std::fmt::Debug for Tracer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Tracer").finish_non_exhaustive()
    }
}

impl Tracer {
    /// One that sends what it makes to the collector of a file, in the name of the server called `id`; and what sends it.
    pub fn new(
        configuration: &Configuration,
        id: &str,
        egress: Arc<Egress>,
        shutdown: CancellationToken,
    ) -> Result<(Arc<Self>, impl Future<Output = ()> + Send + use<>), String> {
        configuration.check()?;
        let channel = otlp::channel(configuration.endpoint()?, egress);
        let resource = vec![text("service.instance.id", id), text("service.name", "apiserver")];
        let (made, queue) = mpsc::channel(otlp::KEPT);
        let tracer = Tracer { bound: bound(configuration.rate()), made };
        Ok((Arc::new(tracer), otlp::run(channel, resource, queue, shutdown)))
    }

    /// Whether a trace that begins here is sampled.
    fn samples(&self, trace: &[u8; 16]) -> bool {
        let low: [u8; 8] = std::array::from_fn(|at| trace[8 + at]);
        u64::from_be_bytes(low) >> 1 < self.bound
    }
}

pub(crate) fn text(key: &str, value: impl Into<String>) -> KeyValue {
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::StringValue(value.into())) }) }
}

pub(crate) fn number(key: &str, value: impl TryInto<i64>) -> KeyValue {
    let value = value.try_into().unwrap_or(i64::MAX);
    KeyValue { key: key.to_owned(), value: Some(AnyValue { value: Some(Value::IntValue(value)) }) }
}

fn nanoseconds(at: SystemTime) -> u64 {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_nanos()).unwrap_or(u64::MAX)
}

/// Below which number so many of a million traces are.
fn bound(rate: u64) -> u64 {
    (rate << 32) / 1_000_000 * (1 << 31)
}

/// A number that nobody else has.
fn unique<const N: usize>() -> [u8; N] {
    let mut id = [0; N];
    // Without chance there are no ids; spans are then wrong, and nothing else.
    let _ = rand::fill(&mut id);
    id
}

/// Where in a trace the work under way is.
#[derive(Debug, Clone)]
pub(crate) struct Current {
    pub context: Arc<SpanContext>,
    /// Who makes spans of what is done, if anybody does.
    tracer: Option<Arc<Tracer>>,
    /// The request that all is about.
    request: Arc<About>,
}

/// A request, in the attributes of its parts.
#[derive(Debug, Default)]
struct About {
    audit_id: String,
    client: String,
}

impl Current {
    /// Of a request that came with a context, where no spans are made.
    pub(crate) fn passed(context: SpanContext) -> Self {
        Current { context: Arc::new(context), tracer: None, request: Arc::default() }
    }

    /// Does some work there.
    pub(crate) async fn around<F: Future>(self, work: F) -> F::Output {
        let (mut work, mut current) = (pin!(work), Some(self));
        std::future::poll_fn(move |cx| {
            let before = context::stand(current.take());
            let polled = work.as_mut().poll(cx);
            // What was entered meanwhile is entered still.
            current = context::stand(before);
            match polled {
                Poll::Ready(output) => Poll::Ready(output),
                Poll::Pending => Poll::Pending,
            }
        })
        .await
    }
}

/// Tells whoever is asked now where in a trace it is asked.
pub(crate) fn inject(headers: &mut ::http::HeaderMap) {
    if let Some(current) = context::stands() {
        w3c::inject(&current.context, headers);
    }
}

/// Something that is done, from now on until this is gone; nothing, where nothing is made of it.
#[derive(Debug, Default)]
pub(crate) struct Span(Option<Box<Recording>>);

#[derive(Debug)]
struct Recording {
    current: Current,
    scope: &'static str,
    data: Data,
}

impl Span {
    /// A span within a trace, or at the beginning of one.
    fn begin(
        tracer: &Arc<Tracer>,
        parent: Option<&SpanContext>,
        kind: SpanKind,
        scope: &'static str,
        began: SystemTime,
        request: Arc<About>,
    ) -> (Self, Current) {
        let trace = parent.map_or_else(unique, |parent| parent.trace);
        let context = SpanContext {
            trace,
            span: unique(),
            sampled: parent.map_or_else(|| tracer.samples(&trace), |parent| parent.sampled),
            state: parent.map(|parent| parent.state.clone()).unwrap_or_default(),
            baggage: parent.and_then(|parent| parent.baggage.clone()),
            remote: false,
        };
        let sampled = context.sampled;
        let current = Current { context: Arc::new(context), tracer: Some(tracer.clone()), request };
        if !sampled {
            return (Span(None), current);
        }
        let remote = parent.is_some_and(|parent| parent.remote);
        let data = Data {
            trace_id: trace.to_vec(),
            span_id: current.context.span.to_vec(),
            trace_state: current.context.state.clone(),
            parent_span_id: parent.map(|parent| parent.span.to_vec()).unwrap_or_default(),
            kind: kind.into(),
            start_time_unix_nano: nanoseconds(began),
            flags: 1 | KNOWS_REMOTE | if remote { IS_REMOTE } else { 0 },
            ..Data::default()
        };
        (Span(Some(Box::new(Recording { current: current.clone(), scope, data }))), current)
    }

    /// A part of what is under way.
    fn within(kind: SpanKind, scope: &'static str, began: impl FnOnce() -> SystemTime) -> Self {
        let Some(current) = context::stands() else { return Span(None) };
        match &current.tracer {
            Some(tracer) if current.context.sampled => {
                Span::begin(tracer, Some(&current.context), kind, scope, began(), current.request.clone()).0
            }
            _ => Span(None),
        }
    }

    /// A part of what is under way, which others are beside.
    pub(crate) fn part(name: &str, attributes: impl FnOnce() -> Vec<KeyValue>) -> Self {
        Span::part_of(COMPONENT, name, |_| attributes())
    }

    fn part_of(scope: &'static str, name: &str, attributes: impl FnOnce(&About) -> Vec<KeyValue>) -> Self {
        let mut span = Span::within(SpanKind::Internal, scope, SystemTime::now);
        if let Some(recording) = &mut span.0 {
            recording.data.name = name.to_owned();
            recording.data.attributes = attributes(&recording.current.request);
        }
        span
    }

    /// Something that happens in its course.
    pub(crate) fn event(&mut self, name: &str) {
        if let Some(recording) = &mut self.0 {
            let time_unix_nano = nanoseconds(SystemTime::now());
            recording.data.events.push(Event {
                time_unix_nano,
                name: name.to_owned(),
                attributes: Vec::new(),
            });
        }
    }

    fn set(&mut self, attribute: KeyValue) {
        if let Some(recording) = &mut self.0 {
            recording.data.attributes.push(attribute);
        }
    }

    fn fail(&mut self, message: String) {
        if let Some(recording) = &mut self.0 {
            recording.data.status = Some(Status { message, code: StatusCode::Error.into() });
        }
    }

    /// Does some work that is a part of it.
    pub(crate) async fn around<F: Future>(&self, work: F) -> F::Output {
        match &self.0 {
            Some(recording) => recording.current.clone().around(work).await,
            None => work.await,
        }
    }
}

impl Drop for Span {
    fn drop(&mut self) {
        let Some(recording) = self.0.take() else { return };
        let Recording { current, scope, mut data } = *recording;
        data.end_time_unix_nano = nanoseconds(SystemTime::now());
        if let Some(tracer) = &current.tracer {
            // A collector that is too slow misses spans, and holds nobody up.
            let _ = tracer.made.try_send((scope, data));
        }
    }
}

/// A part that all is a part of which follows, until this is gone.
pub(crate) struct Entered {
    /// Where the work was before; it goes back there first, and then the span ends.
    before: Option<Current>,
    span: Span,
}

/// Enters a part of what is under way.
fn enter(
    scope: &'static str,
    name: &str,
    attributes: impl FnOnce(&About) -> Vec<KeyValue>,
) -> Option<Entered> {
    let span = Span::part_of(scope, name, attributes);
    let current = span.0.as_ref()?.current.clone();
    Some(Entered { before: context::stand(Some(current)), span })
}

/// Enters one of the stations.
pub(crate) fn station(name: &str) -> Option<Entered> {
    enter(FILTER, name, |_| Vec::new())
}

impl Drop for Entered {
    fn drop(&mut self) {
        context::stand(self.before.take());
        drop(std::mem::take(&mut self.span));
    }
}

/// What the store has just done, as a part of what is under way.
pub(crate) fn stored(name: &str, began: Instant, [group, resource]: [&str; 2]) {
    let mut span = Span::within(SpanKind::Internal, COMPONENT, || SystemTime::now() - began.elapsed());
    if let Some(recording) = &mut span.0 {
        recording.data.name = name.to_owned();
        let audit_id = text("audit-id", &*recording.current.request.audit_id);
        recording.data.attributes = vec![audit_id, text("group", group), text("resource", resource)];
    }
}

#[cfg(test)]
mod tests;
