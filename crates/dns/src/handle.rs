//! From the bytes of a request to the bytes of an answer: at once where the zone or the cache knows, else by way of the
//! upstreams.

use crate::answer::{Answer, Question, Reply, Zone, is_arpa};
use crate::forward::{self, Failure, Forwarder};
use crate::metrics::{Metrics, Plugin, ServerMetrics, Transport};
use crate::wire::{self, Asked, Stored};
use crate::zone::Index;
use component::health::Latch;
use hickory_proto::op::{Message, MessageType, Metadata, OpCode, Query, ResponseCode};
use hickory_proto::rr::{DNSClass, Record, RecordType};
use parking_lot::RwLock;
use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Instant;

/// What all listeners share.
pub(crate) struct Handler {
    pub zone: Zone,
    pub index: Arc<RwLock<Index>>,
    pub ready: Latch,
    pub forwarder: Forwarder,
    pub metrics: Metrics,
}

/// How a request came, and when.
#[derive(Clone, Copy)]
pub(crate) struct Via<'a> {
    pub transport: Transport,
    pub peer: SocketAddr,
    pub metrics: &'a ServerMetrics,
    pub start: Instant,
}

/// What becomes of a request.
pub(crate) enum Step {
    /// It is none, and gets no answer.
    Drop,
    /// The answer is written.
    Reply,
    /// The upstreams are to be asked first.
    Forward(Box<Pending>),
}

/// A request that waits for the upstreams.
pub(crate) struct Pending {
    asked: Asked,
    query: Query,
    /// As the client wrote it.
    question: Vec<u8>,
    /// The part of the zone, which ends with an alias; the question above is then not what is asked.
    prefix: Option<Reply>,
    metadata: Metadata,
}

impl Handler {
    /// Takes a request; the answer, if it is known, is in `out`.
    pub(crate) fn handle(&self, request: &[u8], via: Via<'_>, out: &mut Vec<u8>) -> Step {
        // A request that makes us panic must not end the listener.
        match catch_unwind(AssertUnwindSafe(|| self.respond(request, via, out))) {
            Ok(step) => step,
            Err(_) => {
                self.metrics.panics.inc();
                self.refuse(request, ResponseCode::ServFail, via, out)
            }
        }
    }

    fn respond(&self, request: &[u8], via: Via<'_>, out: &mut Vec<u8>) -> Step {
        // Shorter than a header, or an answer: answering that could go on forever.
        if request.len() < 12 || request[2] & 0x80 != 0 {
            return Step::Drop;
        }
        let Ok(message) = Message::from_vec(request) else {
            return self.refuse(request, ResponseCode::FormErr, via, out);
        };
        if message.metadata.op_code != OpCode::Query {
            return self.refuse(request, ResponseCode::NotImp, via, out);
        }
        let ([query], Some(question)) = (message.queries.as_slice(), wire::question(request)) else {
            return self.refuse(request, ResponseCode::FormErr, via, out);
        };
        via.metrics.request(via.transport, via.peer, query.query_type, request.len());
        let asked = Asked::new(&message, via.transport == Transport::Udp);
        let mut metadata = Metadata::response_from_request(&message.metadata);
        metadata.recursion_available = true;
        let fail = |code, out: &mut Vec<u8>| {
            self.empty(&asked, metadata, query, code, Plugin::None, via, out);
            Step::Reply
        };
        if message.edns.as_ref().is_some_and(|e| e.version() != 0) {
            return fail(ResponseCode::BADVERS, out);
        }
        if query.query_class != DNSClass::IN
            || matches!(query.query_type, RecordType::AXFR | RecordType::IXFR)
            || self.forwarder.is_probe(question)
        {
            return fail(ResponseCode::Refused, out);
        }
        let ours = Question { name: &query.name, record_type: query.query_type, turn: asked.id };
        let answer = self.zone.answer(&self.index.read(), ours);
        let synced = self.ready.is_done();
        let prefix = match answer {
            Answer::Here(reply) if !synced && reply.is_negative(query.query_type) => {
                return fail(ResponseCode::ServFail, out);
            }
            Answer::Here(reply) if reply.alias.is_none() => {
                metadata.authoritative = true;
                self.write(&asked, metadata, query, &reply, Plugin::Kubernetes, via, out);
                return Step::Reply;
            }
            Answer::Here(reply) => Some(reply),
            // It may be an address of the cluster's.
            Answer::NotHere if !synced && is_arpa(&query.name) => return fail(ResponseCode::ServFail, out),
            Answer::NotHere => {
                if let Some((stored, age)) = self.forwarder.cached(question, &asked) {
                    stored.write(&asked, question, age, out);
                    via.metrics.cache_hit(stored.is_denial());
                    self.count(Plugin::Cache, via, out);
                    return Step::Reply;
                }
                via.metrics.cache_miss();
                None
            }
        };
        let (query, question) = (query.clone(), question.to_vec());
        Step::Forward(Box::new(Pending { asked, query, question, prefix, metadata }))
    }

    /// Asks the upstreams and writes the answer.
    pub(crate) async fn finish(&self, pending: Pending, via: Via<'_>, out: &mut Vec<u8>) {
        let Pending { asked, query, question, prefix, metadata } = pending;
        let code = |failure| match failure {
            Failure::Busy => ResponseCode::Refused,
            Failure::Unreachable => ResponseCode::ServFail,
        };
        match prefix {
            None => match self.forwarder.ask(&question, &asked).await {
                Ok(stored) => {
                    stored.write(&asked, &question, 0, out);
                    self.count(Plugin::Forward, via, out);
                }
                Err(failure) => {
                    self.empty(&asked, metadata, &query, code(failure), Plugin::Forward, via, out);
                }
            },
            Some(mut reply) => {
                match self.alias(&asked, &question, &reply).await {
                    Ok((target, age)) => append(&mut reply, &target, age),
                    // The alias itself stands: a client may know the way from there.
                    Err(failure) => reply.code = code(failure),
                }
                self.write(&asked, metadata, &query, &reply, Plugin::Kubernetes, via, out);
            }
        }
    }

    /// What is at the end of an alias out of the zone.
    async fn alias(
        &self,
        asked: &Asked,
        question: &[u8],
        reply: &Reply,
    ) -> Result<(Arc<Stored>, u32), Failure> {
        let Some(target) = &reply.alias else { return Err(Failure::Unreachable) };
        let question = forward::question(target, &question[question.len() - 4..]);
        match self.forwarder.cached(&question, asked) {
            Some(found) => Ok(found),
            None => self.forwarder.ask(&question, asked).await.map(|stored| (stored, 0)),
        }
    }

    fn refuse(&self, request: &[u8], code: ResponseCode, via: Via<'_>, out: &mut Vec<u8>) -> Step {
        wire::bare(request, code.low(), out);
        self.count(Plugin::None, via, out);
        Step::Reply
    }

    fn empty(
        &self,
        asked: &Asked,
        metadata: Metadata,
        query: &Query,
        code: ResponseCode,
        plugin: Plugin,
        via: Via<'_>,
        out: &mut Vec<u8>,
    ) {
        self.write(asked, metadata, query, &Reply::new(code), plugin, via, out);
    }

    fn write(
        &self,
        asked: &Asked,
        mut metadata: Metadata,
        query: &Query,
        reply: &Reply,
        plugin: Plugin,
        via: Via<'_>,
        out: &mut Vec<u8>,
    ) {
        metadata.message_type = MessageType::Response;
        metadata.response_code = reply.code;
        let sections = [&reply.answers[..], &reply.authorities, &reply.additionals];
        if let Err(error) = wire::encode(asked, &metadata, query, sections, out) {
            tracing::error!(%query, %error, "cannot encode an answer");
            metadata.response_code = ResponseCode::ServFail;
            // A header and the question, which was read before.
            if wire::encode(asked, &metadata, query, [&[], &[], &[]], out).is_err() {
                out.clear();
            }
        }
        self.count(plugin, via, out);
    }

    fn count(&self, plugin: Plugin, via: Via<'_>, out: &[u8]) {
        let code = out.get(3).copied().unwrap_or_default();
        via.metrics.response(via.transport, plugin, code, out.len(), via.start);
    }
}

/// Puts an upstream's answer behind the alias that led to it.
fn append(reply: &mut Reply, target: &Stored, age: u32) {
    let Ok(message) = Message::from_vec(target.bytes()) else {
        reply.code = ResponseCode::ServFail;
        return;
    };
    let aged = |mut record: Record| {
        record.decrement_ttl(age);
        record
    };
    reply.code = ResponseCode::from(0, (target.code() & 0x0f) as u8);
    reply.answers.extend(message.answers.into_iter().map(aged));
    reply.authorities.extend(message.authorities.into_iter().map(aged));
}
