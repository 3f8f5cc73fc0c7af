//! Manifests that more than one file applies.

/// A Deployment whose pods answer `GET /` with their name, ready as soon as they do. They end at once.
pub fn web(name: &str, replicas: usize) -> String {
    format!(
        "
apiVersion: apps/v1
kind: Deployment
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  replicas: {replicas}
  selector: {{matchLabels: {{app: {name}}}}}
  template:
    metadata: {{labels: {{app: {name}}}}}
    spec:
      terminationGracePeriodSeconds: 0
      containers:
      - name: web
        image: localhost/busybox:debian12
        command: [sh, -c, 'mkdir /www; hostname >/www/index.html; exec httpd -f -p 80 -h /www']
        ports: [{{name: http, containerPort: 80}}]
        readinessProbe: {{httpGet: {{path: /, port: http}}, periodSeconds: 1}}
"
    )
}

/// A Service of the pods of [`web`]; `more` are further lines of its spec.
pub fn service(name: &str, more: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Service
metadata: {{name: {name}}}
spec:
  selector: {{app: {name}}}
  ports: [{{name: http, port: 8080, targetPort: http}}]
  {more}
"
    )
}

/// A pod that waits for commands; `more` are further lines of its spec.
pub fn shell(name: &str, more: &str) -> String {
    format!(
        "
---
apiVersion: v1
kind: Pod
metadata: {{name: {name}, labels: {{app: {name}}}}}
spec:
  terminationGracePeriodSeconds: 0
  containers:
  - name: sh
    image: localhost/busybox:debian12
    command: [sleep, infinity]
  {more}
"
    )
}
