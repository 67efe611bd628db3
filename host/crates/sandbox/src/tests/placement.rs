//! On which thread a call runs.

use super::guests::LOOKUP;
use super::*;

/// Records on which thread each lookup was made.
#[derive(Default)]
struct Threads(Mutex<String>);

impl Threads {
    /// One letter for each lookup since the previous call: `c` for the caller's thread, `g` for a guest thread.
    fn seen(&self) -> String {
        std::mem::take(&mut self.0.lock().unwrap())
    }
}

impl Tables for Threads {
    fn get(&self, _: &str, _: &str) -> Option<Option<Arc<str>>> {
        let is_guests = std::thread::current().name() == Some("setgate-guest");
        self.0.lock().unwrap().push(if is_guests { 'g' } else { 'c' });
        Some(None)
    }
}

/// Makes a lookup, loops for several slices if the claims are longer than 64 bytes, then makes another lookup.
const LOOKS: &str = r"(local $n i32)
  (call $get (i32.const 1024) (i32.const 1) (i32.const 1025) (i32.const 1) (i32.const 512))
  (if (i32.gt_u (i32.load (i32.add (local.get 0) (i32.const 88))) (i32.const 64)) (then
    (loop $again
      (local.set $n (i32.add (local.get $n) (i32.const 1)))
      (br_if $again (i32.lt_u (local.get $n) (i32.const 1000000))))))
  (call $get (i32.const 1024) (i32.const 1) (i32.const 1025) (i32.const 1) (i32.const 512))
  (call $answer (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0))";

#[tokio::test]
async fn short_filter_starts_on_callers_thread() {
    let fixture = Fixture::new();
    let digest = fixture.upload(LOOKUP.doing(r#"(data (i32.const 1024) "tk")"#, LOOKS)).await.unwrap().digest;
    let threads = Arc::new(Threads::default());
    let call = |long: bool| {
        let mut call = fixture.call(digest);
        call.tables = threads.clone();
        if long {
            call.event.claims = format!(r#"{{"iss":"{}"}}"#, "i".repeat(64));
        }
        async {
            let ran = fixture.sandbox.run(call).await;
            assert_eq!(ran.verdict, Ok(Verdict::Pass));
            threads.seen()
        }
    };
    // On a busy machine a slice may end by time. Such a call does not affect the filter's history, so repeat.
    let elsewhere = async || {
        let mut calls = 0;
        while !call(false).await.starts_with('c') {
            calls += 1;
            assert!(calls < 1_000, "it never starts inline");
        }
        calls
    };
    assert!(elsewhere().await >= 8, "it has no history");
    let threads = call(true).await;
    assert!(
        threads.starts_with('c') && threads.ends_with('g'),
        "it continues on the guest threads after its first slice"
    );
    assert!(elsewhere().await >= 16, "it needs twice as many short calls");
}
