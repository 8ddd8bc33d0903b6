//! TLS: whom we trust, and with which cryptography.

use std::sync::Arc;

use rustls::{
    ClientConfig,
    client::Resumption,
    crypto::{CryptoProvider, aws_lc_rs},
    pki_types::CertificateDer,
};
use rustls_platform_verifier::Verifier;

/// The one protocol that our HTTP clients speak (RFC 7301).
const HTTP1: &[u8] = b"http/1.1";

/// Trusts the platform's roots, and `roots` besides. The platform's certificates are read now.
///
/// # Errors
/// That the platform has no roots, or its cryptography no TLS.
pub(crate) fn client_config(roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    trusting(roots, Arc::new(aws_lc_rs::default_provider()))
}

fn trusting(
    roots: Vec<CertificateDer<'static>>,
    provider: Arc<CryptoProvider>,
) -> Result<ClientConfig, String> {
    let unusable = |why: rustls::Error| format!("TLS can not be used: {why}");
    let verifier = Verifier::new_with_extra_roots(roots, Arc::clone(&provider));
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(unusable)?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier.map_err(unusable)?))
        .with_no_client_auth();
    Ok(config)
}

/// The same for an HTTP client, with the cryptography of the host if it has chosen one for its process.
///
/// # Errors
/// The same.
pub(super) fn http_config(roots: Vec<CertificateDer<'static>>) -> Result<ClientConfig, String> {
    let provider = CryptoProvider::get_default().cloned();
    let provider = provider.unwrap_or_else(|| Arc::new(aws_lc_rs::default_provider()));
    let mut config = trusting(roots, provider)?;
    config.alpn_protocols = vec![HTTP1.to_vec()];
    Ok(config)
}

/// One more client's own: the certificates are shared, and no session is, since it may be with another host of the same name.
pub(super) fn for_client(shared: &ClientConfig) -> ClientConfig {
    let mut config = shared.clone();
    config.resumption = Resumption::default();
    config
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_http_client_names_the_host_and_one_protocol() {
        let config = for_client(&http_config(Vec::new()).unwrap());

        assert!(config.enable_sni);
        assert_eq!(config.alpn_protocols, [b"http/1.1"]);
        assert!(!config.enable_early_data);
    }
}
