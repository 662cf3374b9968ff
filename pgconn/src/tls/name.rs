//! Whether a certificate was made for a host.
//!
//! Source: src/interfaces/libpq/fe-secure-common.c,
//! `pq_verify_peer_name_matches_certificate_name` and `wildcard_certificate_match`;
//! fe-secure-openssl.c, `pgtls_verify_peer_name_matches_certificate_guts` (PG 15).

use std::net::IpAddr;

use x509_cert::Certificate;
use x509_cert::der::asn1::ObjectIdentifier;
use x509_cert::ext::pkix::SubjectAltName;
use x509_cert::ext::pkix::name::GeneralName;

use super::CertificateFault;

const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

/// Checks as libpq does: the alternative names of the host's kind (name or address) if there are
/// any, else the common name, which other clients ignore.
pub(super) fn check(certificate: &Certificate, host: &str) -> Result<(), CertificateFault> {
    let address: Option<IpAddr> = host.parse().ok();
    let mut names = Vec::new();
    let mut ask_common_name = true;
    for name in alternative_names(certificate)? {
        match name {
            GeneralName::DnsName(name) => {
                ask_common_name &= address.is_some();
                let name = name.as_str();
                if matches(name.as_bytes(), host)? {
                    return Ok(());
                }
                names.push(name.to_owned());
            }
            GeneralName::IpAddress(octets) => {
                ask_common_name &= address.is_none();
                let name = ip_address(octets.as_bytes())?;
                if address == Some(name) {
                    return Ok(());
                }
                names.push(name.to_string());
            }
            GeneralName::OtherName(_)
            | GeneralName::Rfc822Name(_)
            | GeneralName::DirectoryName(_)
            | GeneralName::EdiPartyName(_)
            | GeneralName::UniformResourceIdentifier(_)
            | GeneralName::RegisteredId(_) => {}
        }
    }
    if ask_common_name && let Some(name) = common_name(certificate) {
        if matches(name, host)? {
            return Ok(());
        }
        names.push(String::from_utf8_lossy(name).into_owned());
    }
    let mut names = names.into_iter();
    Err(match names.next() {
        Some(first) => CertificateFault::OtherHost {
            first,
            others: names.len(),
            host: host.to_owned(),
        },
        None => CertificateFault::NoName,
    })
}

fn alternative_names(certificate: &Certificate) -> Result<Vec<GeneralName>, CertificateFault> {
    match certificate.tbs_certificate.get::<SubjectAltName>() {
        Ok(Some((_, SubjectAltName(names)))) => Ok(names),
        Ok(None) => Ok(Vec::new()),
        Err(error) => Err(CertificateFault::Encoding { error }),
    }
}

fn common_name(certificate: &Certificate) -> Option<&[u8]> {
    let subject = &certificate.tbs_certificate.subject;
    let mut attributes = subject.0.iter().flat_map(|relative| relative.0.iter());
    let name = attributes.find(|attribute| attribute.oid == COMMON_NAME)?;
    Some(name.value.value())
}

fn ip_address(octets: &[u8]) -> Result<IpAddr, CertificateFault> {
    if let Ok(v4) = <[u8; 4]>::try_from(octets) {
        return Ok(IpAddr::from(v4));
    }
    match <[u8; 16]>::try_from(octets) {
        Ok(v6) => Ok(IpAddr::from(v6)),
        Err(_) => Err(CertificateFault::AddressLength {
            length: octets.len(),
        }),
    }
}

/// Whether a name, perhaps `*.` and a domain, is the host's. A name with a NUL byte in it is
/// refused outright: it was made to be read in two ways.
fn matches(name: &[u8], host: &str) -> Result<bool, CertificateFault> {
    if name.contains(&0) {
        return Err(CertificateFault::NulInName);
    }
    if name.eq_ignore_ascii_case(host.as_bytes()) {
        return Ok(true);
    }
    // The asterisk stands for one label, and nothing less than one.
    let Some(domain) = name.strip_prefix(b"*.") else {
        return Ok(false);
    };
    let Some((label, rest)) = host.split_once('.') else {
        return Ok(false);
    };
    Ok(!domain.is_empty() && !label.is_empty() && rest.as_bytes().eq_ignore_ascii_case(domain))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, DnType, KeyPair, SanType};
    use x509_cert::der::Decode;

    fn certificate(common_name: Option<&str>, names: &[&str]) -> Certificate {
        let mut parameters = CertificateParams::default();
        parameters.distinguished_name = rcgen::DistinguishedName::new();
        if let Some(name) = common_name {
            parameters.distinguished_name.push(DnType::CommonName, name);
        }
        for name in names {
            parameters.subject_alt_names.push(match name.parse() {
                Ok(address) => SanType::IpAddress(address),
                Err(_) => SanType::DnsName((*name).try_into().unwrap()),
            });
        }
        let key = KeyPair::generate().unwrap();
        Certificate::from_der(parameters.self_signed(&key).unwrap().der()).unwrap()
    }

    /// The expectations are libpq's, src/test/ssl/t/001_ssltests.pl (PG 15).
    #[test]
    fn names_count_as_they_do_for_libpq() {
        for (common_name, names, host, fits) in [
            (Some("cn.example"), &[][..], "cn.example", true),
            (Some("cn.example"), &[], "CN.Example", true),
            (Some("cn.example"), &[], "other.example", false),
            // An alternative name of the host's kind hides the common name.
            (Some("cn.example"), &["dns1.example"], "cn.example", false),
            (
                Some("cn.example"),
                &["dns1.example", "dns2.example"],
                "dns2.example",
                true,
            ),
            (Some("cn.example"), &["192.0.2.1"], "cn.example", true),
            (Some("192.0.2.1"), &["dns1.example"], "192.0.2.1", true),
            (Some("192.0.2.1"), &["192.0.2.2"], "192.0.2.1", false),
            (None, &["192.0.2.1", "2001:db8::1"], "2001:DB8:0::1", true),
            (None, &["192.0.2.1"], "192.0.2.2", false),
            (None, &["*.wild.example"], "a.wild.example", true),
            (None, &["*.wild.example"], "a.b.wild.example", false),
            (None, &["*.wild.example"], "wild.example", false),
            (None, &["*.wild.example"], ".wild.example", false),
            (None, &[], "any", false),
        ] {
            let found = check(&certificate(common_name, names), host);
            assert_eq!(
                found.is_ok(),
                fits,
                "{common_name:?} {names:?} {host}: {found:?}"
            );
        }
    }

    #[test]
    fn the_fault_names_the_first_name_and_counts_the_others() {
        let message = |certificate: &Certificate| check(certificate, "h").unwrap_err().to_string();
        assert_eq!(
            message(&certificate(None, &["a.example", "b.example", "192.0.2.1"])),
            "server certificate for \"a.example\" (and 2 other names) does not match host name \
             \"h\""
        );
        assert_eq!(
            message(&certificate(Some("a.example"), &[])),
            "server certificate for \"a.example\" does not match host name \"h\""
        );
        assert_eq!(
            message(&certificate(None, &[])),
            "server certificate has no host name"
        );
        let message = message(&certificate(Some("h\0.evil.example"), &[]));
        assert_eq!(message, "server certificate's name contains embedded null");
    }
}
