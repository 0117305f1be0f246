//! The listener and its thread: accepts within its limits and stops in good order.

use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::Backend;
use super::connection;
use super::door::Door;
use super::limits::Limits;
use super::routes;

/// Blocking threads for reading large documents, so that parsing stops nobody else.
const PARSER_THREADS: usize = 2;
/// Pause after a failed accept: the usual cause, no descriptor left, passes when a connection closes.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// A running HTTP API. Dropping it stops the API without waiting for it.
#[derive(Debug)]
pub struct ServerHandle {
    address: SocketAddr,
    stopping: watch::Sender<bool>,
    thread: JoinHandle<()>,
}

/// Starts the HTTP API on `listener`, on a thread of its own.
///
/// Whoever reaches a loopback listener may read `/metrics` without a key; on every other address it
/// needs one, because its labels name projects and agents.
///
/// *Errors*: the listener has no address, or the thread or its event loop cannot start.
pub fn serve(listener: TcpListener, backend: Arc<dyn Backend>, limits: Limits) -> io::Result<ServerHandle> {
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let (sender, stopping) = watch::channel(false);
    let door = Door::new(backend, limits, stopping, address.ip().is_loopback());
    let runtime = Builder::new_current_thread().enable_all().max_blocking_threads(PARSER_THREADS).build()?;
    let run = move || run(&runtime, listener, &Arc::new(door));
    let thread = std::thread::Builder::new().name("tessera-http".into()).spawn(run)?;
    Ok(ServerHandle { address, stopping: sender, thread })
}

impl ServerHandle {
    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Stops accepting, ends event streams, and lets running requests finish. Returns at once.
    pub fn stop(&self) {
        self.stopping.send_replace(true);
    }

    /// Stops as [`ServerHandle::stop`] does and waits until it has, at most about
    /// [`Limits::grace_time_max`].
    pub fn join(self) {
        self.stop();
        if self.thread.join().is_err() {
            tracing::error!("the HTTP thread panicked");
        }
    }
}

fn run(runtime: &Runtime, listener: TcpListener, door: &Arc<Door>) {
    runtime.block_on(async {
        match tokio::net::TcpListener::from_std(listener) {
            Ok(listener) => accept(listener, door).await,
            Err(error) => tracing::error!(%error, "the HTTP listener cannot be polled"),
        }
    });
}

async fn accept(listener: tokio::net::TcpListener, door: &Arc<Door>) {
    let router = routes::router(door.clone());
    let mut stopping = door.stopping.clone();
    let mut connections = JoinSet::new();
    loop {
        while let Some(ended) = connections.try_join_next() {
            if ended.is_err() {
                tracing::error!("a request panicked; its connection is closed");
            }
        }
        let next = async {
            let place = door.connections.clone().acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            next = next => next,
            _ = stopping.wait_for(|stopping| *stopping) => break,
        };
        let stream = match accepted {
            Ok((stream, _)) => stream,
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
                continue;
            }
        };
        // Small answers must not wait for the client's acknowledgement. Failing costs only latency.
        let _ = stream.set_nodelay(true);
        let (router, door) = (router.clone(), door.clone());
        connections.spawn(async move {
            let _place = place;
            connection::serve(stream, router, &door.limits, door.stopping.clone()).await;
        });
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(door.limits.grace_time_max, all).await.is_err() {
        tracing::warn!("requests were still running at the end of the grace time");
    }
}
