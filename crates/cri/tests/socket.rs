//! The adapters: the fake behind a real Unix socket answers as the fake itself.

use cri::v1::*;
use cri::{Code, Error, GrpcClient, ImageService, RuntimeService};
use futures::StreamExt;
use std::sync::Arc;

#[tokio::test]
async fn the_socket_is_transparent() {
    let dir = std::env::temp_dir().join(format!("cri-{}", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    let path = dir.join("cri.sock");
    let listener = tokio::net::UnixListener::bind(&path).unwrap();
    let fake = cri::fake::Runtime::new();
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let server = tokio::spawn(cri::serve(listener, Arc::new(fake.clone()), Arc::new(fake.clone()), async {
        stopped.await.ok();
    }));
    let client = GrpcClient::new(&format!("unix://{}", path.display())).unwrap();

    let mut events = client.get_container_events(GetEventsRequest {}).await.unwrap();
    let metadata = Some(PodSandboxMetadata { name: "web".into(), ..Default::default() });
    let config = Some(PodSandboxConfig { metadata, ..Default::default() });
    let run = RunPodSandboxRequest { config, ..Default::default() };
    let id = client.run_pod_sandbox(run).await.unwrap().pod_sandbox_id;
    let event = events.next().await.unwrap().unwrap();
    assert_eq!(
        (event.container_id.as_str(), event.container_event_type()),
        (id.as_str(), ContainerEventType::ContainerStartedEvent)
    );
    assert_eq!(client.list_pod_sandbox(ListPodSandboxRequest::default()).await.unwrap().items.len(), 1);

    let missing = ContainerStatusRequest { container_id: "nope".into(), verbose: false };
    let there = client.container_status(missing.clone()).await.unwrap_err();
    assert_eq!(there, fake.container_status(missing).await.unwrap_err());
    assert!(there.is_not_found());
    fake.fail_next("pull_image", Error::new(Code::Unavailable, "registry is down"));
    let pull = PullImageRequest::default();
    assert_eq!(client.pull_image(pull).await.unwrap_err(), Error::unavailable("registry is down"));
    let exec = client.exec(ExecRequest::default()).await.unwrap_err();
    assert_eq!(exec.code, Code::Unimplemented);

    drop((events, client));
    stop.send(()).unwrap();
    server.await.unwrap().unwrap();
    std::fs::remove_dir_all(&dir).unwrap();
}
