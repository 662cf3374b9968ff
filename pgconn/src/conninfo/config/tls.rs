//! What a connection string says about TLS.

use std::path::PathBuf;

use crate::conninfo::value::{self, Word};
use crate::conninfo::{
    Conninfo, ConninfoError, Keyword, Password, SslCertMode, SslMode, SslNegotiation, TlsVersion,
};

/// What is said about TLS. Files are read anew at each connection.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TlsSettings {
    /// `sslmode`
    pub mode: SslMode,
    /// `sslnegotiation`
    pub negotiation: SslNegotiation,
    /// `sslrootcert`: a file, or `system` for the authorities that the operating system trusts.
    pub root_certificates: Option<String>,
    /// `sslcert`
    pub certificate: Option<PathBuf>,
    /// `sslkey`
    pub key: Option<PathBuf>,
    /// `sslcertmode`
    pub certificate_mode: SslCertMode,
    /// `sslpassword`: opens an encrypted key.
    pub key_password: Option<Password>,
    /// `sslcrl`
    pub revocation_list: Option<PathBuf>,
    /// `sslcrldir`
    pub revocation_directory: Option<PathBuf>,
    /// `sslsni`: whether the host's name is told at the beginning of the handshake.
    pub server_name_indication: bool,
    /// `ssl_min_protocol_version`
    pub minimum_version: TlsVersion,
    /// `ssl_max_protocol_version`
    pub maximum_version: TlsVersion,
    /// Where the files are looked for that are not named, in `.postgresql/`.
    pub home: Option<PathBuf>,
}

pub(super) fn settings(
    values: &Conninfo,
    home: Option<PathBuf>,
) -> Result<TlsSettings, ConninfoError> {
    let given = |keyword| values.get(keyword).filter(|value| !value.is_empty());
    let mode: SslMode = super::word(values, Keyword::Sslmode)?;
    let negotiation: SslNegotiation = super::word(values, Keyword::Sslnegotiation)?;
    let weak = |option, allowed| ConninfoError::WeakSslMode {
        sslmode: mode.name(),
        option,
        allowed,
    };
    if given(Keyword::Sslrootcert) == Some("system") && mode != SslMode::VerifyFull {
        return Err(weak("sslrootcert=system", "\"verify-full\""));
    }
    if negotiation == SslNegotiation::Direct && mode < SslMode::Require {
        let allowed = "\"require\", \"verify-ca\", or \"verify-full\"";
        return Err(weak("sslnegotiation=direct", allowed));
    }
    let (minimum_version, maximum_version) = value::tls_versions(
        values
            .get(Keyword::SslMinProtocolVersion)
            .unwrap_or("TLSv1.2"),
        values.get(Keyword::SslMaxProtocolVersion),
    )?;
    Ok(TlsSettings {
        mode,
        negotiation,
        root_certificates: given(Keyword::Sslrootcert).map(str::to_owned),
        certificate: given(Keyword::Sslcert).map(PathBuf::from),
        key: given(Keyword::Sslkey).map(PathBuf::from),
        certificate_mode: match given(Keyword::Sslcertmode) {
            Some(value) => SslCertMode::parse(Keyword::Sslcertmode, value)?,
            None => SslCertMode::default(),
        },
        key_password: given(Keyword::Sslpassword).map(Password::new),
        revocation_list: given(Keyword::Sslcrl).map(PathBuf::from),
        revocation_directory: given(Keyword::Sslcrldir).map(PathBuf::from),
        server_name_indication: values
            .get(Keyword::Sslsni)
            .is_none_or(|value| value.starts_with('1')),
        minimum_version,
        maximum_version,
        home,
    })
}
