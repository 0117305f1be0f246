//! Ed25519 identities and the TLS that proves them: raw public keys (RFC 7250), both ways.
//!
//! Owns keys and TLS configuration. Decides nothing about who may do what: any well-formed key that
//! its holder proves is let through, the hub judges it afterwards.

use std::fmt;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use ring::signature::KeyPair;
use ring::{hkdf, hmac};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{CertificateDer, PrivatePkcs8KeyDer, SubjectPublicKeyInfoDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{AlwaysResolvesServerRawPublicKeys, NoServerSessionStorage};
use rustls::sign::CertifiedKey;
use rustls::{CertificateError, DigitallySignedStruct, DistinguishedName, PeerIncompatible, SignatureScheme};
use tessera_protocol::id::{parse_hex, write_hex};
use tessera_protocol::limits::ALPN;

/// Largest key file read; an Ed25519 PKCS#8 document has 48 to 85 bytes.
const KEY_FILE_BYTES_MAX: u64 = 4 << 10;

/// What precedes the 32 bytes of an Ed25519 key in its SubjectPublicKeyInfo. *Source*: RFC 8410.
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// An Ed25519 public key; prints as 64 lower-case hex digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey(pub [u8; 32]);

impl PublicKey {
    /// The key inside a SubjectPublicKeyInfo, if that is Ed25519.
    pub fn from_spki(der: &[u8]) -> Option<PublicKey> {
        let key = der.strip_prefix(&SPKI_PREFIX)?;
        key.try_into().ok().map(PublicKey)
    }

    /// The key as a SubjectPublicKeyInfo.
    pub fn to_spki(self) -> [u8; 44] {
        let mut der = [0; 44];
        der[..12].copy_from_slice(&SPKI_PREFIX);
        der[12..].copy_from_slice(&self.0);
        der
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write_hex(f, &self.0)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = IdentityError;
    fn from_str(text: &str) -> Result<PublicKey, IdentityError> {
        parse_hex(text).map(PublicKey).ok_or(IdentityError::NotAKey)
    }
}

/// Why there is no identity.
#[derive(Debug)]
pub enum IdentityError {
    /// The system gave no random numbers.
    NoRandomness,
    /// The bytes are not an Ed25519 key in PKCS#8.
    NotAPrivateKey,
    /// The text is not a public key.
    NotAKey,
    /// The key file could not be read or written.
    File {
        /// Which file.
        path: PathBuf,
        /// What went wrong.
        source: io::Error,
    },
    /// TLS refused the key.
    Tls(rustls::Error),
}

impl fmt::Display for IdentityError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            IdentityError::NoRandomness => f.write_str("the system gave no random numbers for a new key"),
            IdentityError::NotAPrivateKey => f.write_str("not an Ed25519 private key in PKCS#8 form"),
            IdentityError::NotAKey => f.write_str("not a public key: expected 64 lower-case hex digits"),
            IdentityError::File { path, source } => write!(f, "key file {}: {source}", path.display()),
            IdentityError::Tls(_) => f.write_str("TLS does not take this key"),
        }
    }
}

impl std::error::Error for IdentityError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            IdentityError::File { source, .. } => Some(source),
            IdentityError::Tls(source) => Some(source),
            _ => None,
        }
    }
}

/// An Ed25519 key pair. Cheap to clone; never prints its secret.
#[derive(Clone)]
pub struct Identity {
    pkcs8: Arc<[u8]>,
    public_key: PublicKey,
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("public_key", &self.public_key).finish_non_exhaustive()
    }
}

impl Identity {
    /// A new key pair.
    pub fn generate() -> Result<Identity, IdentityError> {
        let random = ring::rand::SystemRandom::new();
        let document = ring::signature::Ed25519KeyPair::generate_pkcs8(&random)
            .map_err(|_| IdentityError::NoRandomness)?;
        Identity::from_pkcs8(document.as_ref())
    }

    /// The key pair in a PKCS#8 document, with or without its public half.
    pub fn from_pkcs8(pkcs8: &[u8]) -> Result<Identity, IdentityError> {
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8)
            .map_err(|_| IdentityError::NotAPrivateKey)?;
        let public_key: [u8; 32] =
            pair.public_key().as_ref().try_into().map_err(|_| IdentityError::NotAPrivateKey)?;
        Ok(Identity { pkcs8: pkcs8.into(), public_key: PublicKey(public_key) })
    }

    /// The secret document: for its key file, never for a log.
    pub fn pkcs8(&self) -> &[u8] {
        &self.pkcs8
    }

    /// The public half.
    pub fn public_key(&self) -> PublicKey {
        self.public_key
    }

    /// Signs a message. Whoever asks puts before it what it is for: TLS signs with this key too, and no message of one
    /// kind may pass for another.
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let pair = ring::signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&self.pkcs8);
        let pair = pair.expect("the document was read before");
        pair.sign(message).as_ref().try_into().expect("an Ed25519 signature has 64 bytes")
    }

    /// Reads the identity kept at `path`.
    pub fn load(path: &Path) -> Result<Identity, IdentityError> {
        let read = || {
            let mut bytes = Vec::new();
            OpenOptions::new().read(true).open(path)?.take(KEY_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
            Ok(bytes)
        };
        let bytes = read().map_err(|source| IdentityError::File { path: path.into(), source })?;
        Identity::from_pkcs8(&bytes)
    }

    /// Writes the identity to a new file at `path` that only its owner may read.
    ///
    /// *Errors*: a file that exists is left as it is.
    pub fn save_new(&self, path: &Path) -> Result<(), IdentityError> {
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)?;
            file.write_all(&self.pkcs8)?;
            file.sync_all()
        };
        write().map_err(|source| IdentityError::File { path: path.into(), source })
    }

    /// Reads the identity at `path`, or makes one there when the file does not exist.
    pub fn load_or_create(path: &Path) -> Result<Identity, IdentityError> {
        match Identity::load(path) {
            Err(IdentityError::File { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let identity = Identity::generate()?;
                identity.save_new(path)?;
                Ok(identity)
            }
            result => result,
        }
    }

    /// TLS of a hub with this identity: shows this key, demands the agent's, resumes nothing.
    pub(super) fn server_tls(&self) -> Result<rustls::ServerConfig, IdentityError> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let key = rustls::crypto::ring::sign::any_eddsa_type(&PrivatePkcs8KeyDer::from(&*self.pkcs8))
            .map_err(IdentityError::Tls)?;
        let raw_key = CertificateDer::from(self.public_key.to_spki().to_vec());
        let certified = Arc::new(CertifiedKey::new(vec![raw_key], key));
        let mut tls = rustls::ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])
            .map_err(IdentityError::Tls)?
            .with_client_cert_verifier(Arc::new(AnyRawKey::new(&provider)))
            .with_cert_resolver(Arc::new(AlwaysResolvesServerRawPublicKeys::new(certified)));
        tls.alpn_protocols = vec![ALPN.to_vec()];
        tls.max_early_data_size = 0;
        tls.send_tls13_tickets = 0;
        tls.session_storage = Arc::new(NoServerSessionStorage {});
        Ok(tls)
    }

    /// The key of stateless resets: the same after a restart, so that agents of a hub that was killed
    /// learn at once that their sessions are gone.
    pub(super) fn reset_key(&self) -> hmac::Key {
        let secret = blake3::derive_key("tessera hub 2026 QUIC stateless reset", &self.pkcs8);
        hmac::Key::new(hmac::HMAC_SHA256, &secret)
    }

    /// The key of Retry tokens, the same on every lane.
    pub(super) fn token_key(&self) -> hkdf::Prk {
        let secret = blake3::derive_key("tessera hub 2026 QUIC address token", &self.pkcs8);
        hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(&secret)
    }
}

/// Lets in whoever proves to hold the Ed25519 key it shows.
#[derive(Debug)]
struct AnyRawKey {
    algorithms: WebPkiSupportedAlgorithms,
}

impl AnyRawKey {
    fn new(provider: &CryptoProvider) -> AnyRawKey {
        AnyRawKey { algorithms: provider.signature_verification_algorithms }
    }
}

impl ClientCertVerifier for AnyRawKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        match PublicKey::from_spki(end_entity) {
            Some(_) => Ok(ClientCertVerified::assertion()),
            None => Err(CertificateError::BadEncoding.into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Err(PeerIncompatible::Tls13RequiredForQuic.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn an_identity_comes_back_from_its_file_which_only_its_owner_may_read() {
        let folder = std::env::temp_dir().join(format!("tessera-identity-{}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let path = folder.join("key");
        let made = Identity::load_or_create(&path).expect("a new identity");
        let read = Identity::load_or_create(&path).expect("the same identity");
        let mode = std::fs::metadata(&path).expect("a file").permissions().mode();
        std::fs::remove_dir_all(&folder).expect("cleaned up");
        assert_eq!(made.public_key(), read.public_key());
        assert_eq!(mode & 0o777, 0o600);
        assert!(!format!("{made:?}").contains("pkcs8"));
    }

    #[test]
    fn a_public_key_prints_and_encodes_one_way() {
        let key = Identity::generate().expect("a key").public_key();
        assert_eq!(key.to_string().parse::<PublicKey>().ok(), Some(key));
        assert_eq!(PublicKey::from_spki(&key.to_spki()), Some(key));
        assert_eq!(PublicKey::from_spki(&key.to_spki()[1..]), None);
        assert!("zz".parse::<PublicKey>().is_err());
    }

    #[test]
    fn what_is_not_a_key_is_refused() {
        assert!(matches!(Identity::from_pkcs8(b"not a key"), Err(IdentityError::NotAPrivateKey)));
    }
}
