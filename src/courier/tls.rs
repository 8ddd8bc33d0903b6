//! TLS towards relays and gateways: whom we trust.

use tokio_rustls::rustls::pki_types::{CertificateDer, pem::PemObject};

pub(crate) use crate::outbound::tls::client_config;

/// The certificates in a PEM file; `None` if it holds none, or is no PEM.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty())
}
