//! One UDP socket of a fleet with its QUIC endpoint: many agents send from it, as they would behind one address.
//!
//! Owns packets. Knows no agent.

use std::io::{self, IoSliceMut};
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, UdpSocket};
use std::sync::Arc;
use std::time::Instant;

use bytes::BytesMut;
use quinn_proto::{
    ClientConfig, Connection, ConnectionEvent, ConnectionHandle, DatagramEvent, EcnCodepoint, Endpoint,
    EndpointConfig, EndpointEvent, Transmit,
};
use quinn_udp::{BATCH_SIZE, RecvMeta, UdpSocketState};

use super::SOCKET_BYTES;

/// Room for one receive: what GRO may join.
const RECEIVE_BYTES: usize = 64 << 10;
/// Datagrams of one send.
pub(super) const SEGMENTS_MAX: usize = 32;

/// What went over a socket. *Units*: bytes and datagrams, without IP and UDP headers.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Traffic {
    pub(crate) sent_bytes: u64,
    pub(crate) sent_datagrams: u64,
    pub(crate) received_bytes: u64,
    pub(crate) received_datagrams: u64,
}

impl std::ops::Add for Traffic {
    type Output = Traffic;

    fn add(self, other: Traffic) -> Traffic {
        Traffic {
            sent_bytes: self.sent_bytes + other.sent_bytes,
            sent_datagrams: self.sent_datagrams + other.sent_datagrams,
            received_bytes: self.received_bytes + other.received_bytes,
            received_datagrams: self.received_datagrams + other.received_datagrams,
        }
    }
}

impl std::ops::Sub for Traffic {
    type Output = Traffic;

    fn sub(self, earlier: Traffic) -> Traffic {
        Traffic {
            sent_bytes: self.sent_bytes - earlier.sent_bytes,
            sent_datagrams: self.sent_datagrams - earlier.sent_datagrams,
            received_bytes: self.received_bytes - earlier.received_bytes,
            received_datagrams: self.received_datagrams - earlier.received_datagrams,
        }
    }
}

pub(super) struct Port {
    hub: SocketAddr,
    socket: UdpSocket,
    udp: UdpSocketState,
    endpoint: Endpoint,
    room: Vec<u8>,
    answer: Vec<u8>,
    /// A send that the socket had no room for.
    blocked: Option<(Transmit, Vec<u8>)>,
    pub(super) traffic: Traffic,
}

impl Port {
    pub(super) fn open(hub: SocketAddr) -> io::Result<Port> {
        let local: SocketAddr = match hub {
            SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
            SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
        };
        let socket = UdpSocket::bind(local)?;
        let options = socket2::SockRef::from(&socket);
        // The system grants what it grants; what is lost for want of room is sent again.
        let _ = options.set_recv_buffer_size(SOCKET_BYTES);
        let _ = options.set_send_buffer_size(SOCKET_BYTES);
        let udp = UdpSocketState::new((&socket).into())?;
        let endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, !udp.may_fragment(), None);
        Ok(Port {
            hub,
            socket,
            udp,
            endpoint,
            room: vec![0; RECEIVE_BYTES * BATCH_SIZE],
            answer: Vec::new(),
            blocked: None,
            traffic: Traffic::default(),
        })
    }

    pub(super) fn socket(&self) -> &UdpSocket {
        &self.socket
    }

    pub(super) fn connect(
        &mut self,
        now: Instant,
        config: ClientConfig,
    ) -> Result<(ConnectionHandle, Connection), quinn_proto::ConnectError> {
        self.endpoint.connect(now, config, self.hub, "hub")
    }

    /// Takes one batch of what the socket holds. False once there is no more.
    pub(super) fn receive(
        &mut self,
        now: Instant,
        mut give: impl FnMut(ConnectionHandle, ConnectionEvent),
    ) -> io::Result<bool> {
        let mut metas = [RecvMeta::default(); BATCH_SIZE];
        let received = {
            let mut rooms = self.room.chunks_exact_mut(RECEIVE_BYTES).map(IoSliceMut::new);
            let mut rooms: [IoSliceMut<'_>; BATCH_SIZE] =
                std::array::from_fn(|_| rooms.next().expect("there is a room for each receive"));
            self.udp.recv((&self.socket).into(), &mut rooms, &mut metas)
        };
        let count = match received {
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            // What a hub that is away answers is no fault of the socket.
            Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(true),
            Err(error) => return Err(error),
        };
        for (room, meta) in self.room.chunks_exact(RECEIVE_BYTES).zip(&metas[..count]) {
            let mut batch = BytesMut::from(&room[..meta.len]);
            self.traffic.received_bytes += meta.len as u64;
            while !batch.is_empty() {
                let bytes = batch.split_to(meta.stride.clamp(1, batch.len()));
                self.traffic.received_datagrams += 1;
                let ecn = meta.ecn.and_then(|ecn| EcnCodepoint::from_bits(ecn as u8));
                self.answer.clear();
                match self.endpoint.handle(now, meta.addr, meta.dst_ip, ecn, bytes, &mut self.answer) {
                    Some(DatagramEvent::ConnectionEvent(handle, event)) => give(handle, event),
                    // A reset for a session that is no more: a machine without power sends none.
                    Some(DatagramEvent::Response(_)) => {}
                    Some(DatagramEvent::NewConnection(incoming)) => self.endpoint.ignore(incoming),
                    None => {}
                }
            }
        }
        Ok(count == BATCH_SIZE)
    }

    /// Carries between a connection and its endpoint. False once the connection is over.
    pub(super) fn relay(&mut self, handle: ConnectionHandle, connection: &mut Connection) -> bool {
        while let Some(event) = connection.poll_endpoint_events() {
            if let Some(event) = self.endpoint.handle_event(handle, event) {
                connection.handle_event(event);
            }
        }
        !connection.is_drained()
    }

    /// Gives the handle of a connection back that is dropped before it is drained.
    pub(super) fn drop_connection(&mut self, handle: ConnectionHandle) {
        self.endpoint.handle_event(handle, EndpointEvent::drained());
    }

    /// Tries a send again that found no room. False while there still is none.
    pub(super) fn unblock(&mut self) -> bool {
        let Some((transmit, bytes)) = self.blocked.take() else { return true };
        if send(&self.socket, &self.udp, &transmit, &bytes) {
            return true;
        }
        self.blocked = Some((transmit, bytes));
        false
    }

    /// Sends what a connection has to send. False when the socket has no room for more.
    pub(super) fn transmit(
        &mut self,
        now: Instant,
        connection: &mut Connection,
        buffer: &mut Vec<u8>,
    ) -> bool {
        if self.blocked.is_some() {
            return false;
        }
        let segments = self.udp.max_gso_segments().min(SEGMENTS_MAX);
        loop {
            buffer.clear();
            let Some(transmit) = connection.poll_transmit(now, segments, buffer) else { return true };
            self.traffic.sent_bytes += transmit.size as u64;
            let each = transmit.segment_size.unwrap_or(transmit.size).max(1);
            self.traffic.sent_datagrams += transmit.size.div_ceil(each) as u64;
            if !send(&self.socket, &self.udp, &transmit, buffer) {
                self.blocked = Some((transmit, std::mem::take(buffer)));
                return false;
            }
        }
    }
}

/// False when there is no room; other failures are a network that loses packets.
fn send(socket: &UdpSocket, udp: &UdpSocketState, transmit: &Transmit, bytes: &[u8]) -> bool {
    let datagrams = quinn_udp::Transmit {
        destination: transmit.destination,
        ecn: transmit.ecn.and_then(|ecn| quinn_udp::EcnCodepoint::from_bits(ecn as u8)),
        contents: &bytes[..transmit.size],
        segment_size: transmit.segment_size,
        src_ip: transmit.src_ip,
    };
    match udp.try_send(socket.into(), &datagrams) {
        Err(error) => error.kind() != io::ErrorKind::WouldBlock,
        Ok(()) => true,
    }
}
