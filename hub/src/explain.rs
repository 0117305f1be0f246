//! Explanations for clients: every lane is asked what it knows, and the answers are put together.

use tessera_hub_core::{Answer, Event, RequestId};
use tessera_protocol::explain::{AgentExplained, JobExplained};
use tessera_protocol::id::{AgentId, JobId};
use tessera_protocol::unit::LaneIndex;

use crate::backend::Hub;
use crate::ingress::backend::{AgentLookupError, LookupError, Outage};

impl Hub {
    /// Why a job stands where it stands. Of a job that has ended only that.
    pub(crate) async fn job_explained(&self, job: JobId) -> Result<JobExplained, LookupError> {
        let view = self.view(job).await?;
        let (mut home, mut lanes) = (None, Vec::new());
        if view.state.is_open() {
            let event = |request| Event::JobExplanationRequested { request, job };
            for answer in self.ask_all(event).await.map_err(LookupError::Outage)? {
                if let Answer::JobExplained(at_home, here) = answer {
                    home = home.or(at_home);
                    lanes.extend(here.map(|here| *here));
                }
            }
        }
        Ok(JobExplained::new(job, home, lanes))
    }

    /// What the lane that holds an agent's session knows of it.
    pub(crate) async fn agent_explained(&self, agent: AgentId) -> Result<AgentExplained, AgentLookupError> {
        let event = |request| Event::AgentExplanationRequested { request, agent };
        let answers = self.ask_all(event).await.map_err(AgentLookupError::Outage)?;
        let known = answers.into_iter().find_map(|answer| match answer {
            Answer::AgentExplained(explained) => explained,
            _ => None,
        });
        known.map(|explained| *explained).ok_or(AgentLookupError::NotConnected(agent))
    }

    /// Asks every lane, and waits once all are asked. *Order*: by lane.
    async fn ask_all(&self, event: impl Fn(RequestId) -> Event) -> Result<Vec<Answer>, Outage> {
        let lanes = (0..self.lanes.lanes()).map(LaneIndex);
        let asked = lanes.map(|lane| self.ask_lane(lane, &event)).collect::<Result<Vec<_>, _>>()?;
        let mut answers = Vec::with_capacity(asked.len());
        for answer in asked {
            answers.push(answer.await.map_err(|_| Outage::Unavailable)?);
        }
        Ok(answers)
    }
}
