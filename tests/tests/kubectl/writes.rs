//! Changing: create, apply, edit, patch, replace, label, annotate, run, expose.

use super::{has, idle};
use cluster_tests::Room;
use cluster_tests::manifests::{service, shell, web};

pub(crate) fn create(room: &Room) {
    let k = &room.kubectl;
    for (command, said) in [
        ("configmap c --from-literal=a=1", "configmap/c created"),
        ("secret generic s --from-literal=a=1", "secret/s created"),
        (
            "secret docker-registry r --docker-server=x --docker-username=u --docker-password=p",
            "secret/r created",
        ),
        ("serviceaccount sa", "serviceaccount/sa created"),
        ("role r --verb=get --resource=pods", "role.rbac.authorization.k8s.io/r created"),
        ("rolebinding rb --role=r --user=u", "rolebinding.rbac.authorization.k8s.io/rb created"),
        ("quota q --hard=pods=50", "resourcequota/q created"),
        ("service clusterip ci --tcp=80:80", "service/ci created"),
        ("service nodeport np --tcp=80:80", "service/np created"),
        ("service loadbalancer lb --tcp=80:80", "service/lb created"),
        ("ingress i --rule=host/path=svc:80", "ingress.networking.k8s.io/i created"),
        ("poddisruptionbudget p --selector=app=x --min-available=1", "poddisruptionbudget.policy/p created"),
        ("job j --image=localhost/busybox:debian12 -- true", "job.batch/j created"),
        (
            "cronjob cj --image=localhost/busybox:debian12 --schedule='0 0 1 1 *' -- true",
            "cronjob.batch/cj created",
        ),
        ("deployment d --image=localhost/busybox:debian12 --replicas=0", "deployment.apps/d created"),
    ] {
        assert_eq!(k.run(&format!("create {command}")), said);
    }
    assert_eq!(k.run("create job again --from=cronjob/cj"), "job.batch/again created");
    assert_eq!(
        k.refused("create configmap c"),
        "error: failed to create configmap: configmaps \"c\" already exists"
    );
    has(
        &k.run("create configmap d --from-literal=a=1 --dry-run=client -o yaml"),
        &["kind: ConfigMap", "  a: \"1\""],
    );
    has(
        &k.run("create deployment e --image=x --dry-run=server -o yaml"),
        &["uid: ", "progressDeadlineSeconds: 600", "terminationMessagePath: /dev/termination-log"],
    );
    has(&k.refused("get deployment e"), &["NotFound"]);
    assert_eq!(k.feed("create -f -", &shell("lone", "")), "pod/lone created");
    has(
        &k.feed(
            "create --save-config -o name -f -",
            "{apiVersion: v1, kind: ConfigMap, metadata: {generateName: wave-}}",
        ),
        &["configmap/wave-"],
    );
    let script = format!("exec kubectl -n {} create -f -", k.namespace);
    let refused = |manifest: &str| String::from_utf8(k.script(&script, manifest).stderr).unwrap();
    has(
        &refused("{apiVersion: v1, kind: ConfigMap, metadata: {name: UPPER}}"),
        &[
            "The ConfigMap \"UPPER\" is invalid: metadata.name: Invalid value: \"UPPER\": a lowercase RFC 1123 subdomain",
        ],
    );
    has(
        &refused(
            "{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: [{name: a, imag: b}]}}",
        ),
        &["strict decoding error: unknown field \"spec.containers[0].imag\""],
    );
    has(
        &refused("{apiVersion: v1, kind: Pod, metadata: {name: x}, spec: {containers: []}}"),
        &["The Pod \"x\" is invalid: spec.containers: Required value"],
    );
}

pub(crate) fn apply(room: &Room) {
    let k = &room.kubectl;
    let manifest = web("web", 1) + &service("web", "");
    assert_eq!(k.apply(&manifest), "deployment.apps/web created\nservice/web created");
    k.run("rollout status deployment/web --timeout=$PATIENCE");
    assert_eq!(k.apply(&manifest), "deployment.apps/web unchanged\nservice/web unchanged");
    has(
        &k.field("service web", ".metadata.annotations"),
        &["kubectl.kubernetes.io/last-applied-configuration"],
    );
    let two = manifest.replace("replicas: 1", "replicas: 2");
    let file = k.file(&format!("{}.yaml", k.namespace), &two);
    let diff = k.output(&format!("diff -f {}", file.display()));
    assert_eq!(diff.status.code(), Some(1), "{}", String::from_utf8_lossy(&diff.stderr));
    has(&String::from_utf8(diff.stdout).unwrap(), &["-  replicas: 1\n+  replicas: 2\n"]);
    assert_eq!(
        k.run(&format!("apply -f {}", file.display())),
        "deployment.apps/web configured\nservice/web unchanged"
    );
    assert_eq!(k.output(&format!("diff -f {}", file.display())).status.code(), Some(0));
    // A field that is taken out of the manifest goes; what others set stays.
    k.run("annotate service web by=hand");
    k.run("scale deployment web --replicas=3");
    k.apply(&two.replace("labels: {app: web}}\nspec:\n  replicas: 2", "labels: {}}\nspec:"));
    let deployment = k.json("deployment web");
    assert_eq!(deployment["spec"]["replicas"], 1, "the default comes back with the field gone");
    assert!(deployment["metadata"]["labels"].is_null(), "{}", deployment["metadata"]);
    assert_eq!(k.field("service web", ".metadata.annotations.by"), "hand");
    has(&k.run("apply view-last-applied service web"), &["kind: Service"]);
    has(&k.feed("apply --dry-run=server -f -", &two), &["deployment.apps/web configured (server dry run)"]);
    let kustomization = k.home().join(format!("{}.k", k.namespace));
    std::fs::create_dir_all(&kustomization).unwrap();
    std::fs::write(
        kustomization.join("kustomization.yaml"),
        "configMapGenerator: [{name: made, literals: [a=1]}]\nnamePrefix: k-\n",
    )
    .unwrap();
    has(&k.run(&format!("apply -k {}", kustomization.display())), &["configmap/k-made-", " created"]);
    let invalid = k.script(
        &format!("exec kubectl -n {} apply -f -", k.namespace),
        &manifest.replace("app: web}}\n  template", "app: other}}\n  template"),
    );
    has(
        &String::from_utf8(invalid.stderr).unwrap(),
        &["The Deployment \"web\" is invalid", "`selector` does not match template `labels`"],
    );
}

pub(crate) fn edit(room: &Room) {
    let k = &room.kubectl;
    let ns = &k.namespace;
    k.run("create configmap c --from-literal=course=north");
    let said = k.sh(&format!("KUBE_EDITOR=\"sed -i s/north/south/\" kubectl -n {ns} edit configmap c"));
    assert_eq!(said, "configmap/c edited");
    assert_eq!(k.field("configmap c", ".data.course"), "south");
    assert_eq!(
        k.sh(&format!("KUBE_EDITOR=true kubectl -n {ns} edit configmap c")),
        "Edit cancelled, no changes made."
    );
    let refused =
        k.script(&format!("KUBE_EDITOR=\"sed -i s/^data:/datum:/\" kubectl -n {ns} edit configmap c"), "");
    let said = String::from_utf8([refused.stdout, refused.stderr].concat()).unwrap();
    has(&said, &["configmaps \"c\" is invalid"]);
    // What was wrong stands at the top of the copy that is kept.
    let copy = said.split('"').find(|part| part.contains("kubectl-edit-")).expect("a copy").to_owned();
    has(&std::fs::read_to_string(&copy).unwrap(), &["strict decoding error: unknown field \"datum\""]);
    std::fs::remove_file(copy).unwrap();
    idle(room, "d");
    k.sh(&format!("KUBE_EDITOR=\"sed -i 's/replicas: 1/replicas: 2/'\" kubectl -n {ns} edit deployment d"));
    assert_eq!(k.field("deployment d", ".spec.replicas"), "2");
}

pub(crate) fn patch(room: &Room) {
    let k = &room.kubectl;
    k.run("create deployment d --image=one --replicas=0");
    let containers = || k.field("deployment d", ".spec.template.spec.containers[*].image");
    // Strategic: lists merge by their keys.
    let second =
        "{\"spec\":{\"template\":{\"spec\":{\"containers\":[{\"name\":\"two\",\"image\":\"two\"}]}}}}";
    assert_eq!(k.run(&format!("patch deployment d -p '{second}'")), "deployment.apps/d patched");
    assert_eq!(containers(), "two one");
    assert_eq!(k.run(&format!("patch deployment d -p '{second}'")), "deployment.apps/d patched (no change)");
    // Merge: lists are replaced.
    k.run(&format!("patch deployment d --type=merge -p '{second}'"));
    assert_eq!(containers(), "two");
    k.run("patch deployment d --type=json -p '[{\"op\":\"test\",\"path\":\"/spec/replicas\",\"value\":0},{\"op\":\"replace\",\"path\":\"/spec/template/spec/containers/0/image\",\"value\":\"three\"}]'");
    assert_eq!(containers(), "three");
    has(
        &k.refused("patch deployment d --type=json -p '[{\"op\":\"remove\",\"path\":\"/spec/nothing\"}]'"),
        &["The request is invalid"],
    );
    has(
        &k.refused("patch deployment d -p '{\"spec\":{\"replicas\":\"many\"}}'"),
        &[
            "The request is invalid: patch: Invalid value: \"map[spec:map[replicas:many]]\"",
            "json: cannot unmarshal string into Go struct field DeploymentSpec.spec.replicas of type int32",
        ],
    );
    has(
        &k.refused("patch deployment d -p '{\"spec\":{\"selector\":{\"matchLabels\":{\"app\":\"x\"}}}}'"),
        &["field is immutable"],
    );
    k.run("patch deployment d --subresource=scale --type=merge -p '{\"spec\":{\"replicas\":2}}'");
    assert_eq!(k.field("deployment d", ".spec.replicas"), "2");
    let yaml = k.file(&format!("{}.patch", k.namespace), "metadata: {labels: {by: file}}\n");
    k.run(&format!("patch deployment d --patch-file={}", yaml.display()));
    assert_eq!(k.field("deployment d", ".metadata.labels.by"), "file");
}

pub(crate) fn replace(room: &Room) {
    let k = &room.kubectl;
    let map = "{apiVersion: v1, kind: ConfigMap, metadata: {name: c}, data: {b: '2'}}";
    k.run("create configmap c --from-literal=a=1");
    let uid = k.field("configmap c", ".metadata.uid");
    let stale = k.run("get configmap c -o yaml");
    assert_eq!(k.feed("replace -f -", map), "configmap/c replaced");
    assert_eq!(k.field("configmap c", ".data"), "{\"b\":\"2\"}");
    assert_eq!(k.field("configmap c", ".metadata.uid"), uid);
    let conflict = k.script(&format!("exec kubectl -n {} replace -f -", k.namespace), &stale);
    has(
        &String::from_utf8(conflict.stderr).unwrap(),
        &[
            "Error from server (Conflict)",
            "Operation cannot be fulfilled on configmaps \"c\": the object has been modified; please apply your changes to the latest version and try again",
        ],
    );
    has(&k.feed("replace --force -f -", map), &["configmap \"c\" deleted", "configmap/c replaced"]);
    assert_ne!(k.field("configmap c", ".metadata.uid"), uid);
    has(
        &k.script(
            &format!("kubectl -n {} replace -f - 2>&1; true", k.namespace),
            &map.replace("name: c", "name: absent"),
        )
        .stdout
        .iter()
        .map(|b| *b as char)
        .collect::<String>(),
        &["Error from server (NotFound)"],
    );
}

pub(crate) fn label_and_annotate(room: &Room) {
    let k = &room.kubectl;
    k.run("create configmap c");
    assert_eq!(k.run("label configmap c crew=argo"), "configmap/c labeled");
    assert_eq!(
        k.refused("label configmap c crew=other"),
        "error: 'crew' already has a value (argo), and --overwrite is false"
    );
    assert_eq!(k.run("label configmap c crew=other --overwrite"), "configmap/c labeled");
    assert_eq!(k.run("label configmap c crew=other --overwrite"), "configmap/c not labeled");
    assert_eq!(k.run("label configmap -l crew=other seen=yes"), "configmap/c labeled");
    has(&k.run("label configmap c --list"), &["crew=other", "seen=yes"]);
    assert_eq!(k.run("label configmap c crew-"), "configmap/c unlabeled");
    has(&k.refused("label configmap c 'x=not valid'"), &["invalid label value"]);
    assert_eq!(k.run("annotate configmap c course=north"), "configmap/c annotated");
    assert_eq!(k.run("annotate configmap c course=south --overwrite"), "configmap/c annotated");
    has(&k.run("annotate configmap c --list"), &["course=south"]);
    assert_eq!(k.run("annotate configmap c course-"), "configmap/c annotated");
    assert_eq!(k.field("configmap c", ".metadata.annotations"), "");
}

pub(crate) fn run_and_expose(room: &Room) {
    let k = &room.kubectl;
    assert_eq!(k.run("run web --image=localhost/busybox:debian12 --port=80 --labels=app=web --command -- sh -c 'mkdir /www; echo land >/www/index.html; exec httpd -f -p 80 -h /www'"), "pod/web created");
    k.wait("condition=Ready", "pod/web");
    assert_eq!(k.run("expose pod web --name=front --port=8080 --target-port=80"), "service/front exposed");
    k.until("endpointslices -l kubernetes.io/service-name=front", "an endpoint", |slice| {
        (slice["endpoints"].as_array()?.len() == 1).then_some(())
    });
    // With input, and gone when it is over.
    let once = k.sh(&format!("echo ahoy | kubectl -n {} run once --rm -i --restart=Never --image=localhost/busybox:debian12 -- cat", k.namespace));
    has(&once, &["ahoy", "pod \"once\" deleted"]);
    has(&k.refused("get pod once"), &["NotFound"]);
    k.run("run visitor --image=localhost/busybox:debian12 --restart=Never --env=TO=front -- sh -c 'until wget -q -O - http://$TO:8080; do usleep 50000; done'");
    k.wait("jsonpath={.status.phase}=Succeeded", "pod/visitor");
    assert_eq!(k.run("logs visitor"), "land");
    has(&k.run("get pod visitor"), &["0/1", "Completed"]);
    idle(room, "d");
    assert_eq!(k.run("expose deployment d --port=80 --type=NodePort"), "service/d exposed");
    assert_eq!(k.field("service d", ".spec.selector.app"), "d");
    has(&k.run("run dry --image=x --dry-run=client -o yaml"), &["run: dry", "restartPolicy: Always"]);
}
