//! TLS towards relays and gateways: whom we trust, and with which cryptography.

use std::sync::Arc;

use rustls_platform_verifier::Verifier;
use tokio_rustls::rustls::{
    self, ClientConfig,
    crypto::aws_lc_rs,
    pki_types::{CertificateDer, pem::PemObject},
};

/// Trusts the platform's roots, and `roots` besides.
///
/// # Errors
/// That the platform has no roots, or its cryptography no TLS.
pub(crate) fn client_config(roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let unusable = |why: rustls::Error| format!("TLS can not be used: {why}");
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.map_err(unusable)?))
        .with_no_client_auth();
    Ok(config)
}

/// The certificates in a PEM file; `None` if it holds none, or is no PEM.
pub(crate) fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    found.ok().filter(|found| !found.is_empty())
}
