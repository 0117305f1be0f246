//! A small agent for tests: tokio `quinn`, raw public keys both ways, pinning the hub's.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, Error, SignatureScheme};
use tessera_hub::quic::{Identity, PublicKey};

/// How long anything on loopback may take before a test fails.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits, but not for ever.
pub(crate) async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    match tokio::time::timeout(PATIENCE, future).await {
        Ok(value) => value,
        Err(_) => panic!("{what} did not happen within {PATIENCE:?}"),
    }
}

/// Runs a test's agents on this thread.
pub(crate) fn run<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime").block_on(future)
}

/// TLS of an agent that has `identity`, if any, and trusts only `hub`.
pub(crate) fn client_config(identity: Option<&Identity>, hub: PublicKey, alpn: &[u8]) -> quinn::ClientConfig {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = rustls::ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(PinnedKey { hub, provider }));
    let mut tls = match identity {
        Some(identity) => {
            let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(identity.pkcs8()));
            let raw_key = CertificateDer::from(identity.public_key().to_spki().to_vec());
            let certified = Arc::new(CertifiedKey::new(vec![raw_key], key.expect("an Ed25519 key")));
            builder.with_client_cert_resolver(Arc::new(
                rustls::client::AlwaysResolvesClientRawPublicKeys::new(certified),
            ))
        }
        None => builder.with_no_client_auth(),
    };
    tls.alpn_protocols = vec![alpn.to_vec()];
    let mut transport = quinn::TransportConfig::default();
    transport.keep_alive_interval(Some(Duration::from_secs(5)));
    let mut config =
        quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls).expect("QUIC over TLS 1.3")));
    config.transport_config(Arc::new(transport));
    config
}

#[derive(Debug)]
struct PinnedKey {
    hub: PublicKey,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        match PublicKey::from_spki(end_entity) {
            Some(key) if key == self.hub => Ok(ServerCertVerified::assertion()),
            _ => Err(CertificateError::ApplicationVerificationFailure.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        unreachable!("QUIC is TLS 1.3")
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let raw_key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        verify_tls13_signature_with_raw_key(
            message,
            &raw_key,
            dss,
            &self.provider.signature_verification_algorithms,
        )
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

/// An agent with a socket of its own.
pub(crate) struct Agent {
    pub(crate) identity: Identity,
    pub(crate) endpoint: quinn::Endpoint,
    pub(crate) connection: quinn::Connection,
    pub(crate) control: (quinn::SendStream, quinn::RecvStream),
}

impl Agent {
    /// Connects with a new identity and opens the control stream; nothing has been said on it yet.
    pub(crate) async fn connect(address: SocketAddr, hub: PublicKey) -> Agent {
        let identity = Identity::generate().expect("a key");
        let local: SocketAddr =
            if address.is_ipv6() { "[::1]:0" } else { "127.0.0.1:0" }.parse().expect("loopback");
        let endpoint = quinn::Endpoint::client(local).expect("a UDP socket");
        let config = client_config(Some(&identity), hub, b"tessera/2");
        let connecting = endpoint.connect_with(config, address, "hub").expect("a valid address");
        let connection = soon("the handshake", connecting).await.expect("a session");
        let control = connection.open_bi().await.expect("the control stream");
        Agent { identity, endpoint, connection, control }
    }

    /// Connects and is welcomed: its first control frame has come back, and the work stream is open
    /// because the hub has sent its first frame on it.
    pub(crate) async fn welcomed(
        address: SocketAddr,
        hub: PublicKey,
    ) -> (Agent, (quinn::SendStream, quinn::RecvStream)) {
        let mut agent = Agent::connect(address, hub).await;
        assert_eq!(agent.say(b"\x01hello").await, b"\x01hello");
        let mut work = soon("the work stream", agent.connection.accept_bi()).await.expect("the work stream");
        assert_eq!(read_frame(&mut work.1).await, b"\x01welcome");
        (agent, work)
    }

    /// Says something on the control stream and waits for the answer.
    pub(crate) async fn say(&mut self, body: &[u8]) -> Vec<u8> {
        write_frame(&mut self.control.0, body).await;
        read_frame(&mut self.control.1).await
    }

    /// Moves to another UDP port.
    pub(crate) fn change_port(&self) {
        let socket = std::net::UdpSocket::bind("127.0.0.1:0").expect("a UDP socket");
        self.endpoint.rebind(socket).expect("a new port");
    }

    /// How the session ended: the hub's code and words.
    pub(crate) async fn closed(&self) -> (u64, String) {
        match soon("the end of the session", self.connection.closed()).await {
            quinn::ConnectionError::ApplicationClosed(close) => {
                (close.error_code.into_inner(), String::from_utf8_lossy(&close.reason).into_owned())
            }
            other => panic!("the hub did not close the session: {other}"),
        }
    }
}

/// Writes a length prefix and a body.
pub(crate) async fn write_frame(stream: &mut quinn::SendStream, body: &[u8]) {
    let length = u32::try_from(body.len()).expect("a small frame");
    let mut frame = length.to_le_bytes().to_vec();
    frame.extend_from_slice(body);
    soon("a write", stream.write_all(&frame)).await.expect("a writable stream");
}

/// Reads a length prefix and a body.
pub(crate) async fn read_frame(stream: &mut quinn::RecvStream) -> Vec<u8> {
    let mut prefix = [0; 4];
    soon("a frame", stream.read_exact(&mut prefix)).await.expect("a prefix");
    let mut body = vec![0; u32::from_le_bytes(prefix) as usize];
    soon("a frame's body", stream.read_exact(&mut body)).await.expect("a body");
    body
}
