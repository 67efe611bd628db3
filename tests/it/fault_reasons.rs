//! The reason of a fault in the history, for the filter's author: the message, and the first function of the author's
//! own code.

use serde_json::{Value, json};
use setgate_tests::hostile::guest::{CONFIG, EXIT, Guest, LOG, STDERR, TEXT};
use setgate_tests::{Host, Ingest, Receiver, Reply, Source, Tenant, event};

/// Functions named as by rustc, each calling the next one: the filter's entry, a function of its own, and the standard
/// library's panic, which ends with `unreachable`. `$words` prints the message first.
fn panicking(words: &str) -> Guest {
    let core = format!(
        "(func $_ZN12mask_address6filter17h0123456789abcdefE (call $_RNvNtCs1234_12mask_address5rules5parse))
         (func $_RNvNtCs1234_12mask_address5rules5parse (call $_ZN4core9panicking9panic_fmt17h0123456789abcdefE))
         (func $_ZN4core9panicking9panic_fmt17h0123456789abcdefE {words} (call $rust_panic))
         (func $rust_panic unreachable)"
    );
    Guest::new("(call $_ZN12mask_address6filter17h0123456789abcdefE) unreachable").core(&core)
}

fn to_log(text: &str) -> Guest {
    panicking(&format!("(call $log (i32.const 3) (i32.const {TEXT}) (i32.const {}))", text.len())).calls(LOG).text(text)
}

fn to_stderr(text: &str) -> Guest {
    let print = "(call $print (call $stderr)";
    panicking(&format!("{print} (i32.const {TEXT}) (i32.const {}) (i32.const 512))", text.len()))
        .calls(STDERR)
        .text(text)
}

struct Story {
    _host: Host,
    acme: Tenant,
    source: Source,
    receiver: Receiver,
}

impl Story {
    async fn begin() -> Self {
        let Ingest { host, acme, source } = Ingest::start().await;
        Self { _host: host, acme, source, receiver: Receiver::start().await }
    }

    /// The delivery that was held because of a filter's fault.
    async fn held(&self, name: &str, filter: &Guest, binding: Value) -> Value {
        self.acme.upload(name, filter.wasm()).await.expect(201);
        let mut chain = json!([binding]);
        chain[0]["filter"] = json!(name);
        chain[0]["grants"] = self.acme.needs(name).await;
        let subscription = self.acme.subscribe(&self.receiver).chain(chain).create().await;
        let accepted = self.source.accept(event::set(name)).await;
        let held = self.acme.delivery_in("held", &subscription.delivery_of(&accepted)).await;
        subscription.pause().await;
        held
    }
}

#[tokio::test]
async fn panic_gives_message_and_first_own_frame() {
    let story = Story::begin().await;
    let place = "in mask_address::rules::parse";
    let lines = "assertion `left == right` failed\n  left: 1\n right: 2";
    for (name, filter, expected) in [
        ("hook", to_log("panicked at src/lib.rs:5:10:\nboom"), format!("boom, {place} (src/lib.rs:5:10)")),
        (
            "lines",
            to_log(&format!("panicked at src/lib.rs:5:10:\n{lines}")),
            format!("{lines}\n{place} (src/lib.rs:5:10)"),
        ),
        (
            "stderr",
            to_stderr(
                "\nthread '<unnamed>' (1) panicked at src/lib.rs:7:1:\nboom\nnote: run with `RUST_BACKTRACE=1`\n",
            ),
            format!("boom, {place} (src/lib.rs:7:1)"),
        ),
        (
            "library",
            to_log("panicked at /home/me/.cargo/registry/src/index/serde-1.0/src/de.rs:7:1:\nboom"),
            format!("boom, {place}"),
        ),
        ("silent", panicking(""), format!("wasm `unreachable` instruction executed, {place}")),
        (
            "other",
            to_stderr("terminate called without an active exception\n"),
            format!("wasm `unreachable` instruction executed: terminate called without an active exception, {place}"),
        ),
        (
            "python",
            to_stderr(
                "Traceback (most recent call last):\n  File \"app.py\", line 3, in process\n    x()\nValueError: no\n",
            ),
            "ValueError: no, in process (app.py:3)".to_owned(),
        ),
        (
            "script",
            to_stderr("TypeError: x is undefined\n    at map (native)\n    at look (app.js:3)\n"),
            "TypeError: x is undefined, in look (app.js:3)".to_owned(),
        ),
    ] {
        let held = story.held(name, &filter, json!({})).await;
        assert_eq!(held["runs"][0]["fault"]["detail"], expected, "{name}: {held}");
        assert_eq!(held["reason"], format!("filter `{name}` trapped: {expected}"), "{name}");
    }
}

#[tokio::test]
async fn message_survives_a_full_log_without_secrets() {
    let story = Story::begin().await;
    let secret = "hunter2-4711-and-more";
    // 64 KiB of log, then the panic.
    let noise = "n".repeat(1_024);
    let message = format!("{noise}panicked at src/lib.rs:5:10:\nthe key is {secret} {}", "x".repeat(3_000));
    let words = format!(
        "(local $n i32) (local.set $n (i32.const 64))
         (loop $again
           (call $log (i32.const 3) (i32.const {TEXT}) (i32.const 1024))
           (br_if $again (local.tee $n (i32.sub (local.get $n) (i32.const 1)))))
         (call $log (i32.const 3) (i32.const {}) (i32.const {}))",
        TEXT + 1_024,
        message.len() - 1_024,
    );
    // Reads its config, so that its binding has secrets to redact.
    let filter = panicking(&words).calls(LOG).calls(CONFIG).text(&message);
    let held = story.held("loud", &filter, json!({"secrets": {"token": secret}})).await;
    let detail = held["runs"][0]["fault"]["detail"].as_str().unwrap().to_owned();
    assert!(detail.starts_with("the key is [secret token] xxx"), "{detail}");
    assert!(detail.ends_with("x, in mask_address::rules::parse (src/lib.rs:5:10)"), "the place is not cut: {detail}");
    assert!(detail.len() <= 500, "{}", detail.len());
    assert!(!held.to_string().contains("hunter2"), "the secret is not shown: {held}");
}

#[tokio::test]
async fn exit_and_limit_name_the_cause() {
    let story = Story::begin().await;
    let text = "no rules\n";
    let print = format!("(call $print (call $stderr) (i32.const {TEXT}) (i32.const {}) (i32.const 512))", text.len());
    let exits =
        Guest::new(format!("{print} (call $exit (i32.const 1)) unreachable")).calls(STDERR).calls(EXIT).text(text);
    let held = story.held("exits", &exits, json!({})).await;
    let detail = held["runs"][0]["fault"]["detail"].as_str().unwrap();
    assert!(detail.starts_with("called wasi:cli/exit: no rules"), "{held}");

    let spins = Guest::new("(call $_ZN12mask_address4spin17h0123456789abcdefE) unreachable")
        .core("(func $_ZN12mask_address4spin17h0123456789abcdefE (loop $again (br $again)))");
    let held = story.held("spins", &spins, json!({})).await;
    assert_eq!(held["runs"][0]["fault"]["function"], "mask_address::spin", "{held}");
    assert!(held["reason"].as_str().unwrap().ends_with("`fuel_per_call` is 50000000, in mask_address::spin"), "{held}");

    let grabs = Guest::new("(call $grab) unreachable")
        .core("(func $grab (if (i32.eq (memory.grow (i32.const 1000)) (i32.const -1)) (then unreachable)))");
    let held = story.held("grabs", &grabs, json!({})).await;
    assert_eq!(held["runs"][0]["fault"]["kind"], "memory", "{held}");
    assert_eq!(held["runs"][0]["fault"]["function"], "grab", "{held}");
}

#[tokio::test]
async fn dead_letter_names_the_last_outcome() {
    let story = Story::begin().await;
    story.receiver.otherwise(Reply::status(503).body(|_| "<p>\nback at noon</p>".to_owned()));
    let subscription = story.acme.subscribe(&story.receiver).retry(&[0]).create().await;
    let accepted = story.source.accept(event::set("refused")).await;
    let dead = story.acme.delivery_in("dead", &subscription.delivery_of(&accepted)).await;
    assert_eq!(
        dead["reason"], "given up after 2 attempts: the last one was answered 503: <p> back at noon</p>",
        "{dead}"
    );
    subscription.pause().await;

    let nobody = format!("http://{}/", Receiver::nowhere().await);
    let subscription = story.acme.subscribe_url(&nobody).retry(&[]).create().await;
    let accepted = story.source.accept(event::set("nobody")).await;
    let dead = story.acme.delivery_in("dead", &subscription.delivery_of(&accepted)).await;
    let reason = dead["reason"].as_str().unwrap();
    assert!(reason.starts_with("given up after 1 attempt: the last one failed (connect): "), "{reason}");
    subscription.pause().await;

    let text = "the table is not there yet";
    let later = Guest::new(format!(
        "(i32.store8 (i32.const 0) (i32.const 1)) (i32.store8 (i32.const 4) (i32.const 0))
         (i32.store (i32.const 8) (i32.const {TEXT})) (i32.store (i32.const 12) (i32.const {})) (i32.const 0)",
        text.len()
    ));
    story.acme.upload("later", later.text(text).wasm()).await.expect(201);
    let subscription =
        story.acme.subscribe(&story.receiver).chain(json!([{"filter": "later"}])).retry(&[0]).create().await;
    let accepted = story.source.accept(event::set("later")).await;
    let held = story.acme.delivery_in("held", &subscription.delivery_of(&accepted)).await;
    let reason = held["reason"].as_str().unwrap();
    assert_eq!(reason, "given up after 2 attempts: filter `later` cannot decide now: the table is not there yet");
}
