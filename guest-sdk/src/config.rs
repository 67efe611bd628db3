use serde::de::DeserializeOwned;

use crate::{Failure, Result, host};

/// The binding's whole `config` object as a type of one's own.
///
/// Where the binding has no config this reads `{}`, so a type with `#[serde(default)]` gives its defaults. A config
/// that does not fit is a permanent failure which names the member.
pub fn config<T: DeserializeOwned>() -> Result<T> {
    serde_json::from_str(&host::config_all()).map_err(|error| Failure::permanent(format!("config: {error}")))
}

/// One top-level member of the binding's `config` object; none where it is absent.
pub fn setting<T: DeserializeOwned>(key: &str) -> Result<Option<T>> {
    let Some(text) = host::config_get(key) else { return Ok(None) };
    let value = serde_json::from_str(&text);
    Ok(Some(value.map_err(|error| Failure::permanent(format!("config member `{key}`: {error}")))?))
}

/// One of the binding's secrets. Where it is absent this is a permanent failure which names it.
pub fn secret(name: &str) -> Result<String> {
    optional_secret(name).ok_or_else(|| Failure::permanent(format!("the binding has no secret `{name}`")))
}

/// One of the binding's secrets; none where it is absent.
pub fn optional_secret(name: &str) -> Option<String> {
    host::secret(name)
}
