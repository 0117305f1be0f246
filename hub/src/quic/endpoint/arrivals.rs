//! Clients that knock: who is admitted, who must prove its address first, who is turned away, and on
//! what terms QUIC and TLS are spoken with those let in.

use std::sync::Arc;

use quinn_proto::congestion::CubicConfig;
use quinn_proto::crypto::rustls::QuicServerConfig;
use quinn_proto::{ConnectionHandle, IdleTimeout, Incoming, ServerConfig, TransportConfig, VarInt};

use super::Sessions;
use crate::quic::event::SessionId;
use crate::quic::identity::{Identity, IdentityError};
use crate::quic::limits::{self, Limits};
use crate::quic::session::Session;

impl Sessions {
    /// A client knocks: it is refused, asked to prove its address, or waits to be admitted.
    pub(super) fn arrive(&mut self, incoming: Incoming) {
        let under_way = self.handshaking + self.arrivals.len();
        if self.refusing || self.occupied + self.arrivals.len() >= self.limits.sessions_max {
            self.refuse(incoming);
        } else if under_way >= self.limits.handshakes_max {
            self.counters.handshakes_turned_away += 1;
            self.endpoint.ignore(incoming);
        } else if under_way >= self.limits.handshakes_retry_above && incoming.may_retry() {
            self.counters.handshakes_retried += 1;
            self.send_buffer.clear();
            if let Ok(transmit) = self.endpoint.retry(incoming, &mut self.send_buffer) {
                self.respond(&transmit);
            }
        } else {
            self.arrivals.push_back(incoming);
        }
    }

    pub(super) fn refuse(&mut self, incoming: Incoming) {
        self.counters.handshakes_turned_away += 1;
        self.send_buffer.clear();
        let transmit = self.endpoint.refuse(incoming, &mut self.send_buffer);
        self.respond(&transmit);
    }

    /// Begins a turn's share of the handshakes that wait.
    pub(super) fn admit(&mut self) {
        for _ in 0..limits::HANDSHAKES_PER_TURN {
            let Some(incoming) = self.arrivals.pop_front() else { break };
            self.counters.handshakes_begun += 1;
            self.send_buffer.clear();
            match self.endpoint.accept(incoming, self.now, &mut self.send_buffer, None) {
                Ok((ConnectionHandle(slot), connection)) => {
                    let slot_number = u32::try_from(slot).expect("sessions_max keeps slots far below 2^32");
                    let id = SessionId { serial: self.next_serial, slot: slot_number };
                    self.next_serial = self.next_serial.wrapping_add(1);
                    if self.sessions.len() <= slot {
                        self.sessions.resize_with(slot + 1, || None);
                    }
                    let session = Session::new(id, connection, &self.limits, self.now);
                    self.sessions[slot] = Some(Box::new(session));
                    self.occupied += 1;
                    self.handshaking += 1;
                    self.touch(slot_number);
                }
                Err(error) => {
                    tracing::debug!(lane = %self.lane, error = %error.cause, "handshake not begun");
                    if let Some(transmit) = error.response {
                        self.respond(&transmit);
                    }
                }
            }
        }
    }
}

/// What every client of a lane is offered.
pub(super) fn server_config(identity: &Identity, limits: &Limits) -> Result<ServerConfig, IdentityError> {
    let tls = QuicServerConfig::try_from(identity.server_tls()?)
        .map_err(|_| IdentityError::Tls(rustls::Error::General("no QUIC initial cipher suite".into())))?;
    let idle = IdleTimeout::try_from(limits.idle_time_max)
        .map_err(|_| IdentityError::Tls(rustls::Error::General("idle time beyond QUIC's range".into())))?;
    let mut transport = TransportConfig::default();
    transport
        .max_concurrent_bidi_streams(limits::AGENT_BIDI_STREAMS.into())
        .max_concurrent_uni_streams(limits::AGENT_BULK_STREAMS_FIRST.into())
        .max_idle_timeout(Some(idle))
        .stream_receive_window(limits::STREAM_WINDOW_BYTES.into())
        .receive_window(VarInt::from_u32(limits::RECEIVE_WINDOW_BYTES))
        .send_window(limits::SEND_WINDOW_BYTES)
        .datagram_receive_buffer_size(None)
        .congestion_controller_factory(Arc::new(CubicConfig::default()));
    let mut server = ServerConfig::new(Arc::new(tls), Arc::new(identity.token_key()));
    server
        .transport_config(Arc::new(transport))
        .migration(true)
        .max_incoming(limits.handshakes_max)
        .incoming_buffer_size(limits::INCOMING_BUFFER_BYTES)
        .incoming_buffer_size_total(limits::INCOMING_BUFFER_TOTAL_BYTES);
    Ok(server)
}
