//! TLS of simulated agents: each shows a key of its own and trusts one hub.

use std::sync::Arc;
use std::time::Duration;

use quinn_proto::crypto::rustls::QuicClientConfig;
use quinn_proto::{ClientConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{CryptoProvider, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, PeerIncompatible, SignatureScheme};
use tessera_hub::quic::{Identity, PublicKey};
use tessera_protocol::limits::ALPN;

/// As agents do it, so that a silent fleet costs what a silent fleet costs.
const KEEP_ALIVE: Duration = Duration::from_secs(5);
const IDLE_MS_MAX: u32 = 12_000;
const HUB_BIDI_STREAMS: u32 = 1;
const HUB_BULK_STREAMS: u32 = 4;

/// What all agents of a fleet share.
#[derive(Clone)]
pub(super) struct Tls {
    provider: Arc<CryptoProvider>,
    pinned: Arc<PinnedHub>,
    transport: Arc<TransportConfig>,
}

impl Tls {
    pub(super) fn new(hub: PublicKey) -> Tls {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let pinned = Arc::new(PinnedHub { hub, provider: provider.clone() });
        let mut transport = TransportConfig::default();
        transport
            .keep_alive_interval(Some(KEEP_ALIVE))
            .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))))
            .max_concurrent_bidi_streams(HUB_BIDI_STREAMS.into())
            .max_concurrent_uni_streams(HUB_BULK_STREAMS.into())
            .datagram_receive_buffer_size(None);
        Tls { provider, pinned, transport: Arc::new(transport) }
    }

    /// *Panics*: where this program's own keys are not keys.
    pub(super) fn client(&self, identity: &Identity) -> ClientConfig {
        let key = PrivatePkcs8KeyDer::from(identity.pkcs8());
        let key = rustls::crypto::ring::sign::any_eddsa_type(&key).expect("an identity is an Ed25519 key");
        let shown = CertificateDer::from(identity.public_key().to_spki().to_vec());
        let certified = Arc::new(CertifiedKey::new(vec![shown], key));
        let mut tls = rustls::ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .expect("the provider has TLS 1.3")
            .dangerous()
            .with_custom_certificate_verifier(self.pinned.clone())
            .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(certified)));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.resumption = Resumption::disabled();
        let quic = QuicClientConfig::try_from(tls).expect("the provider has what QUIC begins with");
        let mut config = ClientConfig::new(Arc::new(quic));
        config.transport_config(self.transport.clone());
        config
    }
}

#[derive(Debug)]
struct PinnedHub {
    hub: PublicKey,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for PinnedHub {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
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
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let raw_key = SubjectPublicKeyInfoDer::from(cert.as_ref());
        let algorithms = &self.provider.signature_verification_algorithms;
        verify_tls13_signature_with_raw_key(message, &raw_key, dss, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
