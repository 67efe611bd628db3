use serde::de::DeserializeOwned;

use crate::{Failure, Result, host};

/// Deserialises the binding's whole `config` object.
///
/// A binding without a config is read as `{}`, so a type with `#[serde(default)]` gets its defaults. If the config does
/// not match the type, the result is a permanent failure that names the member.
pub fn config<T: DeserializeOwned>() -> Result<T> {
    serde_json::from_str(&host::config_all()).map_err(|error| Failure::permanent(format!("config: {error}")))
}

/// Deserialises one top-level member of the binding's `config` object. `None` if it is absent.
pub fn setting<T: DeserializeOwned>(key: &str) -> Result<Option<T>> {
    let Some(text) = host::config_get(key) else { return Ok(None) };
    let value = serde_json::from_str(&text);
    Ok(Some(value.map_err(|error| Failure::permanent(format!("config member `{key}`: {error}")))?))
}

/// One of the binding's secrets. If it is absent, the result is a permanent failure that names it.
pub fn secret(name: &str) -> Result<String> {
    optional_secret(name).ok_or_else(|| Failure::permanent(format!("the binding has no secret `{name}`")))
}

/// One of the binding's secrets. `None` if it is absent.
pub fn optional_secret(name: &str) -> Option<String> {
    host::secret(name)
}
