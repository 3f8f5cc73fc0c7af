//! Jobs as a CronJob sees them.

use crate::pods::{BY_CONTROLLER, Controller};
use api::batch::v1::Job;
use apimachinery::time::Time;
use client::Projection;
use client::informer::Index;

/// How a job ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    Complete,
    Failed,
}

impl End {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            End::Complete => "Complete",
            End::Failed => "Failed",
        }
    }
}

/// What is kept of a job.
#[derive(Debug)]
pub(crate) struct JobFacts {
    pub controller: Option<Controller>,
    pub finished: Option<End>,
    pub started: Option<Time>,
    pub completed: Option<Time>,
    pub deleting: bool,
}

impl Projection for JobFacts {
    type Kind = Job;

    fn project(job: &Job) -> Self {
        let end =
            job.status.conditions.iter().filter(|condition| condition.status == "True").find_map(|c| match c
                .type_
                .as_str()
            {
                "Complete" => Some(End::Complete),
                "Failed" => Some(End::Failed),
                _ => None,
            });
        JobFacts {
            controller: Controller::of(&job.metadata.owner_references),
            finished: end,
            started: job.status.start_time,
            completed: job.status.completion_time,
            deleting: job.metadata.deletion_timestamp.is_some(),
        }
    }

    fn indices() -> &'static [Index<Self>] {
        &[(BY_CONTROLLER, |job| job.controller.iter().map(|c| c.uid.clone()).collect())]
    }
}

impl JobFacts {
    pub(super) fn succeeded(&self) -> bool {
        self.finished == Some(End::Complete)
    }
}
