//! From lanes to clients: one thread that feeds the read model and answers waiting requests.
//!
//! Owns who waits for which answer. Lanes hand over and go on; only this thread and ingress take
//! the locks in here.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use tessera_hub_core::{Answer, RequestId};
use tessera_protocol::api::{AgentState, AgentView, JobView};
use tessera_protocol::id::AgentId;
use tessera_protocol::unit::LaneIndex;
use tokio::sync::oneshot;

use crate::ingress::Views;

/// Messages that may wait; the next is given back to its lane.
const QUEUE_MAX: usize = 16_384;

/// What a lane has for clients.
#[derive(Debug)]
pub enum ToClients {
    /// How a job looks.
    Job(Box<JobView>),
    /// How an agent looks.
    Agent(Box<AgentView>),
    /// An agent has no session on a lane any more.
    Away {
        /// Which.
        agent: AgentId,
        /// Which lane.
        lane: LaneIndex,
    },
    /// A request's answer.
    Answer {
        /// Which request.
        request: RequestId,
        /// What.
        answer: Answer,
    },
    /// End the thread.
    Stop,
}

/// The way to the clients, from any lane.
#[derive(Clone, Debug)]
pub struct Clients {
    queue: SyncSender<ToClients>,
    waiting: Arc<Waiting>,
}

/// Requests that wait for an answer.
#[derive(Debug, Default)]
pub struct Waiting {
    made: AtomicU64,
    senders: Mutex<HashMap<RequestId, oneshot::Sender<Answer>>>,
}

impl Waiting {
    /// A new request and where its answer arrives. Dropping the receiver gives it up.
    pub fn register(&self) -> (RequestId, oneshot::Receiver<Answer>) {
        let request = RequestId(self.made.fetch_add(1, Ordering::Relaxed));
        let (sender, receiver) = oneshot::channel();
        self.lock().insert(request, sender);
        (request, receiver)
    }

    /// Forgets a request that was never sent.
    pub fn withdraw(&self, request: RequestId) {
        self.lock().remove(&request);
    }

    fn answer(&self, request: RequestId, answer: Answer) {
        if let Some(sender) = self.lock().remove(&request) {
            // The client went away; the operation stands.
            let _ = sender.send(answer);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<RequestId, oneshot::Sender<Answer>>> {
        self.senders.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Clients {
    /// Starts the thread that feeds `views`.
    pub fn start(views: Arc<Views>) -> std::io::Result<(Clients, JoinHandle<()>)> {
        let (queue, inbox) = sync_channel(QUEUE_MAX);
        let waiting = Arc::new(Waiting::default());
        let clients = Clients { queue, waiting: waiting.clone() };
        let thread = std::thread::Builder::new()
            .name("tessera-clients".into())
            .spawn(move || feed(&inbox, &views, &waiting))?;
        Ok((clients, thread))
    }

    /// Hands a message over, or gives it back when too many wait.
    pub fn tell(&self, message: ToClients) -> Result<(), ToClients> {
        match self.queue.try_send(message) {
            Ok(()) => Ok(()),
            Err(TrySendError::Full(message)) => Err(message),
            // The hub is past the point where anyone listens.
            Err(TrySendError::Disconnected(_)) => Ok(()),
        }
    }

    /// Who waits.
    pub fn waiting(&self) -> &Arc<Waiting> {
        &self.waiting
    }

    /// Ends the thread after everything told before.
    pub fn stop(&self) {
        let _ = self.queue.send(ToClients::Stop);
    }
}

fn feed(inbox: &Receiver<ToClients>, views: &Views, waiting: &Waiting) {
    while let Ok(message) = inbox.recv() {
        match message {
            ToClients::Job(view) => views.publish_job(*view),
            ToClients::Agent(view) => views.publish_agent(*view),
            ToClients::Away { agent, lane } => away(views, agent, lane),
            ToClients::Answer { request, answer } => waiting.answer(request, answer),
            ToClients::Stop => return,
        }
    }
}

/// An agent that moved to another lane is not away, whichever lane speaks last.
fn away(views: &Views, agent: AgentId, lane: LaneIndex) {
    let Some(view) = views.agent(agent) else { return };
    if view.lane == Some(lane.0) {
        let gone = AgentView {
            state: AgentState::Away,
            lane: None,
            in_flight: 0,
            region: String::new(),
            kernels: Vec::new(),
            rest: None,
            ..(*view).clone()
        };
        views.publish_agent(gone);
    }
}
