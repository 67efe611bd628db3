//! What a filter author writes against.
//!
//! A filter is a WebAssembly component. Setgate calls it once for each delivery with one security event token (SET,
//! RFC 8417), and it decides: let it pass, patch it, replace it, or drop it.
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
//! Its `Cargo.toml` makes a component of it:
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
//! Products put the same fact in different places. [`Event::is`] matches the type whoever sent it, [`Event::body`] is
//! what the product said, in its own form, and [`Event::text`] takes the first place that holds something.
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
//! A binding, the filter's place in one subscription's chain, may carry a `config` object and secrets. [`config()`]
//! reads the object as a type of yours; whatever does not fit is a failure that names the member. They are a grant: a filter
//! that reads them can be bound only by a binding with `"grants": ["config"]`. The type below derives `Deserialize`, so
//! this filter needs `cargo add serde --features derive` as well.
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
//! A patch is an RFC 7396 merge patch: what it does not name keeps its exact bytes. [`Event::patch_body`] patches the
//! event's own member, [`Verdict::patch`] the whole claims set; [`Event::edit`] finds the patch for a change made in
//! place, and [`Verdict::replace`] is for a filter that writes another event altogether. `iss`, `iat`, `jti`, `aud` and `txn` cannot be changed.
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
//! The tenant's tables are read with [`lookup::get`]. They are a grant as well: `"grants": ["lookup"]`, or
//! `["config", "lookup"]` for a filter that also has settings.
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
//! `?` turns any error into a [permanent failure](Failure::Permanent) with its text: the binding's fault policy then
//! holds the delivery, lets it through, or drops it. [`Failure::transient`] asks to be tried again later. A panic is a
//! fault as well; its reason is the panic's message, the function it happened in, and the line.
//!
//! Each call finds a fresh instance, unless its binding says otherwise (`reuse`, for guests that start slowly). Nothing is
//! kept between calls, and there is no clock but [`Event::accepted_at`], so that a run can be repeated byte for byte.
//!
//! # Testing
//!
//! The [`testing`] module stands in for the host, so `cargo test` is all it takes:
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
//! Many events and few rules are better kept as data: see [`testing::cases`].
//!
//! # Building and uploading
//!
//! Any of these writes a component:
//!
//! * `cargo build --release --target wasm32-wasip2`
//! * `cargo component build --release`
//! * `cargo build --release --target wasm32-unknown-unknown`, with these lines in `.cargo/config.toml`. This one is the
//!   smallest and imports nothing but Setgate's own interfaces:
//!
//! ```toml
//! [target.wasm32-unknown-unknown]
//! linker = "wasm-component-ld"                      # ships with rustc
//! rustflags = ["-Clink-arg=-zstack-size=65536"]     # less memory to reset between calls
//! ```
//!
//! On that target the crate brings the filter's heap along, which spares each fresh instance its first growth of memory. A
//! filter with a `#[global_allocator]` of its own switches it off: `setgate-sdk = { version = "0.1", default-features = false }`.
//!
//! `setgate filter run FILE.wasm --event sample.json` calls it once, and prints the verdict, what changed, fuel, memory
//! and time; `--form logto` and its like take what a product sends, and a folder of samples is as good as a file. Then upload it: `setgate filter upload NAME FILE.wasm`, or `PUT /api/v1/tenants/{tenant}/filters/{name}` of the
//! management API.

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

/// Where config, secrets, log and look-ups go: over the edge of a guest, to a [`testing::Host`] elsewhere.
#[cfg(target_family = "wasm")]
use guest as host;
#[cfg(not(target_family = "wasm"))]
use testing as host;

/// Makes a function the filter that this component is.
///
/// Takes the path of a `fn(&Event) -> Result<Verdict>`; once per crate. Off WebAssembly it only checks that type.
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
