//! The SDK for filters.
//!
//! A filter is a WebAssembly component. Setgate calls it once for each delivery with one security event token (SET, RFC
//! 8417), and its verdict is to pass, patch, replace or drop the event.
//!
//! # The first filter
//!
//! ```
//! use setgate_sdk::{Event, Result, Verdict};
//!
//! setgate_sdk::export!(filter);
//!
//! fn filter(event: &Event) -> Result<Verdict> {
//!     if event.is("accessTokenIssued") {
//!         return Ok(Verdict::drop_because("nobody wants to hear of each token"));
//!     }
//!     Ok(Verdict::pass())
//! }
//! # let event = setgate_sdk::testing::event_of("https://example.com/accessTokenIssued", setgate_sdk::json!({}));
//! # assert!(matches!(setgate_sdk::testing::run(filter, event).verdict(), Verdict::Drop(_)));
//! ```
//!
//! With this `Cargo.toml`, it compiles to a component:
//!
//! ```toml
//! [lib]
//! crate-type = ["cdylib", "rlib"]   # rlib: so that integration tests can call it
//!
//! [dependencies]
//! setgate-sdk = "0.1"
//! serde = { version = "1", features = ["derive"] }   # only for config and table rows as types of your own
//!
//! [profile.release]                 # a small component compiles and starts faster
//! opt-level = "s"
//! lto = true
//! codegen-units = 1
//! panic = "abort"
//! strip = "debuginfo"               # names of functions stay: a fault says in which one it happened
//! ```
//!
//! # Looking at an event
//!
//! Products store the same data in different places. [`Event::is`] matches the type regardless of the product,
//! [`Event::body`] is the event in the product's own format, and [`Event::text`] returns the first non-empty text of
//! several locations.
//!
//! ```
//! use setgate_sdk::{Event, Result, Verdict};
//!
//! fn filter(event: &Event) -> Result<Verdict> {
//!     let login = event.is("loginSuccess") || event.is("PostSignIn") || event.is("user.login");
//!     let user = event.text(["/user/id", "/userId", "/data/user_id"]).or(event.subject());
//!     if login && user == Some("synthetic-monitor") {
//!         return Ok(Verdict::drop_because("our own probe"));
//!     }
//!     Ok(Verdict::pass())
//! }
//! # use setgate_sdk::{json, testing};
//! # let event = testing::event_of("https://example.com/PostSignIn", json!({"userId": "synthetic-monitor"}));
//! # assert!(matches!(testing::run(filter, event).verdict(), Verdict::Drop(_)));
//! ```
//!
//! # Settings and secrets
//!
//! A binding, which is the filter's entry in one subscription's chain, may have a `config` object and secrets.
//! [`config()`] deserialises the object; if it does not match the type, the result is a failure that names the member.
//! Access requires a grant: a filter that reads config or secrets can only be used by a binding with `"grants":
//! ["config"]`. The type below derives `Deserialize`, so this filter also needs `cargo add serde --features derive`.
//!
//! ```
//! use setgate_sdk::{Event, Result, Verdict, config, log};
//!
//! #[derive(serde::Deserialize)]
//! #[serde(default, deny_unknown_fields)]
//! struct Config {
//!     issuers: Vec<String>,
//! }
//!
//! impl Default for Config {
//!     fn default() -> Config {
//!         Config { issuers: vec!["https://idp.example.com".to_owned()] }
//!     }
//! }
//!
//! fn filter(event: &Event) -> Result<Verdict> {
//!     let config: Config = config()?;
//!     if !config.issuers.iter().any(|issuer| issuer == event.issuer()) {
//!         log::warn!("unknown issuer {}", event.issuer());
//!         return Ok(Verdict::drop_because("unknown issuer"));
//!     }
//!     Ok(Verdict::pass())
//! }
//! # use setgate_sdk::{json, testing};
//! # let event = testing::event_of("https://example.com/e", json!({}));
//! # assert_eq!(testing::run(filter, event.clone()).verdict(), &Verdict::Pass);
//! # let run = testing::Host::new().config(json!({"issuers": []})).run(filter, event);
//! # assert_eq!(run.log, [(log::Level::Warn, "unknown issuer https://idp.example.com".to_owned())]);
//! ```
//!
//! # Changing an event
//!
//! A patch is an RFC 7396 merge patch: members that it does not name keep their exact bytes. [`Event::patch_body`]
//! patches the event's own member, [`Verdict::patch`] the whole claims set; [`Event::edit`] derives the patch from a
//! change made in place, and [`Verdict::replace`] is for a filter that writes an entirely new event. `iss`, `iat`,
//! `jti`, `aud` and `txn` cannot be changed.
//!
//! ```
//! use setgate_sdk::{Event, Result, Verdict, json};
//!
//! fn filter(event: &Event) -> Result<Verdict> {
//!     event.patch_body(json!({ "userIp": null, "checked": true }))
//! }
//!
//! let event = setgate_sdk::testing::event_of("https://example.com/PostSignIn", json!({"userIp": "203.0.113.10"}));
//! assert_eq!(setgate_sdk::testing::run(filter, event).body(), json!({"checked": true}));
//! ```
//!
//! # Looking something up
//!
//! The tenant's tables are read with [`lookup::get`]. This requires a grant as well: `"grants": ["lookup"]`, or
//! `["config", "lookup"]` for a filter that also reads its config.
//!
//! ```
//! use setgate_sdk::{Event, Result, Verdict, json, lookup};
//!
//! #[derive(serde::Deserialize)]
//! struct App {
//!     owner: String,
//! }
//!
//! fn filter(event: &Event) -> Result<Verdict> {
//!     let Some(id) = event.text(["/application/id", "/client_id"]) else { return Ok(Verdict::pass()) };
//!     match lookup::get::<App>("apps", id)? {
//!         Some(app) => event.patch_body(json!({ "owner": app.owner })),
//!         None => Ok(Verdict::pass()),
//!     }
//! }
//! # use setgate_sdk::testing;
//! # let event = testing::event_of("https://example.com/e", json!({"client_id": "web"}));
//! # let host = testing::Host::new().row("apps", "web", json!({"owner": "shop"}));
//! # assert_eq!(host.run(filter, event).body(), json!({"client_id": "web", "owner": "shop"}));
//! ```
//!
//! # When it cannot decide
//!
//! `?` turns any error into a [permanent failure](Failure::Permanent) with the error's text: the binding's fault policy
//! then holds the delivery, passes it, or drops it. [`Failure::transient`] requests a retry. A panic is a fault as
//! well; the reason contains the panic's message, function and line.
//!
//! Each call runs in a fresh instance, unless its binding sets `reuse` (for guests that start slowly). No state is kept
//! between calls, and the only clock is [`Event::accepted_at`], so that a run can be repeated byte for byte.
//!
//! # Testing
//!
//! The [`testing`] module simulates the host, so `cargo test` is sufficient:
//!
//! ```
//! use setgate_sdk::{Event, Result, Verdict, json, secret, testing};
//!
//! fn filter(event: &Event) -> Result<Verdict> {
//!     event.patch_body(json!({ "salted": secret("salt")?.len() }))
//! }
//!
//! let event = testing::event_of("https://example.com/e", json!({}));
//! let run = testing::Host::new().secret("salt", "pepper").run(filter, event.clone());
//! assert_eq!(run.body(), json!({"salted": 6}));
//!
//! let run = testing::run(filter, event);
//! assert_eq!(run.failure(), "the binding has no secret `salt`");
//! ```
//!
//! For many events and few rules, tests are easier to maintain as data: see [`testing::cases`].
//!
//! # Building and uploading
//!
//! Each of these commands builds a component:
//!
//! * `cargo build --release --target wasm32-wasip2`
//! * `cargo component build --release`
//! * `cargo build --release --target wasm32-unknown-unknown`, with these lines in `.cargo/config.toml`. This component
//!   is the smallest and imports only Setgate's own interfaces:
//!
//! ```toml
//! [target.wasm32-unknown-unknown]
//! linker = "wasm-component-ld"                      # ships with rustc
//! rustflags = ["-Clink-arg=-zstack-size=65536"]     # less memory to reset between calls
//! ```
//!
//! On that target the crate includes a heap for the filter, which saves each fresh instance its first growth of memory.
//! A filter with its own `#[global_allocator]` disables it: `setgate-sdk = { version = "0.1", default-features = false
//! }`.
//!
//! `setgate filter run FILE.wasm --event sample.json` calls the filter once, and prints the verdict, the changes, fuel,
//! memory and time. `--form logto` and the other forms read events in a product's format; a directory of samples also
//! works. Then upload it: `setgate filter upload NAME FILE.wasm`, or `PUT /api/v1/tenants/{tenant}/filters/{name}` of
//! the management API.

mod config;
mod event;
#[cfg(target_family = "wasm")]
#[doc(hidden)]
pub mod guest;
#[cfg(all(feature = "heap", target_arch = "wasm32", target_os = "unknown"))]
mod heap;
pub mod log;
pub mod lookup;
mod pattern;
#[cfg(not(target_family = "wasm"))]
pub mod testing;
mod verdict;

pub use config::{config, optional_secret, secret, setting};
pub use event::Event;
pub use pattern::matches;
pub use serde_json::{self, Value, json};
pub use verdict::{Failure, Result, Verdict};

/// Implements config, secrets, log and look-ups: by calling the host in a guest, and by a [`testing::Host`] elsewhere.
#[cfg(target_family = "wasm")]
use guest as host;
#[cfg(not(target_family = "wasm"))]
use testing as host;

/// Exports a function as this component's filter.
///
/// Takes the path of a `fn(&Event) -> Result<Verdict>`; use it once per crate. On targets other than WebAssembly it
/// only checks that type.
#[macro_export]
macro_rules! export {
    ($filter:path) => {
        const _: fn(&$crate::Event) -> $crate::Result<$crate::Verdict> = $filter;

        #[cfg(target_family = "wasm")]
        const _: () = {
            use $crate::guest::bindings::exports::setgate::filter::transform;

            struct Exported;

            impl transform::Guest for Exported {
                fn process(event: transform::Event) -> ::std::result::Result<transform::Verdict, transform::Failure> {
                    $crate::guest::process(event, $filter)
                }
            }

    $crate::guest::bindings::export_transform!(Exported with_types_in $crate::guest::bindings);
        };
    };
}
