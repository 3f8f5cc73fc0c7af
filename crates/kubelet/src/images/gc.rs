//! Images that nobody uses are deleted when their disk fills up: the one that was not used for longest first. Upstream:
//! `pkg/kubelet/images/image_gc_manager.go`.

use crate::context::Context;
use client::recorder::EventType;
use cri::v1;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// Upstream: `ImageGCPeriod`.
const PERIOD: Duration = Duration::from_secs(300);
/// Why images go, as metrics call it.
const SPACE: &str = "space";
const AGE: &str = "age";

/// When an image was first seen, and last in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Seen {
    first: Instant,
    used: Option<Instant>,
}

/// Where the runtime keeps its images.
pub(crate) async fn image_dir(context: &Context) -> Option<PathBuf> {
    let info = context.images.service.image_fs_info(v1::ImageFsInfoRequest {}).await.ok()?;
    let place = info.image_filesystems.first()?.fs_id.as_ref()?.mountpoint.clone();
    Some(place.into())
}

/// The images that containers were made from or have mounted, by id and by reference.
async fn in_use(context: &Context) -> cri::Result<HashSet<String>> {
    let listed = context.runtime.list_containers(v1::ListContainersRequest::default()).await?;
    let mut out = HashSet::new();
    for container in listed.containers {
        out.extend([container.image_id, container.image_ref]);
        out.extend(container.image.map(|image| image.image));
        let request = v1::ContainerStatusRequest { container_id: container.id, verbose: false };
        let status = context.runtime.container_status(request).await.ok().and_then(|answer| answer.status);
        let mounts = status.map(|status| status.mounts).unwrap_or_default();
        out.extend(mounts.into_iter().filter_map(|mount| mount.image).flat_map(|i| [i.image_ref, i.image]));
    }
    Ok(out)
}

fn is_used(image: &v1::Image, used: &HashSet<String>) -> bool {
    let mut names = std::iter::once(&image.id).chain(&image.repo_tags).chain(&image.repo_digests);
    image.pinned || names.any(|name| used.contains(name))
}

async fn list(context: &Context) -> cri::Result<Vec<v1::Image>> {
    Ok(context.images.service.list_images(v1::ListImagesRequest::default()).await?.images)
}

async fn delete(context: &Context, image: &v1::Image, reason: &str) -> cri::Result<()> {
    tracing::info!(image = %image.id, size = image.size, "Removing image to free bytes");
    let image = Some(v1::ImageSpec { image: image.id.clone(), ..Default::default() });
    context.images.service.remove_image(v1::RemoveImageRequest { image }).await?;
    context.metrics.images_collected.with(&[reason]).inc();
    Ok(())
}

/// Deletes every image that no container uses.
pub(crate) async fn delete_unused(context: &Context) -> cri::Result<()> {
    let used = in_use(context).await?;
    for image in list(context).await?.iter().filter(|image| !is_used(image, &used)) {
        delete(context, image, SPACE).await?;
    }
    Ok(())
}

/// Looks every five minutes until shutdown.
pub(crate) async fn run(context: Arc<Context>, shutdown: CancellationToken) {
    let mut known: HashMap<String, Seen> = HashMap::new();
    let began = Instant::now();
    let mut failed_before = false;
    let mut ticks = tokio::time::interval(PERIOD);
    loop {
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = ticks.tick() => {}
        }
        match collect(&context, &mut known, began).await {
            Ok(()) => failed_before = false,
            Err(error) => {
                tracing::error!(%error, "Image garbage collection failed");
                // Once may be chance; upstream tells the second time.
                if failed_before {
                    let node = &context.config.node_name;
                    context.events.node(node, EventType::Warning, "ImageGCFailed", error);
                }
                failed_before = true;
            }
        }
    }
}

async fn collect(context: &Context, known: &mut HashMap<String, Seen>, since: Instant) -> Result<(), String> {
    let (now, began) = (Instant::now(), std::time::SystemTime::now());
    let used = in_use(context).await.map_err(|e| e.to_string())?;
    let images = list(context).await.map_err(|e| e.to_string())?;
    known.retain(|id, _| images.iter().any(|image| &image.id == id));
    context.images.prune_records(&images, began);
    for image in &images {
        let seen = known.entry(image.id.clone()).or_insert(Seen { first: now, used: None });
        if is_used(image, &used) {
            seen.used = Some(now);
        }
    }
    let images = collect_old(context, images, known, since, now).await?;
    let Some(dir) = image_dir(context).await else { return Ok(()) };
    let stat = rustix::fs::statvfs(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    let (capacity, available) = (stat.f_blocks * stat.f_frsize, stat.f_bavail * stat.f_frsize);
    let node = &context.config.node_name;
    if capacity == 0 {
        let error = "invalid capacity 0 on image filesystem";
        context.events.node(node, EventType::Warning, "InvalidDiskCapacity", error);
        return Err(error.into());
    }
    let percent = 100 - available.min(capacity).saturating_mul(100) / capacity;
    if percent < context.config.image_gc_high {
        return Ok(());
    }
    let wanted = (capacity * (100 - context.config.image_gc_low) / 100).saturating_sub(available);
    let mut freed = 0;
    for image in order(images, known, now, context.config.image_gc_min_age) {
        if freed >= wanted {
            break;
        }
        delete(context, &image, SPACE).await.map_err(|e| e.to_string())?;
        known.remove(&image.id);
        freed += image.size;
    }
    if freed < wanted {
        let capacity: apimachinery::quantity::Quantity = capacity.to_string().parse().unwrap_or_default();
        let capacity = capacity.with_format(apimachinery::quantity::Format::BinarySI);
        let message = format!(
            "Insufficient free disk space on the node's image filesystem ({percent}% of {capacity} used). Failed to free sufficient space by deleting unused images (freed {freed} bytes). Investigate disk usage, as it could be used by active images, logs, volumes, or other data."
        );
        context.events.node(node, EventType::Warning, "FreeDiskSpaceFailed", message.clone());
        return Err(message);
    }
    Ok(())
}

/// Deletes what was not used for too long; returns what stays. Upstream: `freeOldImages`.
async fn collect_old(
    context: &Context,
    images: Vec<v1::Image>,
    known: &mut HashMap<String, Seen>,
    since: Instant,
    now: Instant,
) -> Result<Vec<v1::Image>, String> {
    let Some(most) = context.config.image_gc_max_age else { return Ok(images) };
    let old = too_old(&images, known, since, now, most);
    let (old, mut stay): (Vec<v1::Image>, Vec<v1::Image>) =
        images.into_iter().partition(|image| old.contains(&image.id));
    let mut failed = Vec::new();
    for image in old {
        match delete(context, &image, AGE).await {
            Ok(()) => drop(known.remove(&image.id)),
            Err(error) => {
                failed.push(error.to_string());
                stay.push(image);
            }
        }
    }
    match apimachinery::field::aggregate(failed) {
        None => Ok(stay),
        Some(errors) => {
            let most = apimachinery::time::Duration::from(most);
            Err(format!(
                "wanted to free images older than {most}, encountered errors in image deletion: {errors}"
            ))
        }
    }
}

/// Those that nobody uses and nobody used for longer than `most`. A kubelet that has not run for so long cannot know. Pure.
fn too_old(
    images: &[v1::Image],
    known: &HashMap<String, Seen>,
    since: Instant,
    now: Instant,
    most: Duration,
) -> HashSet<String> {
    if now.duration_since(since) <= most {
        return HashSet::new();
    }
    let unused = |image: &&v1::Image| {
        // Before it was ever seen in use, as upstream, it was used in the distant past.
        let used = known.get(&image.id).map(|seen| seen.used);
        used.is_some_and(|used| used.is_none_or(|used| now.duration_since(used) > most))
    };
    images.iter().filter(|image| !image.pinned).filter(unused).map(|image| image.id.clone()).collect()
}

/// Those that may go, in order: not in use now, known for long enough, the longest unused first. Pure.
fn order(
    images: Vec<v1::Image>,
    known: &HashMap<String, Seen>,
    now: Instant,
    min_age: Duration,
) -> Vec<v1::Image> {
    let mut out: Vec<(Seen, v1::Image)> = images
        .into_iter()
        .filter_map(|image| Some((*known.get(&image.id)?, image)))
        .filter(|(seen, _)| seen.used != Some(now) && now.duration_since(seen.first) >= min_age)
        .collect();
    out.sort_by_key(|(seen, _)| (seen.used, seen.first));
    out.into_iter().map(|(_, image)| image).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_unused_goes_first() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let seen = |first, used: Option<u64>| Seen { first: at(first), used: used.map(at) };
        let known = HashMap::from([
            ("in-use".to_owned(), seen(0, Some(1000))),
            ("lately".to_owned(), seen(0, Some(900))),
            ("long-ago".to_owned(), seen(0, Some(100))),
            ("never".to_owned(), seen(50, None)),
            ("fresh".to_owned(), seen(990, None)),
        ]);
        let images = known.keys().map(|id| v1::Image { id: id.clone(), ..Default::default() }).collect();
        let order = order(images, &known, at(1000), Duration::from_secs(120));
        let ids: Vec<&str> = order.iter().map(|image| image.id.as_str()).collect();
        assert_eq!(ids, ["never", "long-ago", "lately"]);
        let images: Vec<v1::Image> =
            known.keys().map(|id| v1::Image { id: id.clone(), ..Default::default() }).collect();
        let old = |since, most| {
            let old = too_old(&images, &known, at(since), at(1000), Duration::from_secs(most));
            let mut old: Vec<String> = old.into_iter().collect();
            old.sort();
            old.join(" ")
        };
        assert_eq!(
            [old(0, 99), old(0, 500), old(0, 1000)],
            ["fresh lately long-ago never", "fresh long-ago never", ""]
        );
        // It has not run for long enough to know.
        assert_eq!(old(600, 500), "");
    }
}
