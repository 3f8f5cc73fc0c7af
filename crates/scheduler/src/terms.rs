//! Affinity of pods to pods, compiled once per version of a pod: which pods a term means, and over which topology.

use crate::facts::Labels;
use api::core::v1::{Pod, PodAffinityTerm, WeightedPodAffinityTerm};
use apimachinery::labels::Selector;

/// Pods that a pod wants near, or far.
#[derive(Debug, Clone)]
pub struct Term {
    namespaces: Vec<String>,
    /// Matches nothing when the term has none.
    namespace_selector: Selector,
    selector: Selector,
    pub topology_key: String,
}

impl Term {
    fn new(pod: &Pod, term: &PodAffinityTerm) -> Self {
        // What validation let in parses; what does not, means no pod.
        let selector = |s| Selector::from_label_selector(s).unwrap_or_else(|_| Selector::nothing());
        let own = term.namespaces.is_empty() && term.namespace_selector.is_none();
        Term {
            namespaces: if own { vec![pod.metadata.namespace.clone()] } else { term.namespaces.clone() },
            namespace_selector: selector(term.namespace_selector.as_ref()),
            selector: selector(term.label_selector.as_ref()),
            topology_key: term.topology_key.clone(),
        }
    }

    /// Whether it means a pod with these labels in this namespace, whose labels are asked for only when they count.
    pub fn means<'a>(
        &self,
        namespace: &str,
        labels: &Labels,
        namespace_labels: impl FnOnce() -> Option<&'a Labels>,
    ) -> bool {
        self.selector.matches(labels)
            && (self.namespaces.iter().any(|n| n == namespace)
                || self.namespace_selector.is_empty()
                || !self.namespace_selector.is_nothing()
                    && namespace_labels().is_some_and(|l| self.namespace_selector.matches(l)))
    }
}

/// All terms of a pod. Anti-affinity preferences have negative weights.
#[derive(Debug, Clone)]
pub struct Terms {
    pub affinity: Vec<Term>,
    pub anti_affinity: Vec<Term>,
    pub preferred: Vec<(i64, Term)>,
}

impl Terms {
    /// The terms of a pod that has any.
    pub fn of(pod: &Pod) -> Option<Self> {
        let affinity = pod.spec.affinity.as_ref()?;
        let required =
            |terms: &[PodAffinityTerm]| terms.iter().map(|t| Term::new(pod, t)).collect::<Vec<_>>();
        let preferred = |terms: &[WeightedPodAffinityTerm], sign: i64| {
            let weighted = |t: &WeightedPodAffinityTerm| {
                (i64::from(t.weight) * sign, Term::new(pod, &t.pod_affinity_term))
            };
            terms.iter().map(weighted).collect::<Vec<_>>()
        };
        let mut terms = Terms { affinity: Vec::new(), anti_affinity: Vec::new(), preferred: Vec::new() };
        if let Some(near) = &affinity.pod_affinity {
            terms.affinity = required(&near.required_during_scheduling_ignored_during_execution);
            terms.preferred = preferred(&near.preferred_during_scheduling_ignored_during_execution, 1);
        }
        if let Some(far) = &affinity.pod_anti_affinity {
            terms.anti_affinity = required(&far.required_during_scheduling_ignored_during_execution);
            terms.preferred.extend(preferred(&far.preferred_during_scheduling_ignored_during_execution, -1));
        }
        let any =
            !(terms.affinity.is_empty() && terms.anti_affinity.is_empty() && terms.preferred.is_empty());
        any.then_some(terms)
    }
}
