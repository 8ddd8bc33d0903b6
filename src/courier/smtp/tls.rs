//! What is trusted on the way to a relay: the platform's roots and the operator's own.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use lettre::transport::smtp::client::{Certificate, TlsParameters};
use tokio_rustls::{TlsConnector, rustls::pki_types::ServerName};

use crate::courier::tls::{certificates, client_config};

/// TLS from the first byte on.
pub(super) struct ImplicitTls {
    pub(super) connector: TlsConnector,
    pub(super) name: ServerName<'static>,
}

/// TLS from the first byte on, to the relay at `host`.
///
/// # Errors
/// Which CA file can not be used, or that the platform has none.
pub(super) fn implicit(host: &str, ca_files: &[PathBuf]) -> Result<ImplicitTls, String> {
    let mut roots = Vec::new();
    for file in ca_files {
        roots.extend(certificates(&read(file)?).ok_or_else(|| no_certificate(file))?);
    }
    let config = client_config(roots)?;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| format!("email.transport: {host:?} is not a host that a certificate names"))?;
    Ok(ImplicitTls {
        connector: TlsConnector::from(Arc::new(config)),
        name,
    })
}

/// TLS after STARTTLS, to the relay at `host`.
///
/// # Errors
/// Which CA file can not be used, or that the platform has none.
pub(super) fn after_starttls(host: &str, ca_files: &[PathBuf]) -> Result<TlsParameters, String> {
    let mut builder = TlsParameters::builder(host.to_owned());
    for file in ca_files {
        let pem = read(file)?;
        certificates(&pem).ok_or_else(|| no_certificate(file))?;
        let root = Certificate::from_pem(&pem).map_err(|_| no_certificate(file))?;
        builder = builder.add_root_certificate(root);
    }
    builder
        .build()
        .map_err(|why| format!("TLS can not be used: {why}"))
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|why| {
        format!(
            "the CA file {} can not be read ({why}); correct email.ca_files",
            file.display()
        )
    })
}

fn no_certificate(file: &Path) -> String {
    format!(
        "the CA file {} holds no certificate; it must be PEM, with \"-----BEGIN CERTIFICATE-----\"",
        file.display()
    )
}
