//! TLS with raw public keys (RFC 7250), both ways: the agent shows its key and insists on the hub's.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quinn::crypto::rustls::QuicClientConfig;
use quinn::{ClientConfig, IdleTimeout, TransportConfig, VarInt};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{AlwaysResolvesClientRawPublicKeys, Resumption};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, PeerIncompatible, SignatureScheme};
use tessera_protocol::id::write_hex;
use tessera_protocol::limits::ALPN;

use crate::home::Home;

/// What precedes the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo. *Source*: RFC 8410.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];
/// How often an idle session says so. *Source*: below half of every NAT's shortest UDP binding of 30 s
/// in practice (RFC 4787 asks for 120 s).
const KEEP_ALIVE: Duration = Duration::from_secs(5);
/// Silence after which the session is lost: two keep-alives and a while. *Units*: milliseconds.
const IDLE_MS_MAX: u32 = 12_000;
/// Streams the hub may open: the work stream, and as many tasks at once as a hub sends.
const HUB_BIDI_STREAMS: u32 = 1;
const HUB_BULK_STREAMS: u32 = 4;

/// A hub's Ed25519 public key; prints as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct HubKey(pub [u8; 32]);

impl fmt::Display for HubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for HubKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

fn spki(key: [u8; 32]) -> Vec<u8> {
    [&SPKI_PREFIX[..], &key].concat()
}

/// A QUIC client that shows `home`'s key and talks to nobody but the holder of `hub_key`.
pub(crate) fn client(home: &Home, hub_key: HubKey) -> Result<(ClientConfig, Arc<PinnedHub>), rustls::Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(home.pkcs8()))?;
    let certified = CertifiedKey::new(vec![CertificateDer::from(spki(home.public_key()))], key);
    let pinned = Arc::new(PinnedHub {
        hub_key,
        other: Mutex::new(None),
        algorithms: provider.signature_verification_algorithms,
    });
    let mut tls = rustls::ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13])?
        .dangerous()
        .with_custom_certificate_verifier(pinned.clone())
        .with_client_cert_resolver(Arc::new(AlwaysResolvesClientRawPublicKeys::new(Arc::new(certified))));
    tls.alpn_protocols = vec![ALPN.to_vec()];
    tls.resumption = Resumption::disabled();
    let quic = QuicClientConfig::try_from(tls)
        .map_err(|_| rustls::Error::General("no cipher suite for QUIC's initial packets".into()))?;
    let mut config = ClientConfig::new(Arc::new(quic));
    config.transport_config(Arc::new(transport()));
    Ok((config, pinned))
}

fn transport() -> TransportConfig {
    let mut transport = TransportConfig::default();
    transport
        .keep_alive_interval(Some(KEEP_ALIVE))
        .max_idle_timeout(Some(IdleTimeout::from(VarInt::from_u32(IDLE_MS_MAX))))
        .max_concurrent_bidi_streams(HUB_BIDI_STREAMS.into())
        .max_concurrent_uni_streams(HUB_BULK_STREAMS.into())
        .datagram_receive_buffer_size(None);
    transport
}

/// Accepts one key, and remembers what else was shown.
#[derive(Debug)]
pub(crate) struct PinnedHub {
    hub_key: HubKey,
    other: Mutex<Option<HubKey>>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl PinnedHub {
    /// The wrong key that was shown since this was last asked.
    pub(crate) fn take_other(&self) -> Option<HubKey> {
        self.other.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
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
        let shown = end_entity.strip_prefix(&SPKI_PREFIX).and_then(|key| key.try_into().ok());
        let shown = HubKey(shown.ok_or(CertificateError::BadEncoding)?);
        if shown == self.hub_key {
            return Ok(ServerCertVerified::assertion());
        }
        *self.other.lock().unwrap_or_else(PoisonError::into_inner) = Some(shown);
        Err(CertificateError::ApplicationVerificationFailure.into())
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
        verify_tls13_signature_with_raw_key(message, &raw_key, dss, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}
