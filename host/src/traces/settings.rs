//! `[traces]`: export of OpenTelemetry spans.

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::de::Visitor;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use setgate_domain::secret::Secret;
use url::Url;

/// Export of OpenTelemetry spans.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Settings {
    /// URL of a collector that accepts OTLP over HTTP in protobuf, such as `http://127.0.0.1:4318/v1/traces`. The path
    /// defaults to `/v1/traces`. Not set: no spans are created.
    pub endpoint: Option<Url>,
    /// Headers sent to the collector by name, such as its token. In the environment:
    /// `SETGATE_TRACES__HEADERS='{authorization="Bearer ..."}'`.
    #[serde(serialize_with = "names", deserialize_with = "secrets")]
    pub headers: BTreeMap<String, Secret>,
    /// File with further headers, one `name: value` per line. Lines that begin with `#` are ignored.
    pub headers_file: Option<PathBuf>,
    /// PEM files of certificate authorities to trust for the collector in addition to those of the system.
    pub ca_files: Vec<PathBuf>,
    /// Share of the traces started here that are sampled, from 0 to 1. If a sender provides `traceparent`, its flag
    /// `sampled` decides instead.
    pub sample_ratio: f64,
    /// `service.name` of the spans.
    pub service_name: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            endpoint: None,
            headers: BTreeMap::new(),
            headers_file: None,
            ca_files: Vec::new(),
            sample_ratio: 1.0,
            service_name: "setgate".into(),
        }
    }
}

impl Settings {
    /// One message for each value that is not usable.
    pub fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        if let Some(url) = &self.endpoint {
            let named = matches!(url.scheme(), "http" | "https") && url.host_str().is_some_and(|host| !host.is_empty());
            if !named {
                faults
                    .push("`traces.endpoint` is no http:// or https:// URL, such as http://127.0.0.1:4318".to_owned());
            }
            if !url.username().is_empty() || url.password().is_some() {
                faults.push("`traces.endpoint` carries a user name or password: use `traces.headers`".to_owned());
            }
        }
        if !(0.0..=1.0).contains(&self.sample_ratio) {
            faults.push("`traces.sample_ratio` is a share, from 0 to 1".to_owned());
        }
        faults
    }
}

/// Serialises the headers with their values masked.
fn names<S: Serializer>(headers: &BTreeMap<String, Secret>, to: S) -> Result<S::Ok, S::Error> {
    to.collect_map(headers.keys().map(|name| (name, "***")))
}

fn secrets<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeMap<String, Secret>, D::Error> {
    let texts = BTreeMap::<String, Text>::deserialize(from)?;
    Ok(texts.into_iter().map(|(name, Text(text))| (name, text)).collect())
}

/// Text that no error message quotes. The environment parser would otherwise read `123` and `true` as number and
/// boolean.
struct Text(Secret);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Unquoted;

        impl Visitor<'_> for Unquoted {
            type Value = Text;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("text in quotes")
            }

            fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<Text, E> {
                Ok(Text(Secret::new(text.to_owned())))
            }

            fn visit_bool<E: serde::de::Error>(self, _: bool) -> Result<Text, E> {
                Err(E::custom("the value of a header has to stand in quotes"))
            }

            fn visit_i64<E: serde::de::Error>(self, _: i64) -> Result<Text, E> {
                self.visit_bool(true)
            }

            fn visit_u64<E: serde::de::Error>(self, _: u64) -> Result<Text, E> {
                self.visit_bool(true)
            }

            fn visit_f64<E: serde::de::Error>(self, _: f64) -> Result<Text, E> {
                self.visit_bool(true)
            }
        }

        deserializer.deserialize_any(Unquoted)
    }
}

#[cfg(test)]
mod tests {
    use figment::Figment;
    use figment::providers::{Format as _, Toml};

    use super::*;

    fn read(toml: &str) -> Result<Settings, String> {
        Figment::from(Toml::string(toml)).extract().map_err(|error| error.to_string())
    }

    #[test]
    fn headers_are_read_and_never_shown() {
        let traces = read("headers = { x-api-key = \"hush\" }").unwrap();
        assert_eq!(traces.headers["x-api-key"].expose(), "hush");
        let shown = format!("{traces:?} {}", serde_json::to_string(&traces).unwrap());
        assert!(shown.contains("x-api-key") && !shown.contains("hush"), "{shown}");
        for unquoted in ["4711", "true", "1.5", "-1", "[4711]", "{ a = 4711 }"] {
            let said = read(&format!("headers = {{ x-api-key = {unquoted} }}")).unwrap_err();
            assert!(said.contains("quotes") && !said.contains("4711") && !said.contains("1.5"), "{said}");
        }
    }

    #[test]
    fn headers_can_stand_in_one_variable_of_the_environment() {
        let given = r#"{authorization="Bearer a=b, c", x-api-key="hush"}"#;
        let value: figment::value::Value = given.parse().unwrap();
        let traces: Settings = Figment::from(("headers", value)).extract().unwrap();
        assert_eq!(traces.headers["authorization"].expose(), "Bearer a=b, c");
        assert_eq!(traces.headers["x-api-key"].expose(), "hush");
    }
}
