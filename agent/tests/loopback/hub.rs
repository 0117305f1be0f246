//! A hub of a few lines, for tests: raw keys both ways, one session at a time, every frame by hand.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicServerConfig;
use quinn::{Connection, Endpoint, RecvStream, SendStream, ServerConfig};
use ring::signature::{Ed25519KeyPair, KeyPair};
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::AlwaysResolvesServerRawPublicKeys;
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{DigitallySignedStruct, DistinguishedName, SignatureScheme};
use tessera_protocol::id::AgentId;
use tessera_protocol::limits;
use tessera_protocol::token::EnrolmentToken;
use tessera_protocol::wire::{
    self, AgentControl, AgentWork, BulkHeader, Hello, HubControl, HubWork, Message, Welcome,
};

const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// Long enough for a loaded machine, short enough for a person.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A hub's key pair.
#[derive(Clone)]
pub(crate) struct HubIdentity {
    pkcs8: Vec<u8>,
    pub(crate) public_key: [u8; 32],
}

impl HubIdentity {
    pub(crate) fn new() -> HubIdentity {
        let document = Ed25519KeyPair::generate_pkcs8(&ring::rand::SystemRandom::new()).expect("a key");
        let pair = Ed25519KeyPair::from_pkcs8(document.as_ref()).expect("a key");
        HubIdentity {
            pkcs8: document.as_ref().to_vec(),
            public_key: pair.public_key().as_ref().try_into().expect("32 bytes"),
        }
    }

    pub(crate) fn token(&self) -> EnrolmentToken {
        EnrolmentToken { hub_key: self.public_key, secret: [0x5e; 32] }
    }
}

pub(crate) struct Hub {
    endpoint: Endpoint,
}

impl Hub {
    pub(crate) fn start(identity: &HubIdentity) -> Hub {
        Hub::start_at(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), identity)
    }

    pub(crate) fn start_at(address: SocketAddr, identity: &HubIdentity) -> Hub {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&identity.pkcs8[..]));
        let spki = [&SPKI_PREFIX[..], &identity.public_key].concat();
        let certified = CertifiedKey::new(vec![CertificateDer::from(spki)], key.expect("an Ed25519 key"));
        let any = AnyKey(provider.signature_verification_algorithms);
        let mut tls = rustls::ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("TLS 1.3")
            .with_client_cert_verifier(Arc::new(any))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(Arc::new(certified))));
        tls.alpn_protocols = vec![limits::ALPN.to_vec()];
        let server = ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).expect("QUIC")));
        Hub { endpoint: Endpoint::server(server, address).expect("a free port") }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().expect("a bound socket")
    }

    /// The next agent that says hello.
    pub(crate) async fn greeted(&self) -> Session {
        let greeted = async {
            loop {
                let incoming = self.endpoint.accept().await.expect("an open endpoint");
                if let Ok(connection) = incoming.await {
                    return Session::greeted(connection).await;
                }
            }
        };
        tokio::time::timeout(PATIENCE, greeted).await.expect("an agent says hello")
    }

    /// The next agent, welcomed.
    pub(crate) async fn welcomed(&self, credit: u32) -> Session {
        let mut session = self.greeted().await;
        session.welcome(credit).await;
        session
    }

    /// Lets handshakes come and fail.
    pub(crate) async fn refuse_handshakes(&self) {
        while let Some(incoming) = self.endpoint.accept().await {
            // The agent hangs up on a key it does not know.
            let _ = incoming.await;
        }
    }

    /// Disappears, telling every agent. The port is free again once all sessions are dropped.
    pub(crate) async fn stop(self) {
        self.endpoint.close(1u32.into(), b"stopping");
        self.endpoint.wait_idle().await;
        drop(self.endpoint);
        // The endpoint's task lets go of the socket when it next runs.
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) struct Session {
    pub(crate) connection: Connection,
    pub(crate) agent: AgentId,
    pub(crate) hello: Hello,
    pub(crate) control_out: SendStream,
    control_in: RecvStream,
    work: Option<(SendStream, RecvStream)>,
}

impl Session {
    async fn greeted(connection: Connection) -> Session {
        let shown =
            connection.peer_identity().expect("a key").downcast::<Vec<CertificateDer>>().expect("a key");
        let key = shown[0].strip_prefix(&SPKI_PREFIX).expect("an Ed25519 key");
        let (control_out, mut control_in) = connection.accept_bi().await.expect("a control stream");
        let Some(AgentControl::Hello(hello)) = read(&mut control_in).await else { panic!("no hello") };
        let agent = AgentId::of_key(key.try_into().expect("32 bytes"));
        Session { connection, agent, hello, control_out, control_in, work: None }
    }

    pub(crate) async fn welcome(&mut self, credit: u32) {
        let welcome = Welcome { agent: self.agent.0, heartbeat_ms: 200, credit, lane: 3 };
        self.control(&HubControl::Welcome(welcome)).await;
        self.work = Some(self.connection.open_bi().await.expect("a work stream"));
    }

    pub(crate) async fn control(&mut self, message: &HubControl) {
        write(&mut self.control_out, message).await;
    }

    pub(crate) async fn work(&mut self, message: &HubWork) {
        write(self.work_out(), message).await;
    }

    pub(crate) fn work_out(&mut self) -> &mut SendStream {
        &mut self.work.as_mut().expect("a welcomed agent").0
    }

    pub(crate) async fn bulk(&mut self, bytes: &[u8]) {
        let mut stream = self.connection.open_uni().await.expect("a stream");
        stream.write_all(bytes).await.expect("the agent reads");
        stream.finish().expect("an open stream");
    }

    /// The next frame on the work stream.
    pub(crate) async fn answer(&mut self) -> AgentWork {
        let stream = &mut self.work.as_mut().expect("a welcomed agent").1;
        tokio::time::timeout(PATIENCE, read(stream)).await.expect("an answer").expect("an open stream")
    }

    /// The next payload.
    pub(crate) async fn payload(&mut self) -> (BulkHeader, Vec<u8>) {
        let opened = tokio::time::timeout(PATIENCE, self.connection.accept_uni()).await;
        let mut stream = opened.expect("a payload").expect("an open session");
        let bytes = stream.read_to_end(limits::BULK_BYTES_MAX).await.expect("a whole payload");
        let (header, payload) = wire::read_bulk(&bytes).expect("a payload of the protocol");
        (header, payload.to_vec())
    }

    /// The next control frame of the agent; `None` when the session is over.
    pub(crate) async fn said(&mut self) -> Option<AgentControl> {
        tokio::time::timeout(PATIENCE, read(&mut self.control_in)).await.expect("the agent speaks or leaves")
    }

    /// The code and words with which the agent closes.
    pub(crate) async fn closed_by_agent(&self) -> (u64, String) {
        let closed = tokio::time::timeout(PATIENCE, self.connection.closed()).await;
        match closed.expect("the agent closes the session") {
            quinn::ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
            }
            error => panic!("closed by {error}"),
        }
    }
}

async fn write(stream: &mut SendStream, message: &impl Message) {
    let mut frame = Vec::new();
    message.frame(&mut frame);
    stream.write_all(&frame).await.expect("the agent reads");
}

async fn read<M: Message>(stream: &mut RecvStream) -> Option<M> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).await.ok()?;
    let mut body = vec![0; u32::from_le_bytes(length) as usize];
    stream.read_exact(&mut body).await.ok()?;
    Some(M::read(&body).expect("a frame of the protocol"))
}

#[derive(Debug)]
struct AnyKey(WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(rustls::Error::General("TLS 1.3 only".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature_with_raw_key(
            message,
            &SubjectPublicKeyInfoDer::from(cert.as_ref()),
            dss,
            &self.0,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
