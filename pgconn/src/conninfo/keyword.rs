//! The parameter key words of libpq 18.
//!
//! Source: src/interfaces/libpq/fe-connect.c, `PQconninfoOptions` (PG 15); the manual of
//! PostgreSQL 18, "Parameter Key Words".

/// A parameter key word of a connection string.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
#[expect(
    missing_docs,
    reason = "each variant is the key word that the manual describes, see `name`"
)]
pub enum Keyword {
    Service,
    User,
    Password,
    Passfile,
    ChannelBinding,
    ConnectTimeout,
    Dbname,
    Host,
    Hostaddr,
    Port,
    ClientEncoding,
    Options,
    ApplicationName,
    FallbackApplicationName,
    Keepalives,
    KeepalivesIdle,
    KeepalivesInterval,
    KeepalivesCount,
    TcpUserTimeout,
    Sslmode,
    Sslnegotiation,
    Sslcompression,
    Sslcert,
    Sslkey,
    Sslcertmode,
    Sslpassword,
    Sslrootcert,
    Sslcrl,
    Sslcrldir,
    Sslsni,
    Requirepeer,
    RequireAuth,
    MinProtocolVersion,
    MaxProtocolVersion,
    SslMinProtocolVersion,
    SslMaxProtocolVersion,
    Gssencmode,
    Krbsrvname,
    Gsslib,
    Gssdelegation,
    Replication,
    TargetSessionAttrs,
    LoadBalanceHosts,
    ScramClientKey,
    ScramServerKey,
    OauthIssuer,
    OauthClientId,
    OauthClientSecret,
    OauthScope,
    Sslkeylogfile,
}

/// Key word, its name, and the environment variable that stands in for it.
type Row = (Keyword, &'static str, Option<&'static str>);

const KEYWORDS: [Row; 50] = [
    (Keyword::Service, "service", Some("PGSERVICE")),
    (Keyword::User, "user", Some("PGUSER")),
    (Keyword::Password, "password", Some("PGPASSWORD")),
    (Keyword::Passfile, "passfile", Some("PGPASSFILE")),
    (
        Keyword::ChannelBinding,
        "channel_binding",
        Some("PGCHANNELBINDING"),
    ),
    (
        Keyword::ConnectTimeout,
        "connect_timeout",
        Some("PGCONNECT_TIMEOUT"),
    ),
    (Keyword::Dbname, "dbname", Some("PGDATABASE")),
    (Keyword::Host, "host", Some("PGHOST")),
    (Keyword::Hostaddr, "hostaddr", Some("PGHOSTADDR")),
    (Keyword::Port, "port", Some("PGPORT")),
    (
        Keyword::ClientEncoding,
        "client_encoding",
        Some("PGCLIENTENCODING"),
    ),
    (Keyword::Options, "options", Some("PGOPTIONS")),
    (
        Keyword::ApplicationName,
        "application_name",
        Some("PGAPPNAME"),
    ),
    (
        Keyword::FallbackApplicationName,
        "fallback_application_name",
        None,
    ),
    (Keyword::Keepalives, "keepalives", None),
    (Keyword::KeepalivesIdle, "keepalives_idle", None),
    (Keyword::KeepalivesInterval, "keepalives_interval", None),
    (Keyword::KeepalivesCount, "keepalives_count", None),
    (Keyword::TcpUserTimeout, "tcp_user_timeout", None),
    (Keyword::Sslmode, "sslmode", Some("PGSSLMODE")),
    (
        Keyword::Sslnegotiation,
        "sslnegotiation",
        Some("PGSSLNEGOTIATION"),
    ),
    (
        Keyword::Sslcompression,
        "sslcompression",
        Some("PGSSLCOMPRESSION"),
    ),
    (Keyword::Sslcert, "sslcert", Some("PGSSLCERT")),
    (Keyword::Sslkey, "sslkey", Some("PGSSLKEY")),
    (Keyword::Sslcertmode, "sslcertmode", Some("PGSSLCERTMODE")),
    (Keyword::Sslpassword, "sslpassword", None),
    (Keyword::Sslrootcert, "sslrootcert", Some("PGSSLROOTCERT")),
    (Keyword::Sslcrl, "sslcrl", Some("PGSSLCRL")),
    (Keyword::Sslcrldir, "sslcrldir", Some("PGSSLCRLDIR")),
    (Keyword::Sslsni, "sslsni", Some("PGSSLSNI")),
    (Keyword::Requirepeer, "requirepeer", Some("PGREQUIREPEER")),
    (Keyword::RequireAuth, "require_auth", Some("PGREQUIREAUTH")),
    (
        Keyword::MinProtocolVersion,
        "min_protocol_version",
        Some("PGMINPROTOCOLVERSION"),
    ),
    (
        Keyword::MaxProtocolVersion,
        "max_protocol_version",
        Some("PGMAXPROTOCOLVERSION"),
    ),
    (
        Keyword::SslMinProtocolVersion,
        "ssl_min_protocol_version",
        Some("PGSSLMINPROTOCOLVERSION"),
    ),
    (
        Keyword::SslMaxProtocolVersion,
        "ssl_max_protocol_version",
        Some("PGSSLMAXPROTOCOLVERSION"),
    ),
    (Keyword::Gssencmode, "gssencmode", Some("PGGSSENCMODE")),
    (Keyword::Krbsrvname, "krbsrvname", Some("PGKRBSRVNAME")),
    (Keyword::Gsslib, "gsslib", Some("PGGSSLIB")),
    (
        Keyword::Gssdelegation,
        "gssdelegation",
        Some("PGGSSDELEGATION"),
    ),
    (Keyword::Replication, "replication", None),
    (
        Keyword::TargetSessionAttrs,
        "target_session_attrs",
        Some("PGTARGETSESSIONATTRS"),
    ),
    (
        Keyword::LoadBalanceHosts,
        "load_balance_hosts",
        Some("PGLOADBALANCEHOSTS"),
    ),
    (Keyword::ScramClientKey, "scram_client_key", None),
    (Keyword::ScramServerKey, "scram_server_key", None),
    (Keyword::OauthIssuer, "oauth_issuer", None),
    (Keyword::OauthClientId, "oauth_client_id", None),
    (Keyword::OauthClientSecret, "oauth_client_secret", None),
    (Keyword::OauthScope, "oauth_scope", None),
    (Keyword::Sslkeylogfile, "sslkeylogfile", None),
];

impl Keyword {
    /// The key word called `name`, spelled exactly so.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        KEYWORDS
            .iter()
            .find(|(_, candidate, _)| *candidate == name)
            .map(|(keyword, _, _)| *keyword)
    }

    /// The key word as it is written in a connection string.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// The environment variable that is asked when neither connection string nor service file
    /// has the key word.
    #[must_use]
    pub fn environment_variable(self) -> Option<&'static str> {
        self.row().2
    }

    /// Every key word, in libpq's order.
    pub fn all() -> impl Iterator<Item = Self> {
        KEYWORDS.iter().map(|(keyword, _, _)| *keyword)
    }

    /// Whether the value must never be printed.
    #[must_use]
    pub fn is_secret(self) -> bool {
        matches!(
            self,
            Self::Password
                | Self::Sslpassword
                | Self::ScramClientKey
                | Self::ScramServerKey
                | Self::OauthClientSecret
        )
    }

    fn row(self) -> Row {
        let found = KEYWORDS.iter().find(|(keyword, _, _)| *keyword == self);
        // A test asks every variant, so the second row is never taken for another.
        found.copied().unwrap_or((self, "", None))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_lists_each_key_word_once_in_the_order_of_the_enum() {
        for (index, (keyword, name, _)) in KEYWORDS.iter().enumerate() {
            assert_eq!(*keyword as usize, index, "{name}");
            assert_eq!(Keyword::from_name(name), Some(*keyword));
            assert_eq!(keyword.name(), *name);
        }
        assert_eq!(KEYWORDS.len(), Keyword::Sslkeylogfile as usize + 1);
        assert_eq!(Keyword::from_name("Host"), None);
        assert_eq!(Keyword::from_name(""), None);
    }
}
