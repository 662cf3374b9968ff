//! From the fields of a line to a rule.
//!
//! Source: src/backend/libpq/hba.c, `parse_hba_line`; src/backend/libpq/ifaddr.c,
//! `pg_sockaddr_cidr_mask` (PG 15).

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use super::tokens::{self, Value};
use super::{
    AddressPattern, ClientCertificate, ConnectionType, HbaFault, HbaField, HbaMethod, HbaRule,
    HbaRules, Tls, UserPattern,
};

/// The rules, or the number of the line that is wrong and what is wrong with it.
pub(super) fn parse(content: &[u8]) -> Result<HbaRules, (usize, HbaFault)> {
    let mut found = HbaRules {
        rules: Vec::new(),
        unused: Vec::new(),
    };
    for (number, line) in tokens::lines(content) {
        match rule(number, &line).map_err(|fault| (number, fault))? {
            Line::Empty => {}
            Line::Unused => found.unused.push(number),
            Line::Rule(rule) => found.rules.push(rule),
        }
    }
    Ok(found)
}

enum Line {
    /// Blank, or a comment.
    Empty,
    /// For another database than `replication`.
    Unused,
    Rule(HbaRule),
}

fn rule(number: usize, line: &[u8]) -> Result<Line, HbaFault> {
    let text = str::from_utf8(line).map_err(|_not_utf8| HbaFault::NotText)?;
    let fields = tokens::fields(text)?;
    if fields.is_empty() {
        return Ok(Line::Empty);
    }
    let mut fields = Fields(fields.into_iter());
    let kind = fields.one(HbaField::ConnectionType)?;
    if ["include", "include_if_exists", "include_dir"].contains(&kind.text.as_str()) {
        let advice = "write the rules of the other file here";
        return Err(unsupported(HbaField::ConnectionType, &kind, advice));
    }
    let databases = fields.list(HbaField::Database)?;
    let is_ours = databases
        .iter()
        .any(|database| database.is_keyword("replication"));
    let parsed = fields.rest_of_rule(number, &kind);
    match parsed {
        Ok(rule) if is_ours => Ok(Line::Rule(rule)),
        // What other databases ask for need not be known here.
        Ok(_) | Err(HbaFault::Unsupported { .. }) if !is_ours => Ok(Line::Unused),
        Ok(rule) => Ok(Line::Rule(rule)),
        Err(fault) => Err(fault),
    }
}

fn unsupported(field: HbaField, value: &Value, advice: &'static str) -> HbaFault {
    HbaFault::Unsupported {
        field,
        value: value.text.clone(),
        advice,
    }
}

fn invalid(field: HbaField, value: &Value) -> HbaFault {
    HbaFault::Invalid {
        field,
        value: value.text.clone(),
    }
}

/// The fields of a line that are not yet read.
struct Fields(std::vec::IntoIter<Vec<Value>>);

impl Fields {
    fn list(&mut self, field: HbaField) -> Result<Vec<Value>, HbaFault> {
        let values = self.0.next().ok_or(HbaFault::Missing { field })?;
        match values.iter().find(|value| value.begins_with('@')) {
            Some(file) if file.text.len() > 1 => {
                let advice = "write the names of the other file here";
                Err(unsupported(field, file, advice))
            }
            _ => Ok(values),
        }
    }

    fn one(&mut self, field: HbaField) -> Result<Value, HbaFault> {
        let mut values = self.list(field)?;
        match (values.pop(), values.is_empty()) {
            (Some(value), true) => Ok(value),
            _ => Err(HbaFault::Several { field }),
        }
    }

    /// All that follows the database.
    fn rest_of_rule(mut self, line: usize, kind: &Value) -> Result<HbaRule, HbaFault> {
        let users = self.list(HbaField::User)?;
        let connection = match kind.text.as_str() {
            "local" => ConnectionType::Local,
            "host" => self.host(Tls::Either)?,
            "hostssl" => self.host(Tls::Required)?,
            "hostnossl" => self.host(Tls::Absent)?,
            "hostgssenc" | "hostnogssenc" => {
                let advice = "there is no GSSAPI encryption here, write host";
                return Err(unsupported(HbaField::ConnectionType, kind, advice));
            }
            _ => return Err(invalid(HbaField::ConnectionType, kind)),
        };
        let method = method(&self.one(HbaField::Method)?, &connection)?;
        let client_certificate = self.options(method, &connection)?;
        let users: Result<Vec<_>, _> = users.into_iter().map(user).collect();
        Ok(HbaRule {
            line,
            connection,
            users: users?,
            method,
            client_certificate,
        })
    }

    fn host(&mut self, tls: Tls) -> Result<ConnectionType, HbaFault> {
        let address = self.address()?;
        Ok(ConnectionType::Host { tls, address })
    }

    fn address(&mut self) -> Result<AddressPattern, HbaFault> {
        let value = self.one(HbaField::Address)?;
        if value.is_keyword("all") {
            return Ok(AddressPattern::All);
        }
        if value.is_keyword("samehost") || value.is_keyword("samenet") {
            let advice = "write the addresses";
            return Err(unsupported(HbaField::Address, &value, advice));
        }
        let bad = || invalid(HbaField::Address, &value);
        if let Some((address, bits)) = value.text.split_once('/') {
            let address: IpAddr = address.parse().map_err(|_no_address| bad())?;
            let digits = bits.bytes().all(|byte| byte.is_ascii_digit());
            let most = if address.is_ipv4() { 32 } else { 128 };
            return match bits.parse::<u32>() {
                Ok(bits) if digits && bits <= most => Ok(AddressPattern::Masked {
                    address,
                    mask: mask_of(address, bits),
                }),
                _ => Err(bad()),
            };
        }
        let Ok(address) = value.text.parse::<IpAddr>() else {
            let numeric = |c: char| c.is_ascii_digit() || c == '.';
            if value.text.is_empty() || value.text.contains(':') || value.text.chars().all(numeric)
            {
                return Err(bad());
            }
            let advice = "host names are not looked up, write the address";
            return Err(unsupported(HbaField::Address, &value, advice));
        };
        let mask_value = self.one(HbaField::Mask)?;
        match mask_value.text.parse::<IpAddr>() {
            Ok(mask) if mask.is_ipv4() == address.is_ipv4() => {
                Ok(AddressPattern::Masked { address, mask })
            }
            _ => Err(invalid(HbaField::Mask, &mask_value)),
        }
    }

    /// What follows the method: `clientcert`, and nothing else.
    fn options(
        self,
        method: HbaMethod,
        connection: &ConnectionType,
    ) -> Result<ClientCertificate, HbaFault> {
        let field = HbaField::Options;
        let mut certificate = match method {
            HbaMethod::Cert => ClientCertificate::InTheUsersName,
            _ => ClientCertificate::NotNeeded,
        };
        for option in self.0.flatten() {
            let (name, value) = option
                .text
                .split_once('=')
                .ok_or_else(|| invalid(field, &option))?;
            certificate = match (name, value) {
                ("clientcert", _) if !connection.is_always_encrypted() => {
                    return Err(HbaFault::MethodOn {
                        method: "clientcert",
                        only: "hostssl",
                    });
                }
                ("clientcert", "verify-full") => ClientCertificate::InTheUsersName,
                ("clientcert", "verify-ca") if method != HbaMethod::Cert => {
                    ClientCertificate::Trusted
                }
                // It is what holds without the option.
                ("clientname", "CN") if connection.is_always_encrypted() => certificate,
                ("clientname", "DN") => {
                    let advice = "only the common name is compared";
                    return Err(unsupported(field, &option, advice));
                }
                ("map", _) => {
                    let advice = "there are no user name maps, the names have to be the same";
                    return Err(unsupported(field, &option, advice));
                }
                _ => return Err(invalid(field, &option)),
            };
        }
        Ok(certificate)
    }
}

impl ConnectionType {
    const fn is_always_encrypted(&self) -> bool {
        matches!(
            self,
            Self::Host {
                tls: Tls::Required,
                ..
            }
        )
    }
}

fn user(value: Value) -> Result<UserPattern, HbaFault> {
    if value.is_keyword("all") {
        return Ok(UserPattern::All);
    }
    let advice = if value.begins_with('+') {
        "there are no roles with members here, list the names"
    } else if value.begins_with('/') {
        "there are no regular expressions here, list the names"
    } else {
        return Ok(UserPattern::Is(value.text));
    };
    Err(unsupported(HbaField::User, &value, advice))
}

fn method(value: &Value, connection: &ConnectionType) -> Result<HbaMethod, HbaFault> {
    let only = |method, only| Err(HbaFault::MethodOn { method, only });
    match value.text.as_str() {
        "trust" => Ok(HbaMethod::Trust),
        "reject" => Ok(HbaMethod::Reject),
        "scram-sha-256" | "md5" => Ok(HbaMethod::ScramSha256),
        "peer" if *connection != ConnectionType::Local => only("peer", "local"),
        "peer" => Ok(HbaMethod::Peer),
        "ident" if *connection == ConnectionType::Local => Ok(HbaMethod::Peer),
        "cert" if !connection.is_always_encrypted() => only("cert", "hostssl"),
        "cert" => Ok(HbaMethod::Cert),
        "password" | "ident" | "gss" | "sspi" | "pam" | "bsd" | "ldap" | "radius" | "oauth" => {
            let advice = "there are trust, reject, scram-sha-256, cert and peer";
            Err(unsupported(HbaField::Method, value, advice))
        }
        _ => Err(invalid(HbaField::Method, value)),
    }
}

/// A mask whose first `bits` bits are ones, as wide as the address.
pub(super) fn mask_of(address: IpAddr, bits: u32) -> IpAddr {
    match address {
        IpAddr::V4(_) => {
            let zeros = u32::MAX.checked_shr(bits).unwrap_or(0);
            IpAddr::V4(Ipv4Addr::from_bits(!zeros))
        }
        IpAddr::V6(_) => {
            let zeros = u128::MAX.checked_shr(bits).unwrap_or(0);
            IpAddr::V6(Ipv6Addr::from_bits(!zeros))
        }
    }
}
