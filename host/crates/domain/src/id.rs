//! Names and identifiers. They are parsed once on input and are always valid afterwards.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use ulid::Ulid;

use super::time::Timestamp;

/// Why a name or an identifier is invalid.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name that does not match `[a-z0-9][a-z0-9-]{0,62}`.
    #[error("`{given}` is not a {what}: use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit")]
    Name {
        /// The expected kind of name.
        what: &'static str,
        /// The invalid input, truncated to 80 characters.
        given: String,
    },
    /// An identifier without its prefix, or without 26 characters of Crockford base32 after it.
    #[error("`{given}` is not a {what}: expected `{prefix}` followed by 26 characters of 0-9 and A-Z")]
    Id {
        /// The expected kind of identifier.
        what: &'static str,
        /// The expected prefix.
        prefix: &'static str,
        /// The invalid input, truncated to 80 characters.
        given: String,
    },
    /// A delivery ID that does not consist of event, subscription and run.
    #[error(
        "`{given}` is not a delivery id: expected `dlv_<event>_<subscription>_<run>`, as the history shows it, with 26 \
         characters of 0-9 and A-Z for event and subscription"
    )]
    Delivery {
        /// The invalid input, truncated to 80 characters.
        given: String,
    },
    /// A key id that is not 43 characters of base64url.
    #[error(
        "`{given}` is not an issuer key id: expected 43 characters of A-Z, a-z, 0-9, '-' and '_', as the list shows it"
    )]
    IssuerKey {
        /// The invalid input, truncated to 80 characters.
        given: String,
    },
    /// A number of an issuer that is not 2 or more, without leading zeros.
    #[error("`{given}` is not the number of an issuer: expected a number from 2 on")]
    IssuerNumber {
        /// The invalid input, truncated to 80 characters.
        given: String,
    },
    /// A digest that is not `sha256:` followed by 64 lower-case hexadecimal digits.
    #[error(
        "`{given}` is not a digest: expected `sha256:` followed by 64 hexadecimal digits (0-9, a-f){}",
        digits(given)
    )]
    Digest {
        /// The invalid input, truncated to 80 characters.
        given: String,
    },
}

/// A note on the number of digits or the missing prefix, if that is the problem.
fn digits(given: &str) -> String {
    match given.strip_prefix("sha256:") {
        Some(digits) if digits.len() != 64 => format!("; there are {}", digits.len()),
        Some(_) => String::new(),
        None => "; the prefix is missing".to_owned(),
    }
}

fn cut(given: &str) -> String {
    given.chars().take(80).collect()
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(into = "String", extend("pattern" = "^[a-z0-9][a-z0-9-]{0,62}$"))]
        pub struct $type(std::sync::Arc<str>);

        impl $type {
            /// The name as text.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(given: &str) -> Result<Self, Error> {
                let bytes = given.as_bytes();
                let ok = (1..=63).contains(&bytes.len())
                    && bytes[0] != b'-'
                    && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-'));
                if ok { Ok(Self(given.into())) } else { Err(Error::Name { what: $what, given: cut(given) }) }
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(given: String) -> Result<Self, Error> {
                given.parse()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }
    };
}

macro_rules! ulid {
    ($(#[$doc:meta])* $type:ident, $what:literal, $prefix:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
        #[serde(try_from = "String")]
        #[schemars(into = "String", extend("pattern" = concat!("^", $prefix, "[0-7][0-9A-HJKMNP-TV-Z]{25}$")))]
        pub struct $type(Ulid);

        impl $type {
            /// Prefix of the textual form.
            pub const PREFIX: &'static str = $prefix;

            /// Creates a time-ordered ID: the first 48 bits are `at`, the other 80 come from `random`.
            pub fn new(at: Timestamp, random: u128) -> Self {
                Self(Ulid::from_parts(at.as_millis().max(0).unsigned_abs(), random))
            }

            /// The time of creation, in milliseconds.
            pub fn created_at(self) -> Timestamp {
                Timestamp::from_millis(self.0.timestamp_ms().cast_signed())
            }

            /// The stored form: 16 bytes, most significant first.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// Decodes the stored form.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }

            fn parse_body(body: &str) -> Option<Self> {
                // `Ulid` also accepts lower case and look-alike letters. Reject those, so that each ID has a unique
                // spelling.
                let ulid = Ulid::from_string(body).ok()?;
                (ulid.to_string() == body).then_some(Self(ulid))
            }
        }

        impl FromStr for $type {
            type Err = Error;

            fn from_str(given: &str) -> Result<Self, Error> {
                given
                    .strip_prefix($prefix)
                    .and_then(Self::parse_body)
                    .ok_or_else(|| Error::Id { what: $what, prefix: $prefix, given: cut(given) })
            }
        }

        impl TryFrom<String> for $type {
            type Error = Error;

            fn try_from(given: String) -> Result<Self, Error> {
                given.parse()
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.collect_str(self)
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}{}", $prefix, self.0)
            }
        }
    };
}

name!(
    /// Name of a tenant, unique on a host.
    TenantId, "tenant name"
);
name!(
    /// Name of a source, unique within its tenant.
    SourceName, "source name"
);
name!(
    /// Name of a filter, unique within its tenant.
    FilterName, "filter name"
);
name!(
    /// Name of a lookup table, unique within its tenant.
    TableName, "table name"
);
name!(
    /// Name of a subscription, unique within its tenant.
    SubscriptionName, "subscription name"
);
ulid!(
    /// ID of an accepted event.
    EventId, "event id", "evt_"
);
ulid!(
    /// ID of a subscription.
    SubscriptionId, "subscription id", "sub_"
);
ulid!(
    /// ID of an API key. Not secret.
    KeyId, "key id", "key_"
);
ulid!(
    /// ID of a replay.
    ReplayId, "replay id", "rpl_"
);
ulid!(
    /// ID of a signing key in a subscription's key ring.
    SigningKeyId, "signing key id", "sig_"
);

/// A subscription in a URL path: its ID, or the name that its tenant gave it. A name can never be an ID.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(try_from = "String", into = "String", extend("pattern" = "^(sub_[0-7][0-9A-HJKMNP-TV-Z]{25}|[a-z0-9][a-z0-9-]{0,62})$"))]
pub enum SubscriptionRef {
    /// By ID.
    Id(SubscriptionId),
    /// By name.
    Name(SubscriptionName),
}

impl FromStr for SubscriptionRef {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        if given.starts_with(SubscriptionId::PREFIX) {
            given.parse().map(Self::Id)
        } else {
            given.parse().map(Self::Name)
        }
    }
}

/// Event, subscription and run: `dlv_<event>_<subscription>_<run>`. It is sent as `webhook-id` and as the receiver's
/// idempotency key in every signature scheme, so it contains no dots and no control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(into = "String", extend("pattern" =
    "^dlv_[0-7][0-9A-HJKMNP-TV-Z]{25}_[0-7][0-9A-HJKMNP-TV-Z]{25}_(0|[1-9][0-9]{0,8})$"))]
pub struct DeliveryId {
    /// The delivered event.
    pub event: EventId,
    /// The receiving subscription.
    pub subscription: SubscriptionId,
    /// 0 for the first delivery, incremented for each replay.
    pub run: u32,
}

impl FromStr for DeliveryId {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let parse = || {
            let mut parts = given.strip_prefix("dlv_")?.split('_');
            let id = DeliveryId {
                event: EventId::parse_body(parts.next()?)?,
                subscription: SubscriptionId::parse_body(parts.next()?)?,
                run: parts.next()?.parse().ok()?,
            };
            (parts.next().is_none() && id.to_string() == given).then_some(id)
        };
        parse().ok_or_else(|| Error::Delivery { given: cut(given) })
    }
}

impl TryFrom<String> for DeliveryId {
    type Error = Error;

    fn try_from(given: String) -> Result<Self, Error> {
        given.parse()
    }
}

impl Serialize for DeliveryId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for DeliveryId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "dlv_{}_{}_{}", self.event.0, self.subscription.0, self.run)
    }
}

/// A SHA-256 digest. Identifies filter versions, plans and table versions.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(into = "String", extend("pattern" = "^sha256:[0-9a-f]{64}$"))]
pub struct Digest(pub [u8; 32]);

impl FromStr for Digest {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let mut bytes = [0; 32];
        given
            .strip_prefix("sha256:")
            .filter(|hex| !hex.bytes().any(|b| b.is_ascii_uppercase()))
            .and_then(|hex| hex::decode_to_slice(hex, &mut bytes).ok())
            .ok_or_else(|| Error::Digest { given: cut(given) })?;
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Digest {
    type Error = Error;

    fn try_from(given: String) -> Result<Self, Error> {
        given.parse()
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut digits = [0; 64];
        // 64 digits for 32 bytes. Faster than `hex::encode`, which matters because nearly every record contains a
        // digest.
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        write!(f, "sha256:{}", std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Characters of a SHA-256 thumbprint in base64url without padding.
const THUMBPRINT_CHARS: usize = 43;

/// Id of an issuer key, the `kid` of its JWK: the RFC 7638 thumbprint of its public key.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(into = "String", extend("pattern" = "^[A-Za-z0-9_-]{43}$"))]
pub struct IssuerKeyId(std::sync::Arc<str>);

impl IssuerKeyId {
    /// The id as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IssuerKeyId {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let is_base64url = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
        if given.len() == THUMBPRINT_CHARS && given.bytes().all(is_base64url) {
            Ok(Self(given.into()))
        } else {
            Err(Error::IssuerKey { given: cut(given) })
        }
    }
}

impl TryFrom<String> for IssuerKeyId {
    type Error = Error;

    fn try_from(given: String) -> Result<Self, Error> {
        given.parse()
    }
}

impl Serialize for IssuerKeyId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl fmt::Display for IssuerKeyId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Number of an issuer in a URL, from 2 on: the first tenant of a name has an issuer without a number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, JsonSchema)]
#[schemars(with = "u32", extend("minimum" = 2))]
pub struct IssuerNumber(u32);

impl IssuerNumber {
    /// The number.
    pub fn get(self) -> u32 {
        self.0
    }
}

impl FromStr for IssuerNumber {
    type Err = Error;

    fn from_str(given: &str) -> Result<Self, Error> {
        let number = given.parse().ok().filter(|number: &u32| *number >= 2 && number.to_string() == given);
        number.map(Self).ok_or_else(|| Error::IssuerNumber { given: cut(given) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_path_and_header_injection() {
        for bad in ["", "-a", "A", "a/b", "a.b", "a b", "a\n", &"a".repeat(64)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?}");
        }
        assert_eq!("acme-eu-1".parse::<TenantId>().unwrap().as_str(), "acme-eu-1");
    }

    #[test]
    fn error_names_the_expected_kind() {
        let digest = format!("sha256:{}", "ab".repeat(32));
        for (bad, says) in [
            ("sha256:abc".to_owned(), "64 hexadecimal digits (0-9, a-f); there are 3"),
            ("ab".repeat(32), "the prefix is missing"),
            (digest.to_uppercase().replace("SHA256", "sha256"), "(0-9, a-f)"),
            (format!("{digest}0"), "there are 65"),
        ] {
            let error = bad.parse::<Digest>().unwrap_err().to_string();
            assert!(error.contains("is not a digest") && error.contains(says), "{error}");
            assert!(!error.contains("26 characters"), "{error}");
        }
        let error = "dlv_1".parse::<DeliveryId>().unwrap_err().to_string();
        assert!(error.contains("dlv_<event>_<subscription>_<run>"), "{error}");
    }

    #[test]
    fn delivery_id_round_trips_with_one_spelling() {
        let at = Timestamp::from_millis(1_751_705_149_662);
        let id = DeliveryId { event: EventId::new(at, 7), subscription: SubscriptionId::new(at, 9), run: 3 };
        let text = id.to_string();
        assert_eq!(text.parse::<DeliveryId>().unwrap(), id);
        assert!(!text.contains('.'));
        for bad in [text.to_lowercase(), format!("{text}_1"), text.replace("_3", "_03"), "dlv_".into()] {
            assert!(bad.parse::<DeliveryId>().is_err(), "{bad}");
        }
    }

    #[test]
    fn issuer_keys_and_numbers_have_one_spelling() {
        assert_eq!("2".parse::<IssuerNumber>().unwrap().get(), 2);
        for bad in ["1", "0", "02", "+2", "-2", "", "x", "99999999999"] {
            assert!(bad.parse::<IssuerNumber>().is_err(), "{bad}");
        }
        let kid = "NzbLsXh8uDCcd-6MNwXF4W_7noWXFZAfHkxZsRGC9Xs";
        assert_eq!(kid.parse::<IssuerKeyId>().unwrap().as_str(), kid);
        for bad in ["", &kid[1..], &format!("{kid}x"), &kid.replace('_', "/"), &kid.replace('_', "=")] {
            assert!(bad.parse::<IssuerKeyId>().is_err(), "{bad}");
        }
    }
}
