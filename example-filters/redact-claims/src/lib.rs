//! Replaces personal data in events of various products with `hmac:` and a hash (HMAC-SHA256 with the secret `salt`),
//! so that persons stay distinguishable. Config, by member name: `{"keep": ["country"], "also": ["badge"]}`.

use hmac::{Hmac, KeyInit, Mac};
use serde::Deserialize;
use setgate_sdk::{Event, Result, Value, Verdict, config, json, secret};

setgate_sdk::export!(filter);

/// Names of personal members, in lower case without `_` and `-`. Everything nested below them is personal too.
const PERSONAL: &str = " email emailaddress emailaddresses primaryemail phone phonenumber primaryphone mobile username \
    preferredusername givenname familyname firstname lastname fullname displayname friendlyname nickname avatar \
    picture birthdate address ip userip ipaddress initiatoripaddress recipient subjectid identities profile \
    customdata newvalue ";
/// Objects that describe a person. `name` is personal in them, and beside a personal member.
const PERSONS: [&str; 6] = ["user", "users", "addedusers", "removedusers", "member", "actor"];

#[derive(Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
struct Config {
    keep: Vec<String>,
    also: Vec<String>,
    #[serde(skip)]
    salt: String,
}

/// The entry point of the filter.
pub fn filter(event: &Event) -> Result<Verdict> {
    let config = Config { salt: secret("salt")?, ..config()? };
    event.edit(|claims| {
        for claim in ["events", "sub_id", "sub"] {
            if let Some(value) = claims.get_mut(claim) {
                config.redact(value, claim, false);
            }
        }
    })
}

impl Config {
    fn redact(&self, value: &mut Value, name: &str, personal: bool) {
        match value {
            Value::Object(members) => {
                if let Some(format @ ("email" | "phone_number")) = members.get("format").and_then(Value::as_str) {
                    // A subject identifier (RFC 9493) that is an address becomes an opaque one.
                    let id = members.get(format).and_then(Value::as_str).map(|id| self.hash(id));
                    *value = json!({ "format": "opaque", "id": id });
                    return;
                }
                let person = PERSONS.contains(&&*plain(name)) || members.keys().any(|key| self.is_personal(key));
                // WSO2 sends each claim of a user as `uri` and `value`: the value is personal if the last segment of
                // the URI is.
                let claim = members.get("uri").and_then(|uri| Some(uri.as_str()?.rsplit('/').next()?.to_owned()));
                for (name, member) in members {
                    let of_claim = claim.as_deref().filter(|_| name == "value");
                    let name = of_claim.unwrap_or(name);
                    let named = of_claim.is_some() || self.is_personal(name) || person && name == "name";
                    self.redact(member, name, (personal || named) && !contains(&self.keep, name));
                }
            }
            Value::Array(items) => items.iter_mut().for_each(|item| self.redact(item, name, personal)),
            Value::String(text) if personal => *text = self.hash(text),
            Value::String(text) if !contains(&self.keep, name) && text.split(' ').any(looks_personal) => {
                let words = text.split(' ').map(|w| if looks_personal(w) { self.hash(w) } else { w.to_owned() });
                *text = words.collect::<Vec<_>>().join(" ");
            }
            Value::Number(number) if personal => *value = self.hash(&number.to_string()).into(),
            _ => {}
        }
    }

    fn is_personal(&self, name: &str) -> bool {
        PERSONAL.contains(&format!(" {} ", plain(name))) || contains(&self.also, name)
    }

    fn hash(&self, text: &str) -> String {
        let mut mac = Hmac::<sha2::Sha256>::new_from_slice(self.salt.as_bytes()).expect("a key of any length will do");
        mac.update(text.trim().to_lowercase().as_bytes());
        mac.finalize().into_bytes().iter().take(16).fold("hmac:".to_owned(), |hash, byte| format!("{hash}{byte:02x}"))
    }
}

fn contains(names: &[String], name: &str) -> bool {
    names.iter().any(|other| plain(other) == plain(name))
}

fn plain(name: &str) -> String {
    name.replace(['_', '-'], "").to_lowercase()
}

/// Whether a word looks like an email address, IP address or phone number, regardless of the member's name.
fn looks_personal(word: &str) -> bool {
    let phone = word.starts_with('+') && word.bytes().filter(u8::is_ascii_digit).count() >= 8;
    word.contains('@') || phone || word.parse::<std::net::IpAddr>().is_ok()
}

#[test]
fn cases() {
    setgate_sdk::testing::cases(filter, include_str!("../cases.json"));
}
