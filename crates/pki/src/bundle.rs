//! The PKI directory of a `tiphys server`: two authorities, the service-account key, and every certificate its parts
//! need, laid out and named as kubeadm does. `ensure` creates what is missing and renews what is due; calling it again
//! is how certificates rotate.

use std::{collections::BTreeSet, net::IpAddr, path::Path, time::Duration};

use jiff::Timestamp;

use crate::{
    Authority, Certificate, Error, Identity, Kubeconfig, PrivateKey, Profile, Result, San, Subject,
    files::{self, Access, Durability},
    kubeconfig::{Cluster, Data, NamedCluster, User},
};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// What the certificates must say.
#[derive(Clone, Debug)]
pub struct Params {
    pub node_name: String,
    pub node_ips: Vec<IpAddr>,
    /// The first address of each service range: the `kubernetes` Service.
    pub service_ips: Vec<IpAddr>,
    pub cluster_domain: String,
    /// Further names and addresses by which the API server is reached.
    pub extra_sans: Vec<San>,
    pub authority_ttl: Duration,
    /// Certificates of the components, which rotate live.
    pub component_ttl: Duration,
    /// The administrators' certificates, which people copy elsewhere.
    pub admin_ttl: Duration,
}

impl Params {
    pub fn new(node_name: &str, node_ips: &[IpAddr], service_ips: &[IpAddr]) -> Params {
        Params {
            node_name: node_name.to_owned(),
            node_ips: node_ips.to_vec(),
            service_ips: service_ips.to_vec(),
            cluster_domain: "cluster.local".to_owned(),
            extra_sans: Vec::new(),
            authority_ttl: 3650 * DAY,
            component_ttl: 90 * DAY,
            admin_ttl: 365 * DAY,
        }
    }

    fn apiserver_sans(&self) -> Vec<San> {
        let dns = |s: &str| San::Dns(s.to_owned());
        let mut sans = vec![
            dns("kubernetes"),
            dns("kubernetes.default"),
            dns("kubernetes.default.svc"),
            San::Dns(format!("kubernetes.default.svc.{}", self.cluster_domain)),
            dns("localhost"),
            dns(&self.node_name),
            San::Ip([127, 0, 0, 1].into()),
            San::Ip(std::net::Ipv6Addr::LOCALHOST.into()),
        ];
        sans.extend(self.service_ips.iter().chain(&self.node_ips).copied().map(San::Ip));
        sans.extend(self.extra_sans.iter().cloned());
        without_repeats(sans)
    }

    fn kubelet_sans(&self) -> Vec<San> {
        let mut sans = vec![San::Dns(self.node_name.clone()), San::Ip([127, 0, 0, 1].into())];
        sans.extend(self.node_ips.iter().copied().map(San::Ip));
        without_repeats(sans)
    }

    fn node_subject(&self) -> Subject {
        Subject::new(format!("system:node:{}", self.node_name), &["system:nodes"])
    }
}

fn without_repeats(sans: Vec<San>) -> Vec<San> {
    let mut seen = BTreeSet::new();
    sans.into_iter().filter(|s| seen.insert(s.clone())).collect()
}

/// Everything a `tiphys server` is known by.
#[derive(Debug)]
pub struct Bundle {
    /// `ca`: signs servers, clients and nodes.
    pub cluster_ca: Authority,
    /// `front-proxy-ca`: only for proxies that assert users in request headers.
    pub front_proxy_ca: Authority,
    /// What the API server shows.
    pub apiserver: Identity,
    /// What the API server shows to kubelets; user `kube-apiserver-kubelet-client`.
    pub apiserver_kubelet_client: Identity,
    /// What the API server shows to aggregated API servers; user `front-proxy-client`.
    pub front_proxy_client: Identity,
    pub kubelet_server: Identity,
    /// User `system:node:<name>`, group `system:nodes`.
    pub kubelet_client: Identity,
    pub scheduler: Identity,
    pub controller_manager: Identity,
    pub kube_proxy: Identity,
    /// User `kubernetes-admin`, group `kubeadm:cluster-admins` (bound to cluster-admin).
    pub admin: Identity,
    /// User `kubernetes-super-admin`, group `system:masters`: breaks glass when RBAC is broken.
    pub super_admin: Identity,
    /// Signs service-account tokens.
    pub service_account: PrivateKey,
    /// Names of the files that this call created or renewed.
    pub renewed: Vec<&'static str>,
}

impl Bundle {
    /// Loads the directory, creating and renewing what is missing, torn, due (less than a third of its life left) or
    /// says something else than `params`.
    pub fn ensure(directory: &Path, params: &Params) -> Result<Bundle> {
        Self::ensure_at(directory, params, Timestamp::now())
    }

    pub fn ensure_at(directory: &Path, params: &Params, now: Timestamp) -> Result<Bundle> {
        files::private_dir(directory)?;
        let mut room = Room { directory, now, renewed: Vec::new() };
        let ca = room.authority("ca", "kubernetes", params.authority_ttl)?;
        let front = room.authority("front-proxy-ca", "front-proxy-ca", params.authority_ttl)?;
        let service_account = room.service_account()?;

        let user = |name: &str| Profile::client(Subject::new(name, &[]), params.component_ttl);
        let admin = |name: &str, group: &str| Profile::client(Subject::new(name, &[group]), params.admin_ttl);
        let server = |subject, sans| Profile::server(subject, sans, params.component_ttl);
        let node = Profile::client(params.node_subject(), params.component_ttl);
        let api = server(Subject::new("kube-apiserver", &[]), params.apiserver_sans());
        let kubelet = server(params.node_subject(), params.kubelet_sans());

        Ok(Bundle {
            apiserver: room.identity("apiserver", &ca, &api)?,
            apiserver_kubelet_client: room.identity(
                "apiserver-kubelet-client",
                &ca,
                &user("kube-apiserver-kubelet-client"),
            )?,
            front_proxy_client: room.identity("front-proxy-client", &front, &user("front-proxy-client"))?,
            kubelet_server: room.identity("kubelet", &ca, &kubelet)?,
            kubelet_client: room.identity("kubelet-client", &ca, &node)?,
            scheduler: room.identity("scheduler", &ca, &user("system:kube-scheduler"))?,
            controller_manager: room.identity(
                "controller-manager",
                &ca,
                &user("system:kube-controller-manager"),
            )?,
            kube_proxy: room.identity("kube-proxy", &ca, &user("system:kube-proxy"))?,
            admin: room.identity("admin", &ca, &admin("kubernetes-admin", "kubeadm:cluster-admins"))?,
            super_admin: room.identity(
                "super-admin",
                &ca,
                &admin("kubernetes-super-admin", "system:masters"),
            )?,
            cluster_ca: ca,
            front_proxy_ca: front,
            service_account,
            renewed: room.renewed,
        })
    }

    /// A kubeconfig without a user, as YAML: where the cluster is, and its authority. What kubeadm publishes as
    /// `cluster-info`.
    pub fn cluster_info(&self, server: &str) -> Result<String> {
        let cluster = NamedCluster { name: String::new(), cluster: self.cluster(server) };
        let config = Kubeconfig {
            api_version: "v1".into(),
            kind: "Config".into(),
            clusters: vec![cluster],
            ..Kubeconfig::default()
        };
        config.to_yaml()
    }

    fn cluster(&self, server: &str) -> Cluster {
        Cluster {
            server: server.to_owned(),
            certificate_authority_data: Data(self.cluster_ca.certificate.to_pem().into_bytes()),
            ..Cluster::default()
        }
    }

    /// A kubeconfig with everything inline: `server` as a URL, one of the client identities, its user's name.
    pub fn kubeconfig(&self, server: &str, identity: &Identity) -> Kubeconfig {
        let cluster = self.cluster(server);
        let user = User {
            client_certificate_data: Data(identity.certificate.to_pem().into_bytes()),
            client_key_data: Data(identity.key.to_pem().into_bytes()),
            ..User::default()
        };
        Kubeconfig::single("kubernetes", cluster, &identity.certificate.subject.common_name, user)
    }
}

struct Room<'a> {
    directory: &'a Path,
    now: Timestamp,
    renewed: Vec<&'static str>,
}

impl Room<'_> {
    fn read(&self, name: &str) -> Result<Option<Vec<u8>>> {
        files::read_if_present(&self.directory.join(name))
    }

    fn write(&self, name: &str, content: &str, access: Access, durability: Durability) -> Result<()> {
        files::write(&self.directory.join(name), content.as_bytes(), access, durability)
    }

    /// An authority is never replaced by another: when it is due, a new certificate is made over the same key, so
    /// that all it signed stays valid. A file that is there and cannot be read is an error, not a reason to start over.
    fn authority(&mut self, name: &'static str, common_name: &str, ttl: Duration) -> Result<Authority> {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        let authority = match (self.read(&certificate)?, self.read(&key)?) {
            (Some(c), Some(k)) => {
                let authority = Authority::from_pem(&c, &k)?;
                if !authority.certificate.is_due(self.now) {
                    return Ok(authority);
                }
                authority.renew(ttl, self.now)?
            }
            (Some(_), None) => {
                return Err(Error::Certificate(format!("{certificate} is there but its key {key} is not")));
            }
            // The key is written first: without a certificate it has signed nothing yet.
            (None, Some(k)) => Authority::create_over(PrivateKey::from_pem(&k)?, common_name, ttl, self.now)?,
            (None, None) => {
                let authority = Authority::create(common_name, ttl, self.now)?;
                self.write(&key, &authority.key.to_pem(), Access::Secret, Durability::Synced)?;
                authority
            }
        };
        self.write(&certificate, &authority.certificate.to_pem(), Access::Public, Durability::Synced)?;
        self.renewed.push(name);
        Ok(authority)
    }

    fn service_account(&mut self) -> Result<PrivateKey> {
        if let Some(pem) = self.read("sa.key")? {
            return PrivateKey::from_pem(&pem);
        }
        let key = PrivateKey::generate()?;
        self.write("sa.pub", &key.public().to_pem(), Access::Public, Durability::Renamed)?;
        self.write("sa.key", &key.to_pem(), Access::Secret, Durability::Synced)?;
        self.renewed.push("sa");
        Ok(key)
    }

    fn identity(&mut self, name: &'static str, by: &Authority, profile: &Profile) -> Result<Identity> {
        let (certificate, key) = (format!("{name}.crt"), format!("{name}.key"));
        if let (Some(c), Some(k)) = (self.read(&certificate)?, self.read(&key)?)
            && let Ok(old) = Identity::from_pem(&c, &k)
            && self.still_good(&old.certificate, by, profile)
        {
            return Ok(old);
        }
        let identity = by.issue(profile, self.now)?;
        // A crash between the two leaves a pair that does not match, which the next start makes again.
        self.write(&key, &identity.key.to_pem(), Access::Secret, Durability::Renamed)?;
        self.write(&certificate, &identity.certificate.to_pem(), Access::Public, Durability::Renamed)?;
        self.renewed.push(name);
        Ok(identity)
    }

    fn still_good(&self, old: &Certificate, by: &Authority, profile: &Profile) -> bool {
        let sorted = |sans: &[San]| sans.iter().cloned().collect::<BTreeSet<_>>();
        !old.is_due(self.now)
            && old.subject == profile.subject
            && sorted(&old.sans) == sorted(&profile.sans)
            && old.is_signed_by(&by.certificate)
    }
}
