//! Schemas of requests and answers. A type may differ between the two: a member with a default may be omitted in a
//! request, but is always present in an answer.

use std::collections::BTreeSet;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

/// Path of the schemas in the document.
const GIVEN: &str = "#/components/schemas/";
/// Temporary path of the request schemas until both sets are merged.
const TAKEN: &str = "#/taken/";

/// The schemas that one document needs.
pub(in crate::http) struct Schemas {
    taken: SchemaGenerator,
    given: SchemaGenerator,
}

impl Schemas {
    pub(in crate::http) fn new() -> Self {
        let settings = |path: &str| {
            // JSON Schema 2020-12 is the dialect of OpenAPI 3.1.
            SchemaSettings::draft2020_12().with(|settings| {
                settings.definitions_path = path.trim_start_matches('#').trim_end_matches('/').to_owned().into();
                settings.meta_schema = None;
            })
        };
        Self {
            taken: settings(TAKEN).for_deserialize().into_generator(),
            given: settings(GIVEN).for_serialize().into_generator(),
        }
    }

    /// The schema of a request body.
    pub(in crate::http) fn taken<T: JsonSchema>(&mut self) -> Value {
        self.taken.subschema_for::<T>().to_value()
    }

    /// The schema of an answer.
    pub(in crate::http) fn given<T: JsonSchema>(&mut self) -> Value {
        self.given.subschema_for::<T>().to_value()
    }

    /// The members of a type in a request, for parameters.
    pub(in crate::http) fn members<T: JsonSchema>(&mut self) -> Value {
        T::json_schema(&mut self.taken).to_value()
    }

    /// Adds all schemas to the document and updates the references to them.
    pub(in crate::http) fn finish(mut self, document: &mut Value) {
        let mut taken = self.taken.take_definitions(true);
        let mut schemas = self.given.take_definitions(true);
        taken.values_mut().chain(schemas.values_mut()).for_each(defaults_to_words);
        let apart = different(&taken, &schemas);
        let rename = |name: &str| if apart.contains(name) { format!("{name}Input") } else { name.to_owned() };
        let mut lead = |text: &mut String| {
            if let Some(name) = text.strip_prefix(TAKEN) {
                *text = format!("{GIVEN}{}", rename(name));
            }
        };
        for schema in taken.values_mut() {
            each_reference(schema, &mut lead);
        }
        each_reference(document, &mut lead);
        schemas.extend(taken.into_iter().map(|(name, schema)| (rename(&name), schema)));
        add_meanings(&mut schemas);
        schemas.sort_keys();
        document["components"]["schemas"] = Value::Object(schemas);
        tidy(document);
    }
}

/// Adds the meanings of the values that the dialects define.
fn add_meanings(schemas: &mut Map<String, Value>) {
    let meaning = |(name, about): (&str, &str)| format!("- `{name}`: {about}");
    let forms = setgate_dialects::forms().map(|form| (form.name, form.about)).map(meaning);
    let proofs = setgate_dialects::schemes().map(|scheme| (scheme.name(), scheme.about_proof)).map(meaning);
    let signing = setgate_dialects::schemes().map(|scheme| (scheme.name(), scheme.about_signing)).map(meaning);
    let all: [(&str, Vec<String>); 3] =
        [("SourceForm", forms.collect()), ("MacHeader", proofs.collect()), ("SigningScheme", signing.collect())];
    for (name, meanings) in all {
        let Some(schema) = schemas.get_mut(name) else { continue };
        let about = without_links(schema["description"].as_str().unwrap_or_default());
        schema["description"] = json!(format!("{about}\n\n{}", meanings.join("\n")));
    }
}

/// The names of schemas that differ between requests and answers, directly or through a reference.
fn different(taken: &Map<String, Value>, given: &Map<String, Value>) -> BTreeSet<String> {
    let mut apart = BTreeSet::new();
    loop {
        let before = apart.len();
        for (name, schema) in taken {
            let Some(other) = given.get(name) else { continue };
            let mut schema = schema.clone();
            let mut refers = false;
            each_reference(&mut schema, &mut |text| *text = text.replace(TAKEN, GIVEN));
            each_reference(&mut schema, &mut |text| refers |= apart.contains(text.trim_start_matches(GIVEN)));
            if refers || schema != *other {
                apart.insert(name.clone());
            }
        }
        if apart.len() == before {
            return apart;
        }
    }
}

/// Moves the default of a member to its description. Client generators treat a member with a `default` as always
/// present, so that each request would have to set it.
fn defaults_to_words(value: &mut Value) {
    match value {
        Value::Object(members) => {
            if let Some(default) = members.shift_remove("default").filter(|default| !default.is_null()) {
                let about = members.get("description").and_then(Value::as_str).unwrap_or_default();
                let words = format!("{about}\n\nDefault: `{default}`.").trim_start().to_owned();
                members.insert("description".to_owned(), json!(words));
            }
            // A property named `default` is a member, not a keyword.
            for (name, member) in members {
                match member {
                    Value::Object(properties) if name == "properties" => {
                        properties.values_mut().for_each(defaults_to_words);
                    }
                    other if name != "enum" && name != "examples" => defaults_to_words(other),
                    _ => {}
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(defaults_to_words),
        _ => {}
    }
}

fn each_reference(value: &mut Value, act: &mut dyn FnMut(&mut String)) {
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "$ref" => act(text),
                    other => each_reference(other, act),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(|item| each_reference(item, act)),
        _ => {}
    }
}

/// Adds constraints that schemars omits, and removes rustdoc links from descriptions.
fn tidy(value: &mut Value) {
    match value {
        Value::Object(members) => {
            let range = match members.get("format").and_then(Value::as_str) {
                Some("uint16") => Some((json!(0), json!(u16::MAX))),
                Some("uint32") => Some((json!(0), json!(u32::MAX))),
                Some("uint64" | "uint") => Some((json!(0), json!(u64::MAX))),
                Some("int64") => Some((json!(i64::MIN), json!(i64::MAX))),
                _ => None,
            };
            if let Some((least, most)) = range {
                members.entry("minimum").or_insert(least);
                members.entry("maximum").or_insert(most);
            }
            constants_to_enum(members);
            for (name, member) in members {
                match member {
                    Value::String(text) if name == "description" && !text.contains("\n- ") => {
                        *text = without_links(text)
                    }
                    other => tidy(other),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// Converts a choice of constants, or a single one, to an `enum`: client generators create an enumeration from that,
/// but few do from `const`. The meanings of the values are moved to the description of the whole.
fn constants_to_enum(members: &mut Map<String, Value>) {
    if let Some(constant) = members.shift_remove("const") {
        members.insert("enum".to_owned(), json!([constant]));
    }
    let Some(choices) = members.get("oneOf").and_then(Value::as_array) else { return };
    let (mut words, mut meanings) = (Vec::new(), Vec::new());
    for choice in choices {
        let constant = choice.get("const").map(std::slice::from_ref);
        let Some(some) = constant.or_else(|| choice.get("enum")?.as_array().map(Vec::as_slice)) else { return };
        if !some.iter().all(Value::is_string) {
            return;
        }
        if let Some(meaning) = choice.get("description").and_then(Value::as_str) {
            let named: Vec<_> = some.iter().filter_map(Value::as_str).map(|word| format!("`{word}`")).collect();
            meanings.push(format!("- {}: {}", named.join(", "), without_links(meaning)));
        }
        words.extend(some.iter().cloned());
    }
    members.shift_remove("oneOf");
    members.insert("type".to_owned(), json!("string"));
    members.insert("enum".to_owned(), Value::Array(words));
    if !meanings.is_empty() {
        let about = members.get("description").and_then(Value::as_str);
        let parts: Vec<_> = about.map(without_links).into_iter().chain([meanings.join("\n")]).collect();
        members.insert("description".to_owned(), json!(parts.join("\n\n")));
    }
}

/// ``[`Name`](path)`` and ``[`Name`]`` become `` `Name` ``; lines that were wrapped in the source are joined.
fn without_links(text: &str) -> String {
    let text = text.split("\n\n").map(|part| part.replace('\n', " ")).collect::<Vec<_>>().join("\n\n");
    let (mut clean, mut rest) = (String::new(), text.as_str());
    while let Some(at) = rest.find("[`") {
        let Some(end) = rest[at..].find("`]").map(|end| at + end) else { break };
        clean.push_str(&rest[..at]);
        clean.push_str(&rest[at + 1..=end]);
        rest = &rest[end + 2..];
        if rest.starts_with('(') {
            rest = rest.split_once(')').map_or("", |(_, after)| after);
        }
    }
    clean + rest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_choice_of_constants_is_an_enum() {
        let mut schema = json!({
            "description": "How.",
            "oneOf": [
                {"type": "string", "const": "shadow", "description": "Beside\nthe [`Active`] one."},
                {"type": "string", "enum": ["canary", "blue"]},
            ],
        });
        tidy(&mut schema);
        let about = "How.\n\n- `shadow`: Beside the `Active` one.";
        assert_eq!(schema, json!({"description": about, "type": "string", "enum": ["shadow", "canary", "blue"]}));
        let mut tagged =
            json!({"oneOf": [{"type": "object", "properties": {"kind": {"type": "string", "const": "open"}}}]});
        tidy(&mut tagged);
        assert_eq!(tagged["oneOf"][0]["properties"]["kind"], json!({"type": "string", "enum": ["open"]}));
    }

    #[test]
    fn a_default_is_said_in_words() {
        let mut schema = json!({
            "properties": {
                "default": {"type": "string", "default": null},
                "retry": {"description": "When.", "type": "array", "default": [5, 10]},
            },
        });
        defaults_to_words(&mut schema);
        let retry = json!({"description": "When.\n\nDefault: `[5,10]`.", "type": "array"});
        assert_eq!(schema, json!({"properties": {"default": {"type": "string"}, "retry": retry}}));
    }

    #[test]
    fn words_are_without_links() {
        for (given, clean) in [
            ("See [`Proof::Open`].", "See `Proof::Open`."),
            ("As [`A`](crate::a::A) and\n[`b`] are.", "As `A` and `b` are."),
            ("a [list] of\n\ntwo [`", "a [list] of\n\ntwo [`"),
        ] {
            assert_eq!(without_links(given), clean);
        }
    }
}
