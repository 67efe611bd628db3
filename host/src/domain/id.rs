//! Names and identifiers. Each is parsed once at the border and cannot be wrong afterwards.

use std::fmt;
use std::str::FromStr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize, Serializer};
use ulid::Ulid;

use super::time::Timestamp;

/// What was wrong with a name or an identifier.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// A name outside `[a-z0-9][a-z0-9-]{0,62}`.
    #[error("`{given}` is not a {what}: use 1 to 63 of a-z, 0-9 and '-', starting with a letter or digit")]
    Name {
        /// Which kind of name was expected.
        what: &'static str,
        /// What was given, cut to 80 characters.
        given: String,
    },
    /// An identifier without its prefix or with a body that is not 26 characters of Crockford base32.
    #[error("`{given}` is not a {what}: expected `{prefix}` followed by 26 characters of 0-9 and A-Z")]
    Id {
        /// Which kind of identifier was expected.
        what: &'static str,
        /// The prefix of that kind.
        prefix: &'static str,
        /// What was given, cut to 80 characters.
        given: String,
    },
    /// A delivery id that is not made of an event, a subscription and a run.
    #[error(
        "`{given}` is not a delivery id: expected `dlv_<event>_<subscription>_<run>`, as the history shows it, with 26 \
         characters of 0-9 and A-Z for event and subscription"
    )]
    Delivery {
        /// What was given, cut to 80 characters.
        given: String,
    },
    /// A digest that is not `sha256:` and 64 lower-case hexadecimal digits.
    #[error(
        "`{given}` is not a digest: expected `sha256:` followed by 64 hexadecimal digits (0-9, a-f){}",
        digits(given)
    )]
    Digest {
        /// What was given, cut to 80 characters.
        given: String,
    },
}

/// How many digits there are, if that is the fault.
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
            /// What the textual form starts with.
            pub const PREFIX: &'static str = $prefix;

            /// Time-ordered: the first 48 bits are `at`, the other 80 are taken from `random`.
            pub fn new(at: Timestamp, random: u128) -> Self {
                Self(Ulid::from_parts(at.as_millis().max(0).unsigned_abs(), random))
            }

            /// The time that it was made with, to the millisecond.
            pub fn made_at(self) -> Timestamp {
                Timestamp::from_millis(self.0.timestamp_ms().cast_signed())
            }

            /// The 16 bytes, most significant first: the stored form.
            pub fn to_bytes(self) -> [u8; 16] {
                self.0.to_bytes()
            }

            /// From the stored form.
            pub fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Ulid::from_bytes(bytes))
            }

            fn parse_body(body: &str) -> Option<Self> {
                // `Ulid` reads lower case and look-alike letters too; one id has one spelling here.
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
    /// A tenant's name, unique at a host.
    TenantId, "tenant name"
);
name!(
    /// A source's name, unique within its tenant.
    SourceName, "source name"
);
name!(
    /// A filter's name, unique within its tenant.
    FilterName, "filter name"
);
name!(
    /// A look-up table's name, unique within its tenant.
    TableName, "table name"
);
name!(
    /// A subscription's name, unique within its tenant.
    SubscriptionName, "subscription name"
);
ulid!(
    /// An accepted event.
    EventId, "event id", "evt_"
);
ulid!(
    /// A subscription.
    SubscriptionId, "subscription id", "sub_"
);
ulid!(
    /// An API key (the public half).
    KeyId, "key id", "key_"
);
ulid!(
    /// A replay.
    ReplayId, "replay id", "rpl_"
);
ulid!(
    /// A signing key of a subscription's key ring.
    SigningKeyId, "signing key id", "sig_"
);

/// A subscription as a path names it: by its id, or by the name that its tenant has chosen. No name looks like an id.
#[derive(Debug, Clone, PartialEq, Eq, JsonSchema)]
#[schemars(into = "String", extend("pattern" = "^(sub_[0-7][0-9A-HJKMNP-TV-Z]{25}|[a-z0-9][a-z0-9-]{0,62})$"))]
pub enum SubscriptionRef {
    /// Its id.
    Id(SubscriptionId),
    /// Its name.
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

/// Event x subscription x run: `dlv_<event>_<subscription>_<run>`. It is `webhook-id` and the idempotency key
/// towards the receiver in every scheme, so it holds no dots and no control characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(try_from = "String")]
#[schemars(into = "String", extend("pattern" =
    "^dlv_[0-7][0-9A-HJKMNP-TV-Z]{25}_[0-7][0-9A-HJKMNP-TV-Z]{25}_(0|[1-9][0-9]{0,8})$"))]
pub struct DeliveryId {
    /// The event delivered.
    pub event: EventId,
    /// The subscription it is delivered to.
    pub subscription: SubscriptionId,
    /// 0 for the first, then one more for each replay.
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

/// SHA-256 of some bytes: names a filter version, a plan, a table version.
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
        // There are two for each byte. `hex::encode` goes digit by digit, and a digest is in nearly every record.
        hex::encode_to_slice(self.0, &mut digits).map_err(|_| fmt::Error)?;
        write!(f, "sha256:{}", std::str::from_utf8(&digits).map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_refuse_what_could_leave_a_path_or_a_header() {
        for bad in ["", "-a", "A", "a/b", "a.b", "a b", "a\n", &"a".repeat(64)] {
            assert!(bad.parse::<TenantId>().is_err(), "{bad:?}");
        }
        assert_eq!("acme-eu-1".parse::<TenantId>().unwrap().as_str(), "acme-eu-1");
    }

    #[test]
    fn an_error_describes_the_kind_that_was_expected() {
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
    fn a_delivery_id_reads_back_and_has_one_spelling() {
        let at = Timestamp::from_millis(1_751_705_149_662);
        let id = DeliveryId { event: EventId::new(at, 7), subscription: SubscriptionId::new(at, 9), run: 3 };
        let text = id.to_string();
        assert_eq!(text.parse::<DeliveryId>().unwrap(), id);
        assert!(!text.contains('.'));
        for bad in [text.to_lowercase(), format!("{text}_1"), text.replace("_3", "_03"), "dlv_".into()] {
            assert!(bad.parse::<DeliveryId>().is_err(), "{bad}");
        }
    }
}
