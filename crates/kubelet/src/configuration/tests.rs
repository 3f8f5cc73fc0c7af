//! What a file says, and what it cannot say.

use super::*;
use expect_test::{Expect, expect};

/// What a file says that holds this text.
fn apply(text: &str, config: &mut Config) -> Result<Vec<String>, String> {
    let (object, mut warnings) = load::document(text)?;
    warnings.extend(take(object, config)?);
    Ok(warnings)
}

#[track_caller]
fn check(text: &str, show: impl Fn(&Config) -> String, expected: Expect) {
    let mut config = Config::new("n", "127.0.0.1");
    let head = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
    let told = match apply(&format!("{head}{text}"), &mut config) {
        Ok(_) => show(&config),
        Err(error) => error,
    };
    expected.assert_eq(&told);
}

#[test]
fn what_is_said_counts() {
    check(
        "systemReserved: {memory: 100Mi}\nkubeReserved: {memory: 28Mi}\nmemoryManagerPolicy: Static\nreservedMemory: [{numaNode: 0, limits: {memory: 128Mi}}]\ntopologyManagerPolicy: restricted\ntopologyManagerScope: pod\ntopologyManagerPolicyOptions: {prefer-closest-numa-nodes: \"true\"}",
        |c| format!("{:?} {:?} {}", c.memory_manager, c.topology, c.reserved["memory"]),
        expect![[
            r#"Some({0: {"memory": 134217728}}) Settings { policy: Restricted, scope: Pod, options: Options { prefer_closest: true, max_nodes: 8 } } 128Mi"#
        ]],
    );
    check(
        "evictionHard: {memory.available: 1Gi}\nevictionSoft: {nodefs.available: 10%}\nevictionSoftGracePeriod: {nodefs.available: 90s}\nevictionPressureTransitionPeriod: 2s",
        |c| {
            format!(
                "{} {:?} {:?}",
                c.eviction_thresholds.len(),
                c.eviction_thresholds[1].grace,
                c.eviction_transition
            )
        },
        expect!["2 Some(90s) 2s"],
    );
    check(
        "imagePullCredentialsVerificationPolicy: NeverVerifyAllowlistedImages\npreloadedImagesVerificationAllowlist: [r.io/x]\nmemorySwap: {swapBehavior: LimitedSwap}\nmaxPods: 7",
        |c| format!("{:?} {:?} {}", c.image_verification, c.swap, c.max_pods),
        expect![[r#"NeverVerifyAllowlistedImages(["r.io/x"]) LimitedSwap 7"#]],
    );
}

#[test]
fn what_cannot_be_is_refused() {
    let fails = |text: &str, expected: Expect| check(text, |_| "accepted".into(), expected);
    fails("topologyManagerPolicy: fast", expect![[r#"unknown policy: "fast""#]]);
    fails(
        "allowedUnsafeSysctls: [vm.swappiness]",
        expect![[r#"the sysctls "vm.swappiness" are not known to be namespaced"#]],
    );
    fails(
        "topologyManagerPolicyOptions: {x: z}",
        expect![[r#"unknown Topology Manager Policy option: "x""#]],
    );
    fails(
        "topologyManagerPolicyOptions: {max-allowable-numa-nodes: \"4\"}",
        expect![[r#"the minimum value of "max-allowable-numa-nodes" should not be less than 8"#]],
    );
    fails(
        "imagePullCredentialsVerificationPolicy: Sometimes",
        expect!["unknown image pull credential verification policy: Sometimes"],
    );
    fails(
        "memorySwap: {swapBehavior: UnlimitedSwap}",
        expect![[
            r#"invalid configuration: memorySwap.swapBehavior "UnlimitedSwap" must be one of: "", "LimitedSwap" or "NoSwap""#
        ]],
    );
    let mut config = Config::new("n", "127.0.0.1");
    let error = apply(
        "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\nrunOnce: true",
        &mut config,
    );
    let want = "invalid configuration: runOnce true: Runonce mode has been deprecated and should not be set";
    assert_eq!(error.unwrap_err(), want);
}

/// As kubeadm writes it.
const KUBEADM: &str = "
authentication: {anonymous: {enabled: false}, webhook: {cacheTTL: 0s, enabled: true}, x509: {}}
authorization: {mode: Webhook, webhook: {cacheAuthorizedTTL: 0s, cacheUnauthorizedTTL: 0s}}
cgroupDriver: systemd
clusterDNS: [10.96.0.10]
clusterDomain: cluster.local
containerRuntimeEndpoint: unix:///run/containerd/containerd.sock
cpuManagerReconcilePeriod: 0s
crashLoopBackOff: {}
evictionPressureTransitionPeriod: 0s
fileCheckFrequency: 0s
healthzBindAddress: 127.0.0.1
healthzPort: 10248
httpCheckFrequency: 0s
imageMaximumGCAge: 0s
imageMinimumGCAge: 0s
logging: {flushFrequency: 0, options: {json: {infoBufferSize: \"0\"}}, verbosity: 0}
memorySwap: {}
nodeStatusReportFrequency: 0s
nodeStatusUpdateFrequency: 0s
rotateCertificates: true
runtimeRequestTimeout: 0s
shutdownGracePeriod: 0s
shutdownGracePeriodCriticalPods: 0s
staticPodPath: /etc/kubernetes/manifests
streamingConnectionIdleTimeout: 0s
syncFrequency: 0s
volumeStatsAggPeriod: 0s
";

#[test]
fn nothing_is_passed_over() {
    let mut config = Config::new("n", "127.0.0.1");
    let head = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
    let told = apply(&format!("{head}{KUBEADM}"), &mut config).unwrap();
    expect![[r#"
        cgroupDriver has no effect: cgroups are made without systemd
        logging has no effect: the program's own flags say how it logs"#]]
    .assert_eq(&told.join("\n"));
    let default = Config::new("n", "127.0.0.1");
    assert_eq!(config.eviction_transition, default.eviction_transition);
    assert_eq!(config.image_gc_min_age, default.image_gc_min_age);
    assert_eq!(config.container_runtime_endpoint.as_deref(), Some("unix:///run/containerd/containerd.sock"));
    // Each of upstream's fields is known, whatever becomes of it.
    for field in FIELDS.split_whitespace() {
        let unset = format!("{head}{field}: null");
        let mut config = Config::new("n", "127.0.0.1");
        match apply(&unset, &mut config) {
            Ok(warnings) => assert!(warnings.is_empty(), "{field}: {warnings:?}"),
            Err(error) => panic!("{field}: {error}"),
        }
    }
}

/// All of v1.36's.
const FIELDS: &str = "enableServer staticPodPath podLogsDir syncFrequency fileCheckFrequency httpCheckFrequency staticPodURL
    staticPodURLHeader address port readOnlyPort tlsCertFile tlsPrivateKeyFile tlsCipherSuites tlsCurvePreferences tlsMinVersion
    rotateCertificates serverTLSBootstrap authentication authorization registryPullQPS registryBurst
    imagePullCredentialsVerificationPolicy preloadedImagesVerificationAllowlist eventRecordQPS eventBurst
    enableDebuggingHandlers enableContentionProfiling healthzPort healthzBindAddress oomScoreAdj clusterDomain clusterDNS
    streamingConnectionIdleTimeout nodeStatusUpdateFrequency nodeStatusReportFrequency nodeLeaseDurationSeconds
    imageMinimumGCAge imageMaximumGCAge imageGCHighThresholdPercent imageGCLowThresholdPercent volumeStatsAggPeriod
    kubeletCgroups systemCgroups cgroupRoot cgroupsPerQOS cgroupDriver cpuManagerPolicy singleProcessOOMKill
    cpuManagerPolicyOptions cpuManagerReconcilePeriod memoryManagerPolicy topologyManagerPolicy topologyManagerScope
    topologyManagerPolicyOptions qosReserved runtimeRequestTimeout hairpinMode maxPods podCIDR podPidsLimit resolvConf runOnce
    cpuCFSQuota cpuCFSQuotaPeriod nodeStatusMaxImages maxOpenFiles contentType kubeAPIQPS kubeAPIBurst serializeImagePulls
    maxParallelImagePulls evictionHard evictionSoft evictionSoftGracePeriod evictionPressureTransitionPeriod
    evictionMaxPodGracePeriod evictionMinimumReclaim mergeDefaultEvictionSettings podsPerCore enableControllerAttachDetach
    protectKernelDefaults makeIPTablesUtilChains iptablesMasqueradeBit iptablesDropBit featureGates failSwapOn memorySwap
    containerLogMaxSize containerLogMaxFiles containerLogMaxWorkers containerLogMonitorInterval
    configMapAndSecretChangeDetectionStrategy systemReserved kubeReserved reservedSystemCPUs showHiddenMetricsForVersion
    systemReservedCgroup kubeReservedCgroup enforceNodeAllocatable allowedUnsafeSysctls volumePluginDir providerID
    kernelMemcgNotification logging enableSystemLogHandler enableSystemLogQuery shutdownGracePeriod
    shutdownGracePeriodCriticalPods shutdownGracePeriodByPodPriority crashLoopBackOff reservedMemory enableProfilingHandler
    enableDebugFlagsHandler seccompDefault memoryThrottlingFactor memoryReservationPolicy registerWithTaints registerNode tracing
    localStorageCapacityIsolation containerRuntimeEndpoint imageServiceEndpoint failCgroupV1 userNamespaces";

#[test]
fn limits_and_periods() {
    let pids = |c: &Config| format!("{:?} {:?} {:?}", c.pod_pids_limit, c.restart_initial, c.restart_most);
    check(
        "podPidsLimit: 64\ncrashLoopBackOff: {maxContainerRestartPeriod: 5s}",
        pids,
        expect!["Some(64) 5s 5s"],
    );
    check("podPidsLimit: -1", pids, expect!["None 10s 300s"]);
    check(
        "featureGates: {ReduceDefaultCrashLoopBackOffDecay: true, KubeletCrashLoopBackOffMax: false}",
        pids,
        expect!["None 1s 60s"],
    );
    check(
        "shutdownGracePeriod: 30s\nshutdownGracePeriodCriticalPods: 10s\nimageMaximumGCAge: 1h",
        |c| format!("{:?} {:?}", c.shutdown_periods, c.image_gc_max_age),
        expect![
            "[ShutdownPeriod { priority: 0, seconds: 20 }, ShutdownPeriod { priority: 2000000000, seconds: 10 }] Some(3600s)"
        ],
    );
    check(
        "evictionHard: {memory.available: 1Gi}\nmergeDefaultEvictionSettings: true\nserializeImagePulls: false",
        |c| format!("{} {}", c.eviction_thresholds.len(), c.parallel_image_pulls > 1),
        expect!["5 true"],
    );
    check(
        "cpuManagerPolicyOptions: {full-pcpus-only: \"true\"}\npodsPerCore: 3\nport: 10260\naddress: 127.0.0.2",
        |c| format!("{} {} {}", c.cpu_manager_options.full_cores, c.pods_per_core, c.address),
        expect!["true 3 127.0.0.2:10260"],
    );
}

#[test]
fn what_upstream_refuses() {
    let fails = |text: &str, expected: Expect| check(text, |_| "accepted".into(), expected);
    fails("maxPods: many", expect![[r#"failed to decode: invalid type: string "many", expected i64"#]]);
    fails(
        "maxPods: -1\npodsPerCore: -2",
        expect![
            "[invalid configuration: maxPods (--max-pods) -1 must not be a negative number, invalid configuration: podsPerCore (--pods-per-core) -2 must not be a negative number]"
        ],
    );
    fails(
        "imageGCLowThresholdPercent: 90",
        expect![
            "invalid configuration: imageGCLowThresholdPercent (--image-gc-low-threshold) 90 must be less than imageGCHighThresholdPercent (--image-gc-high-threshold) 85"
        ],
    );
    fails(
        "imageMaximumGCAge: 1m",
        expect!["invalid configuration: imageMaximumGCAge 1m0s must be greater than imageMinimumGCAge 2m0s"],
    );
    fails(
        "shutdownGracePeriod: 100ms",
        expect![
            "invalid configuration: shutdownGracePeriod {100ms} must be either zero or otherwise >= 1 sec"
        ],
    );
    fails(
        "shutdownGracePeriod: 1s\nshutdownGracePeriodByPodPriority: [{priority: 0, shutdownGracePeriodSeconds: 1}]",
        expect![
            "invalid configuration: Cannot specify both shutdownGracePeriodByPodPriority and shutdownGracePeriod at the same time"
        ],
    );
    fails(
        "crashLoopBackOff: {maxContainerRestartPeriod: 301s}",
        expect![
            "invalid configuration: CrashLoopBackOff.MaxContainerRestartPeriod (got: 301 seconds) must be set between 1s and 300s"
        ],
    );
    fails(
        "crashLoopBackOff: {maxContainerRestartPeriod: 30s}\nfeatureGates: {KubeletCrashLoopBackOffMax: false}",
        expect![
            "invalid configuration: FeatureGate KubeletCrashLoopBackOffMax not enabled, CrashLoopBackOff.MaxContainerRestartPeriod must not be set"
        ],
    );
    fails(
        "enforceNodeAllocatable: [pods, none]",
        expect![[
            r#"invalid configuration: enforceNodeAllocatable (--enforce-node-allocatable) may not contain additional enforcements when "none" is specified"#
        ]],
    );
    fails(
        "authentication: {anonymous: {enabled: true}}",
        expect![
            "invalid configuration: authentication.anonymous.enabled true: nobody is let in without a name"
        ],
    );
    fails(
        "readOnlyPort: 10255",
        expect!["invalid configuration: readOnlyPort 10255: there is no port that anybody may read"],
    );
    fails(
        "cpuManagerPolicyOptions: {align-by-socket: \"true\"}",
        expect![[
            r#"CPU Manager Policy Alpha-level Options not enabled, but option "align-by-socket" provided"#
        ]],
    );
    fails(
        "podLogsDir: logs/../x",
        expect![[
            r#"[invalid configuration: pod logs path "logs/../x" must be absolute path, invalid configuration: pod logs path "logs/../x" must be normalized]"#
        ]],
    );
}

#[test]
fn what_only_a_lenient_reader_takes_is_told() {
    let warned = |text: &str, expected: Expect| {
        let head = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
        let mut config = Config::new("n", "127.0.0.1");
        let warnings = apply(&format!("{head}{text}"), &mut config).unwrap();
        expected.assert_eq(&format!("{} {}", config.max_pods, warnings.join("\n")));
    };
    warned("maxPods: 7", expect!["7 "]);
    warned(
        "colour: red\nmaxPods: 7\nmemorySwap: {swap: x}\nreservedMemory: [{limits: {memory: 1Mi}}, {node: 1}]\nauthentication: {webhook: {ttl: 1s}}",
        expect![[
            r#"7 Using lenient decoding as strict decoding failed: strict decoding error: unknown field "authentication.webhook.ttl", unknown field "colour", unknown field "memorySwap.swap", unknown field "reservedMemory[1].node""#
        ]],
    );
    // The last one counts.
    warned(
        "maxPods: 6\nmaxPods: 7",
        expect![[r#"
        7 Using lenient decoding as strict decoding failed: strict decoding error: error converting YAML to JSON: yaml: unmarshal errors:
          line 4: key "maxPods" already set in map"#]],
    );
}

#[test]
fn drop_ins_go_over_the_file_in_the_order_of_their_names() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    let head = "kind: KubeletConfiguration\napiVersion: kubelet.config.k8s.io/v1beta1\n";
    let put = |name: &str, text: &str| std::fs::write(at(name), format!("{head}{text}")).unwrap();
    std::fs::create_dir_all(at("d/15-sub")).unwrap();
    put(
        "base",
        "maxPods: 5\nstaticPodPath: pods\nclusterDNS: [1.1.1.1]\nfeatureGates: {A: true, B: true}\npodsPerCore: 9",
    );
    put("d/20.conf", "maxPods: 7\nfeatureGates: {B: false}\nevictionHard: {memory.available: 1Gi}");
    put("d/10.conf", "maxPods: 6\nclusterDNS: [2.2.2.2]\nshape: round");
    put("d/15-sub/1.conf", "podsPerCore: null\nclusterDomain: x.y");
    put("d/30.yaml", "maxPods: 8");
    let load = |base: Option<&str>| {
        let mut config = Config::new("n", "127.0.0.1");
        let base = base.map(at);
        load(base.as_deref(), Some(&at("d")), &mut config).map(|warnings| {
            let path = config.static_pod_path.map(|path| path.strip_prefix(dir.path()).unwrap().to_owned());
            format!(
                "{} {} {:?} {} {:?} {} {path:?} {warnings:?}",
                config.max_pods,
                config.pods_per_core,
                config.cluster_dns,
                config.cluster_domain,
                config.features,
                config.eviction_thresholds.len()
            )
        })
    };
    expect![[r#"7 0 ["2.2.2.2"] x.y {"A": true, "B": false} 5 Some("pods") ["unknown field \"shape\" in a drop-in file"]"#]].assert_eq(&load(Some("base")).unwrap());
    expect![[r#"7 0 ["2.2.2.2"] x.y {"B": false} 1 None ["unknown field \"shape\" in a drop-in file"]"#]]
        .assert_eq(&load(None).unwrap());
    let says = |error: String| error.replace(dir.path().to_str().unwrap(), "");
    std::fs::write(at("d/40.conf"), "maxPods: 8").unwrap();
    expect![[r#"failed to merge kubelet configs: failed to walk through kubelet dropin directory "/d": failed to load kubelet dropin file, path: /d/40.conf, error: failed to decode: Object 'Kind' is missing"#]].assert_eq(&says(load(Some("base")).unwrap_err()));
    std::fs::write(at("d/40.conf"), "").unwrap();
    expect![[r#"failed to merge kubelet configs: failed to walk through kubelet dropin directory "/d": failed to load kubelet dropin file, path: /d/40.conf, error: kubelet config file "/d/40.conf" was empty"#]].assert_eq(&says(load(Some("base")).unwrap_err()));
    std::fs::write(at("base"), "").unwrap();
    expect![[r#"failed to load Kubelet config file /base, error kubelet config file "/base" was empty"#]]
        .assert_eq(&says(load(Some("base")).unwrap_err()));
}
