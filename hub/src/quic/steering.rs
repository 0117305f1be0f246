//! The port's sockets, one for each lane, and the kernel's part in finding a packet's lane.
//!
//! All lanes bind one UDP port with `SO_REUSEPORT`; the kernel numbers the sockets in the order they
//! were bound, which is lane order. A classic packet filter on the group reads the lane from the
//! connection id, so an agent whose address changes stays on its lane. Where the kernel refuses the
//! filter, it picks by a hash of the addresses, and lanes forward what is not theirs.

use std::fmt;
use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::{Duration, Instant};

use socket2::{Domain, Protocol, Socket, Type};

use super::connection_id::{
    CONNECTION_ID_BYTES, LONG_HEADER_BIT, LONG_HEADER_ID_LENGTH_OFFSET, LONG_HEADER_ID_OFFSET,
    SHORT_HEADER_ID_OFFSET,
};
use super::{LANES_MAX, LaneIndex};

/// Buffer asked for on each side of each socket: 20 ms of 1.6 Gbit/s. The kernel may grant less.
const SOCKET_BUFFER_BYTES: usize = 4 << 20;
/// How long a port may stay taken after the hub that had it has ended. Measured: well under 100 ms.
const RELEASE_TIME_MAX: Duration = Duration::from_millis(500);
/// How often a taken port is tried.
const RELEASE_POLL: Duration = Duration::from_millis(10);

/// What an operator asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum SteeringPreference {
    /// The kernel's filter, or forwarding where it is refused.
    #[default]
    Kernel,
    /// Forwarding even where the kernel would steer.
    ForwardOnly,
}

/// How packets find their lane on this port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steering {
    /// There is one lane; every packet is its.
    OneLane,
    /// The kernel reads connection ids.
    Kernel,
    /// The kernel hashes addresses, lanes forward.
    Forwarding,
}

/// Why the port could not be opened.
#[derive(Debug)]
pub enum SteeringError {
    /// No lanes, or more than [`LANES_MAX`].
    Lanes(u16),
    /// The address is taken, not ours, or not permitted.
    Bind {
        /// The address asked for.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// One of the group's further sockets could not be opened.
    Socket {
        /// Whose.
        lane: LaneIndex,
        /// What the system said.
        source: io::Error,
    },
}

impl fmt::Display for SteeringError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            SteeringError::Lanes(lanes) => write!(f, "{lanes} lanes cannot be: a hub has 1 to {LANES_MAX}"),
            SteeringError::Bind { address, source } if source.kind() == io::ErrorKind::AddrInUse => {
                write!(f, "UDP {address} is in use: stop the program that has it, or listen on another port")
            }
            SteeringError::Bind { address, source } => write!(f, "UDP {address} cannot be bound: {source}"),
            SteeringError::Socket { lane, source } => {
                write!(f, "the UDP socket of {lane} cannot be opened: {source}")
            }
        }
    }
}

impl std::error::Error for SteeringError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            SteeringError::Lanes(_) => None,
            SteeringError::Bind { source, .. } | SteeringError::Socket { source, .. } => Some(source),
        }
    }
}

/// The sockets of one port, in lane order. They are opened together and closed together.
#[derive(Debug)]
pub struct LaneSockets {
    sockets: Vec<UdpSocket>,
    address: SocketAddr,
    steering: Steering,
}

impl LaneSockets {
    /// Opens `lanes` sockets on `address`; with port 0 the system picks one port for all.
    pub fn open(
        address: SocketAddr,
        lanes: u16,
        preference: SteeringPreference,
    ) -> Result<LaneSockets, SteeringError> {
        if lanes == 0 || lanes > LANES_MAX {
            return Err(SteeringError::Lanes(lanes));
        }
        // A socket that shares its port would join another hub's group without a word. One that does
        // not share it finds out.
        let alone = bind_patiently(address).map_err(|source| SteeringError::Bind { address, source })?;
        let address = alone.local_addr().map_err(|source| SteeringError::Bind { address, source })?;
        if lanes == 1 {
            return Ok(LaneSockets { sockets: vec![alone], address, steering: Steering::OneLane });
        }
        drop(alone);
        let mut sockets = Vec::with_capacity(usize::from(lanes));
        for lane in 0..lanes {
            let socket = bind(address, true);
            sockets.push(socket.map_err(|source| SteeringError::Socket { lane: LaneIndex(lane), source })?);
        }
        let steering = match preference {
            SteeringPreference::ForwardOnly => Steering::Forwarding,
            SteeringPreference::Kernel => match attach_filter(&sockets[0]) {
                Ok(()) => Steering::Kernel,
                Err(error) => {
                    tracing::warn!(%error, "the kernel refused the steering filter: lanes forward packets instead");
                    Steering::Forwarding
                }
            },
        };
        Ok(LaneSockets { sockets, address, steering })
    }

    /// Where the port listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// How packets find their lane.
    pub fn steering(&self) -> Steering {
        self.steering
    }

    /// How many lanes the port has.
    pub fn lanes(&self) -> u16 {
        u16::try_from(self.sockets.len()).expect("open() bounds the lanes")
    }

    /// The sockets, in lane order.
    pub fn into_sockets(self) -> Vec<UdpSocket> {
        self.sockets
    }
}

/// Binds alone. A hub that has just ended gets a moment to let go of the port: the kernel frees a socket
/// that an io_uring watched a little after the ring.
fn bind_patiently(address: SocketAddr) -> io::Result<UdpSocket> {
    let until = Instant::now() + RELEASE_TIME_MAX;
    loop {
        match bind(address, false) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse && Instant::now() < until => {
                std::thread::sleep(RELEASE_POLL);
            }
            outcome => return outcome,
        }
    }
}

fn bind(address: SocketAddr, shared: bool) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(false)?;
    }
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // Smaller buffers cost speed, not correctness.
    let _ = socket.set_recv_buffer_size(SOCKET_BUFFER_BYTES);
    let _ = socket.set_send_buffer_size(SOCKET_BUFFER_BYTES);
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The filter, as [`super::lane_named_by`]: it returns a socket's number; a number that no socket has
/// leaves the choice to the kernel's hash. Offsets count from the start of the UDP payload.
fn filter() -> [libc::sock_filter; 9] {
    use libc::{BPF_ABS, BPF_B, BPF_JEQ, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET};
    let statement = |code: u32, k: u32| libc::sock_filter { code: code as u16, jt: 0, jf: 0, k };
    let jump = |code: u32, k: u32, jt: u8, jf: u8| libc::sock_filter { code: code as u16, jt, jf, k };
    /// Returns the byte that was loaded: `BPF_RET | BPF_A`.
    const RETURN_LOADED: u32 = libc::BPF_RET | 0x10;
    [
        statement(BPF_LD | BPF_B | BPF_ABS, 0),
        jump(BPF_JMP | BPF_JSET | BPF_K, u32::from(LONG_HEADER_BIT), 0, 4),
        statement(BPF_LD | BPF_B | BPF_ABS, LONG_HEADER_ID_LENGTH_OFFSET as u32),
        jump(BPF_JMP | BPF_JEQ | BPF_K, CONNECTION_ID_BYTES as u32, 0, 4),
        statement(BPF_LD | BPF_B | BPF_ABS, LONG_HEADER_ID_OFFSET as u32),
        statement(RETURN_LOADED, 0),
        statement(BPF_LD | BPF_B | BPF_ABS, SHORT_HEADER_ID_OFFSET as u32),
        statement(RETURN_LOADED, 0),
        statement(BPF_RET | BPF_K, u32::MAX),
    ]
}

fn attach_filter(socket: &UdpSocket) -> io::Result<()> {
    let mut filter = filter();
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_mut_ptr() };
    // SAFETY: the kernel copies the program, which points at `filter`, during the call; the length
    // passed is that of the structure.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
