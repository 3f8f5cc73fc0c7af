//! AlwaysPullImages: every container's image is pulled anew, so that its registry says who may use it.

use super::immediate::Immediate;
use super::{Attributes, Operation, When};
use apimachinery::field::{Error, Path, aggregate};
use apimachinery::status::Status;
use apimachinery::value::Value;
use std::collections::BTreeSet;

#[derive(Debug)]
pub(super) struct AlwaysPullImages;

const CONTAINERS: [&str; 3] = ["initContainers", "containers", "ephemeralContainers"];
const ALWAYS: &str = "Always";

fn items<'a>(pod: &'a Value, list: &str) -> &'a [Value] {
    pod["spec"][list].as_array().map_or(&[], Vec::as_slice)
}

fn items_mut<'a>(pod: &'a mut Value, list: &str) -> impl Iterator<Item = &'a mut Value> {
    pod["spec"].get_mut(list).and_then(Value::as_array_mut).into_iter().flatten()
}

fn images(pod: &Value) -> BTreeSet<&str> {
    let containers = CONTAINERS.iter().flat_map(|list| items(pod, list));
    containers.map(|container| container["image"].as_str().unwrap_or_default()).collect()
}

/// Whether a request brings images that were not there.
fn concerns(a: &Attributes<'_>, pod: &Value) -> bool {
    match (a.operation, a.old) {
        (Operation::Update, Some(old)) => !images(pod).is_subset(&images(old)),
        _ => true,
    }
}

fn set(pod: &mut Value) {
    for list in CONTAINERS {
        items_mut(pod, list).for_each(|container| container["imagePullPolicy"] = ALWAYS.into());
    }
    // KEP-4639.
    let images = items_mut(pod, "volumes").filter_map(|volume| volume.get_mut("image"));
    images.filter(|image| image.is_object()).for_each(|image| image["pullPolicy"] = ALWAYS.into());
}

/// Policies that are none of ours, each with its path.
fn strangers(pod: &Value) -> Vec<Error> {
    let spec = Path::new("spec");
    let mut errors = Vec::new();
    let mut judge = |policy: &Value, path: Path| {
        if policy != ALWAYS {
            errors.push(Error::not_supported(&path, policy.as_str().unwrap_or_default(), &[ALWAYS]));
        }
    };
    for list in CONTAINERS {
        for (at, container) in items(pod, list).iter().enumerate() {
            judge(&container["imagePullPolicy"], spec.child(list).index(at).child("imagePullPolicy"));
        }
    }
    for (at, volume) in items(pod, "volumes").iter().enumerate().filter(|(_, v)| v["image"].is_object()) {
        let path = spec.child("volumes").index(at).child("image").child("pullPolicy");
        judge(&volume["image"]["pullPolicy"], path);
    }
    errors
}

impl Immediate for AlwaysPullImages {
    fn name(&self) -> &'static str {
        "AlwaysPullImages"
    }

    fn when(&self) -> When {
        When::both(&[Operation::Create, Operation::Update])
    }

    fn admit(&self, a: &mut Attributes<'_>) -> Result<(), Status> {
        let concerned = a.written("", "pods").is_some_and(|pod| concerns(a, pod));
        if let Some(pod) = a.object.as_deref_mut().filter(|_| concerned) {
            set(pod);
        }
        Ok(())
    }

    fn validate(&self, a: &Attributes<'_>) -> Result<(), Status> {
        let pod = a.written("", "pods").filter(|pod| concerns(a, pod));
        let errors = pod.map(strangers).unwrap_or_default();
        let refusals = errors.iter().map(|error| a.forbidden(error.to_string()).message);
        // Upstream joins the refusals, and what it joins is no status any more.
        aggregate(refusals).map_or(Ok(()), |why| Err(Status::plain_error(why)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use apimachinery::json;

    #[test]
    fn all_that_is_pulled_is_pulled_always() {
        let mut pod = json!({"spec": {
            "containers": [{"image": "a", "imagePullPolicy": "Never"}, {"image": "b"}],
            "ephemeralContainers": [{"image": "c"}],
            "volumes": [{"image": {"reference": "d"}}, {"emptyDir": {}}],
        }});
        let told = |pod: &Value| strangers(pod).iter().map(ToString::to_string).collect::<Vec<_>>();
        assert_eq!(
            told(&pod),
            [
                "spec.containers[0].imagePullPolicy: Unsupported value: \"Never\": supported values: \"Always\"",
                "spec.containers[1].imagePullPolicy: Unsupported value: \"\": supported values: \"Always\"",
                "spec.ephemeralContainers[0].imagePullPolicy: Unsupported value: \"\": supported values: \"Always\"",
                "spec.volumes[0].image.pullPolicy: Unsupported value: \"\": supported values: \"Always\"",
            ]
        );
        set(&mut pod);
        assert!(told(&pod).is_empty(), "{pod}");
        assert_eq!(pod["spec"]["volumes"][1], json!({"emptyDir": {}}));
    }
}
