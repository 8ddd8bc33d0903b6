//! Certificates that the operator trusts besides those of the platform.

use std::{
    fs,
    path::{Path, PathBuf},
};

use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject},
};

/// The certificates of `files`, which `setting` names.
///
/// # Errors
/// A sentence that names the file that can not be read, or holds none.
pub(crate) fn read(
    files: &[PathBuf],
    setting: &str,
) -> Result<Vec<CertificateDer<'static>>, String> {
    let mut roots = Vec::new();
    for file in files {
        let pem = fs::read(file).map_err(|why| {
            format!(
                "the CA file {} can not be read ({why}); correct {setting}",
                file.display()
            )
        })?;
        roots.extend(certificates(&pem).ok_or_else(|| no_certificate(file))?);
    }
    Ok(roots)
}

fn certificates(pem: &[u8]) -> Option<Vec<CertificateDer<'static>>> {
    let found: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .ok()?;
    // Tried here, so that a file that is no use is told at the start and not at the first call.
    let mut store = RootCertStore::empty();
    let are_good = !found.is_empty() && found.iter().all(|one| store.add(one.clone()).is_ok());
    are_good.then_some(found)
}

fn no_certificate(file: &Path) -> String {
    format!(
        "the CA file {} holds no certificate; it must be PEM, with \"-----BEGIN CERTIFICATE-----\"",
        file.display()
    )
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn a_file_without_certificates_is_named() {
        for content in [
            "",
            "rubbish",
            "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
        ] {
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(content.as_bytes()).unwrap();

            let why = read(&[file.path().to_owned()], "outbound.ca_files").unwrap_err();

            let told = format!("the CA file {} holds no certificate", file.path().display());
            assert!(why.starts_with(&told), "{why}");
        }
        let why = read(&[PathBuf::from("/nowhere/ca.pem")], "x.ca_files").unwrap_err();
        assert!(
            why.starts_with("the CA file /nowhere/ca.pem can not be read")
                && why.ends_with("correct x.ca_files"),
            "{why}"
        );
    }
}
