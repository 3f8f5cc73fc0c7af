//! Keeps the endpoints of the Service `kube-dns`: the DNS server that runs on every node, by the node's address. The
//! Service has no selector, for the servers are no pods.

use crate::Context;
use crate::support::{feed, queue};
use api::Kind as _;
use api::core::v1::Node;
use api::discovery::v1::{Endpoint, EndpointConditions, EndpointHints, EndpointPort, EndpointSlice, ForNode};
use client::controller::{Outcome, Writes, run as work};
use client::source::Query;
use client::{Informer, ObjectKey, Projection};

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "kube-dns";
const SLICE: &str = "kube-dns-nodes";

/// What is kept of a node: its address, and whether it answers.
#[derive(PartialEq)]
struct NodeFacts {
    address: String,
    ready: bool,
}

impl Projection for NodeFacts {
    type Kind = Node;

    fn project(node: &Node) -> Self {
        let internal = node.status.addresses.iter().find(|a| a.type_ == "InternalIP");
        let ready = node.status.conditions.iter().any(|c| c.type_ == "Ready" && c.status == "True");
        NodeFacts { address: internal.map(|a| a.address.clone()).unwrap_or_default(), ready }
    }
}

struct Known;

impl Projection for Known {
    type Kind = EndpointSlice;

    fn project(_: &EndpointSlice) -> Self {
        Known
    }
}

/// Runs until shutdown. There is one key: the slice.
pub(crate) async fn run(context: Context) {
    let nodes: Informer<NodeFacts> = context.informers.get();
    let query = Query::of::<EndpointSlice>().fields(format!("metadata.name={SLICE}")).in_namespace(NAMESPACE);
    let slices: Informer<Known> = context.informers.query(query);
    let key = ObjectKey::new(NAMESPACE, SLICE);
    let queue = queue();
    let (changed, only) = (queue.clone(), key.clone());
    nodes.subscribe(move |change| {
        if change.old().is_none_or(|old| old.projection != change.object().projection) {
            changed.add(only.clone());
        }
    });
    feed(&slices, &queue, |slice| [slice.key().clone()]);
    nodes.synced().await;
    slices.synced().await;
    let (client, port) = (context.client, context.cluster.dns_port);
    let writes = Writes::default();
    let noted = writes.clone();
    work("cluster-dns", queue, writes, 1, context.shutdown, move |key| {
        let (nodes, slices) = (nodes.clone(), slices.clone());
        let (client, noted) = (client.clone(), noted.clone());
        async move {
            let api = client.namespaced::<EndpointSlice>(NAMESPACE);
            let known = slices.get(&key).map(|slice| slice.decode()).transpose()?;
            let mut wanted = known.clone().unwrap_or_else(EndpointSlice::new);
            fill(&mut wanted, nodes.list().iter().map(|node| (node.name(), &node.projection)), port);
            let written = match &known {
                Some(known) if *known == wanted => return Ok(Outcome::Done),
                Some(_) => api.update(&wanted).await,
                None => api.create(&wanted).await,
            };
            let written = written?;
            noted.note(&key, &slices, &written.metadata.resource_version);
            Ok::<_, client::Error>(Outcome::Done)
        }
    })
    .await;
}

fn fill<'a>(slice: &mut EndpointSlice, nodes: impl Iterator<Item = (&'a str, &'a NodeFacts)>, port: u16) {
    let meta = &mut slice.metadata;
    meta.name = SLICE.into();
    meta.namespace = NAMESPACE.into();
    meta.labels.insert("kubernetes.io/service-name".into(), SERVICE.into());
    meta.labels.insert("endpointslice.kubernetes.io/managed-by".into(), "cluster-dns.tiphys".into());
    slice.address_type = "IPv4".into();
    slice.ports = [("dns", "UDP"), ("dns-tcp", "TCP")]
        .map(|(name, protocol)| EndpointPort {
            name: Some(name.into()),
            protocol: Some(protocol.into()),
            port: Some(port.into()),
            app_protocol: None,
        })
        .into();
    let with_address = nodes.filter(|(_, node)| node.address.contains('.'));
    slice.endpoints = with_address
        .map(|(name, node)| Endpoint {
            addresses: vec![node.address.clone()],
            conditions: EndpointConditions {
                ready: Some(node.ready),
                serving: Some(node.ready),
                terminating: Some(false),
            },
            node_name: Some(name.into()),
            hints: Some(EndpointHints {
                for_nodes: vec![ForNode { name: name.into() }],
                ..Default::default()
            }),
            ..Default::default()
        })
        .collect();
    slice.endpoints.sort_by(|a, b| a.node_name.cmp(&b.node_name));
}
