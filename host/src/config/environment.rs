//! Checks environment variables that begin with `SETGATE_`. An unknown one is an error, because it is nearly always a
//! misspelt setting that would otherwise be ignored.

use setgate_domain::nearest::nearest;

/// Prefix of all variables of the host.
pub(super) const PREFIX: &str = "SETGATE_";
/// Command line options that can be given as variables.
const OPTIONS: [&str; 8] = [
    "SETGATE_CONFIG",
    "SETGATE_OPERATOR_KEY_FILE",
    "SETGATE_HOST",
    "SETGATE_TENANT",
    "SETGATE_KEY",
    "SETGATE_KEY_FILE",
    "SETGATE_CA_FILE",
    "SETGATE_EMIT_SECRET",
];
/// Variables of the project's own tests and tools, which may be set in the shell that starts a host.
const TOOLS: [&str; 10] = [
    "SETGATE_BASE",
    "SETGATE_BIN",
    "SETGATE_CLOCK_CONTROL",
    "SETGATE_EVENTS",
    "SETGATE_EVENT_SAMPLES",
    "SETGATE_FILTERS",
    "SETGATE_GUEST_TOOLCHAIN",
    "SETGATE_REPO",
    "SETGATE_SIMULATION_SEEDS",
    "SETGATE_UPDATE",
];
/// Prefixes of further variables of the tests and tools.
const TOOLS_BEGIN: [&str; 4] = ["SETGATE_DISK_", "SETGATE_POWERCUT_", "SETGATE_REQUIRE_", "SETGATE_TEST_"];
/// Suffixes of the variables that Kubernetes and Docker set for a service named `setgate` or `setgate-...`.
const OF_A_SERVICE: [&str; 6] = ["_SERVICE_HOST", "_SERVICE_PORT", "_TCP", "_UDP", "_PROTO", "_ADDR"];
/// Common names of settings that are named differently here.
const CALLED: [(&str, &str); 6] = [
    ("SETGATE_PORT", "SETGATE_LISTEN__ADDRESS"),
    ("SETGATE_ADDRESS", "SETGATE_LISTEN__ADDRESS"),
    ("SETGATE_BIND", "SETGATE_LISTEN__ADDRESS"),
    ("SETGATE_DATA", "SETGATE_DATA__DIR"),
    ("SETGATE_LOG", "SETGATE_LOG__LEVEL"),
    ("SETGATE_MASTER_KEY", "SETGATE_DATA__MASTER_KEY_FILE"),
];

/// The variable that sets a key such as `listen.address`.
pub(super) fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.replace('.', "__").to_uppercase())
}

/// An error message for a variable that sets no key. `None` if the variable belongs to another program or tool.
pub(super) fn fault(name: &str, value: &str, keys: &[String]) -> Option<String> {
    let upper = name.to_uppercase();
    let tools = TOOLS.contains(&upper.as_str()) || TOOLS_BEGIN.iter().any(|begin| upper.starts_with(begin));
    if tools || OPTIONS.contains(&upper.as_str()) || is_of_a_service(&upper, value) {
        return None;
    }
    let variables: Vec<String> = keys.iter().map(|key| variable(key)).collect();
    let called = CALLED.iter().find(|(other, _)| *other == upper).map(|(_, variable)| *variable);
    // Misplaced underscores are the most common mistake: `SETGATE_LISTEN_ADDRESS`.
    let joined = upper.replace('_', "");
    let same = variables.iter().map(String::as_str).find(|variable| variable.replace('_', "") == joined);
    let known = variables.iter().map(String::as_str).chain(OPTIONS);
    Some(match called.or(same).or_else(|| nearest(&upper, known)) {
        Some(meant) => format!("the variable `{name}` sets nothing; did you mean `{meant}`?"),
        None => format!(
            "the variable `{name}` sets nothing: `{PREFIX}<SECTION>__<KEY>` sets a key of docs/reference/config.md; take it \
             away, or give it another name"
        ),
    })
}

/// Whether Kubernetes or Docker set the variable for a service: `SETGATE_SERVICE_HOST`,
/// `SETGATE_PORT=tcp://10.0.0.1:80`, `SETGATE_PORT_80_TCP_ADDR`, `SETGATE_SERVICE_PORT_HTTP`.
fn is_of_a_service(name: &str, value: &str) -> bool {
    let is_url = ["tcp://", "udp://", "sctp://"].iter().any(|scheme| value.starts_with(scheme));
    let of_a_port = name.contains("_PORT_") && name.split('_').any(|part| part.parse::<u16>().is_ok());
    is_url
        || name.contains("_SERVICE_PORT_")
        || OF_A_SERVICE[..2].iter().any(|end| name.ends_with(end))
        || (of_a_port && OF_A_SERVICE[2..].iter().chain(&["_PORT"]).any(|end| name.ends_with(end)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(name: &str, value: &str) -> Option<String> {
        let keys = ["listen.address", "listen.tls_key", "data.dir", "log.level", "egress.allow_http", "egress.allow"];
        fault(name, value, &keys.map(str::to_owned))
    }

    #[test]
    fn a_variable_that_is_almost_ours_names_the_right_one() {
        for (name, meant) in [
            ("SETGATE_LISTEN_ADDRESS", "`SETGATE_LISTEN__ADDRESS`"),
            ("SETGATE__LISTEN__ADDRESS", "`SETGATE_LISTEN__ADDRESS`"),
            ("setgate_listen_address", "`SETGATE_LISTEN__ADDRESS`"),
            ("SETGATE_LISTEN_ADRESS", "`SETGATE_LISTEN__ADDRESS`"),
            ("SETGATE_EGRESS_ALLOW_HTTP", "`SETGATE_EGRESS__ALLOW_HTTP`"),
            ("SETGATE_LOG_LEVEL", "`SETGATE_LOG__LEVEL`"),
            ("SETGATE_PORT", "`SETGATE_LISTEN__ADDRESS`"),
            ("SETGATE_DATA_DIR", "`SETGATE_DATA__DIR`"),
            ("SETGATE_CONFIGG", "`SETGATE_CONFIG`"),
            ("SETGATE_OPERATOR_KEYFILE", "`SETGATE_OPERATOR_KEY_FILE`"),
            ("SETGATE_SOMETHING_ELSE_ENTIRELY", "docs/reference/config.md"),
        ] {
            let text = said(name, "8080").unwrap_or_default();
            assert!(text.contains(&format!("`{name}`")) && text.contains(meant), "{name}: {text}");
        }
    }

    #[test]
    fn what_tools_and_orchestrators_set_is_let_be() {
        for (name, value) in [
            ("SETGATE_BIN", "x"),
            ("SETGATE_REQUIRE_INTEROP", "1"),
            ("SETGATE_POWERCUT_DIR", "/x"),
            ("SETGATE_TENANT", "acme"),
            ("SETGATE_SERVICE_HOST", "10.0.0.1"),
            ("SETGATE_SERVICE_PORT", "80"),
            ("SETGATE_SERVICE_PORT_HTTP", "80"),
            ("SETGATE_PORT", "tcp://10.0.0.1:80"),
            ("SETGATE_PORT_80_TCP", "tcp://10.0.0.1:80"),
            ("SETGATE_PORT_80_TCP_PROTO", "tcp"),
            ("SETGATE_PORT_80_TCP_PORT", "80"),
            ("SETGATE_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("SETGATE_OPERATOR_SERVICE_HOST", "10.0.0.1"),
        ] {
            assert_eq!(said(name, value), None, "{name}");
        }
    }
}
