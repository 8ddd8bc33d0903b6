//! Certificates for stand-ins, made by `openssl` once for each run.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
};

use rustls::{
    ServerConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
};
use tokio_rustls::TlsAcceptor;

/// Which certificate a stand-in shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Certified {
    /// One for `localhost` and the addresses of loopback.
    Localhost,
    /// One for `hs.example` and `delegated.example`.
    Homeserver,
    /// One for another name.
    Elsewhere,
}

/// All as PEM.
struct Made {
    authority: String,
    /// Certificate and key.
    localhost: (String, String),
    homeserver: (String, String),
    elsewhere: (String, String),
}

/// The authority that all certificates are of, as PEM.
fn authority() -> &'static str {
    &made().authority
}

/// The same, as a file in `folder`.
pub(crate) fn authority_in(folder: &Path) -> PathBuf {
    let path = folder.join("ca.pem");
    fs::write(&path, authority()).expect("the folder can be written");
    path
}

/// The certificate and its key, as PEM.
pub(crate) fn pem(certified: Certified) -> (&'static str, &'static str) {
    let made = made();
    let (pem, key) = match certified {
        Certified::Localhost => &made.localhost,
        Certified::Homeserver => &made.homeserver,
        Certified::Elsewhere => &made.elsewhere,
    };
    (pem, key)
}

/// TLS with that certificate.
pub(crate) fn acceptor(certified: Certified) -> TlsAcceptor {
    let (pem, key) = pem(certified);
    let certificate = CertificateDer::from_pem_slice(pem.as_bytes()).expect("it is PEM");
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("it is PEM");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .expect("the provider has them")
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .expect("the key is that of the certificate");
    TlsAcceptor::from(Arc::new(config))
}

fn made() -> &'static Made {
    static MADE: OnceLock<Made> = OnceLock::new();
    MADE.get_or_init(make)
}

fn make() -> Made {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let make = |name: &str, extensions: &[&str]| certificate(folder.path(), name, extensions);
    let read = |file: &str| fs::read_to_string(folder.path().join(file)).expect("it was written");
    let authority = ["keyUsage=critical,keyCertSign,cRLSign"];
    let leaf = |names| {
        [
            "basicConstraints=critical,CA:FALSE",
            "extendedKeyUsage=serverAuth",
            names,
        ]
    };

    make("authority", &authority);
    make(
        "localhost",
        &leaf("subjectAltName=DNS:localhost,IP:127.0.0.1,IP:::1"),
    );
    make(
        "homeserver",
        &leaf("subjectAltName=DNS:hs.example,DNS:delegated.example"),
    );
    make("elsewhere", &leaf("subjectAltName=DNS:elsewhere.example"));
    Made {
        authority: read("authority.pem"),
        localhost: (read("localhost.pem"), read("localhost.key")),
        homeserver: (read("homeserver.pem"), read("homeserver.key")),
        elsewhere: (read("elsewhere.pem"), read("elsewhere.key")),
    }
}

/// Makes `name.pem` and `name.key`; the first one is the authority of those that follow.
fn certificate(folder: &Path, name: &str, extensions: &[&str]) {
    let subject = format!("/CN=Test {name}");
    let mut openssl = Command::new("openssl");
    openssl.current_dir(folder);
    openssl.args(["req", "-x509", "-newkey", "ec", "-nodes", "-days", "2"]);
    openssl.args(["-pkeyopt", "ec_paramgen_curve:P-256", "-subj", &subject]);
    openssl.args([
        "-out",
        &format!("{name}.pem"),
        "-keyout",
        &format!("{name}.key"),
    ]);
    if folder.join("authority.pem").exists() {
        openssl.args(["-CA", "authority.pem", "-CAkey", "authority.key"]);
    }
    for extension in extensions {
        openssl.args(["-addext", extension]);
    }
    let made = openssl.output().expect("the tests need openssl");
    assert!(made.status.success(), "{made:?}");
}
