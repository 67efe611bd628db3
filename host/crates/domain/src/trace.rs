//! W3C Trace Context: parsed from requests, stored with events, and propagated to receivers.

use http::HeaderMap;

/// The header with trace ID and parent ID (W3C Trace Context section 3.2).
pub const TRACEPARENT: &str = "traceparent";
/// The header with vendor-specific data (W3C Trace Context section 3.3).
pub const TRACESTATE: &str = "tracestate";
/// Maximum length of a `tracestate` that is propagated, in bytes. A longer one is discarded as a whole. This is the
/// minimum that section 3.3.1.5 asks for.
pub const TRACE_STATE_BYTES_MAX: usize = 512;

/// Bit 0 of the flags: the trace is sampled (section 3.2.2.5.1).
const SAMPLED: u8 = 1;
/// The flags that are propagated: those defined in levels 1 and 2, `sampled` and `random`. Others are cleared.
const FLAGS_KNOWN: u8 = 0b11;
/// Length of a version 00 `traceparent` in bytes. Later versions may append to it.
const PARENT_BYTES: usize = 55;

/// A position in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// Trace ID; not zero.
    pub trace: [u8; 16],
    /// Parent span ID; not zero.
    pub span: [u8; 8],
    /// `trace-flags`.
    pub flags: u8,
    /// The unmodified `tracestate`, with several headers joined. Empty if there is none.
    pub state: String,
}

impl TraceContext {
    /// Parses the headers of a request. `None` if there is no `traceparent` or it is invalid, which starts a new trace
    /// (section 3.2.2).
    pub fn from_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?.to_str().ok()?;
        // With two parents, it is ambiguous which one applies.
        if parents.next().is_some() {
            return None;
        }
        Some(Self { state: state_of(headers).unwrap_or_default(), ..Self::parse(parent)? })
    }

    /// Parses `traceparent`. Of later versions only the fields of this version are used, and only the flag `sampled`
    /// (section 3.2.4).
    fn parse(text: &str) -> Option<Self> {
        let bytes = text.as_bytes();
        let (known, more) = bytes.split_at_checked(PARENT_BYTES)?;
        let field = |from: usize, to: usize| known.get(from..to).unwrap_or_default();
        if known.iter().any(u8::is_ascii_uppercase) || [2, 35, 52].iter().any(|at| known[*at] != b'-') {
            return None;
        }
        let [version] = read(field(0, 2))?;
        let [flags] = read(field(53, 55))?;
        let flags = match (version, more) {
            (0xff, _) => return None,
            (0, []) => flags & FLAGS_KNOWN,
            (1.., [] | [b'-', ..]) => flags & SAMPLED,
            _ => return None,
        };
        let (trace, span): ([u8; 16], [u8; 8]) = (read(field(3, 35))?, read(field(36, 52))?);
        let zero = trace == [0; 16] || span == [0; 8];
        (!zero).then(|| Self { trace, span, flags, state: String::new() })
    }

    /// Whether the caller samples the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// Starts a trace.
    pub fn new_root(trace: [u8; 16], span: [u8; 8], sampled: bool) -> Self {
        Self { trace, span, flags: if sampled { SAMPLED } else { 0 }, state: String::new() }
    }

    /// The same trace with another parent span.
    pub fn with_span(&self, span: [u8; 8]) -> Self {
        Self { span, ..self.clone() }
    }

    /// The headers for propagation: `traceparent`, and `tracestate` if there is one.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let parent = format!("00-{}-{}-{:02x}", hex::encode(self.trace), hex::encode(self.span), self.flags);
        let state = (!self.state.is_empty()).then(|| (TRACESTATE, self.state.clone()));
        std::iter::once((TRACEPARENT, parent)).chain(state)
    }

    /// Storage encoding: trace ID, span ID, flags, then the state.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.trace[..], &self.span, &[self.flags], self.state.as_bytes()].concat()
    }

    /// Decodes [`TraceContext::to_bytes`]. `None` if the bytes are invalid.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk()?;
        let (span, rest) = rest.split_first_chunk()?;
        let (flags, state) = rest.split_first()?;
        let state = std::str::from_utf8(state).ok()?.to_owned();
        Some(Self { trace: *trace, span: *span, flags: *flags, state })
    }
}

/// Several `tracestate` headers are one list, in their order (section 3.3.1; RFC 9110 section 5.3).
fn state_of(headers: &HeaderMap) -> Option<String> {
    let texts = headers.get_all(TRACESTATE).iter().map(|value| value.to_str().ok()).collect::<Option<Vec<_>>>()?;
    let state = texts.join(",");
    (state.len() <= TRACE_STATE_BYTES_MAX).then_some(state)
}

fn read<const N: usize>(digits: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    hex::decode_to_slice(digits, &mut bytes).ok()?;
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    const SPAN: &str = "00f067aa0ba902b7";

    fn of(headers: &[(&'static str, &str)]) -> Option<TraceContext> {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(*name, value.parse().unwrap());
        }
        TraceContext::from_headers(&map)
    }

    #[test]
    fn parses_traceparent_per_w3c() {
        for (parent, passed_on) in [
            (format!("00-{TRACE}-{SPAN}-01"), Some("01")),
            (format!("00-{TRACE}-{SPAN}-00"), Some("00")),
            // Undefined flags are not propagated.
            (format!("00-{TRACE}-{SPAN}-ff"), Some("03")),
            (format!("00-{TRACE}-{SPAN}-02"), Some("02")),
            // A later version: only the known fields are used.
            (format!("01-{TRACE}-{SPAN}-03"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01-what-the-future-will-be-like"), Some("01")),
            (format!("cc-{TRACE}-{SPAN}-01.what-the-future-will-be-like"), None),
            (format!("ff-{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}-01-"), None),
            (format!("00-{TRACE}-{SPAN}-01-more"), None),
            (format!("00-{TRACE}-{SPAN}-1"), None),
            (format!("00-{TRACE}-{SPAN}"), None),
            (format!("00-{TRACE}-{SPAN}-0x"), None),
            (format!("0-{TRACE}-{SPAN}-01"), None),
            (format!("00-{}-{SPAN}-01", TRACE.to_uppercase()), None),
            (format!("00-{TRACE}-{}-01", SPAN.to_uppercase()), None),
            (format!("00_{TRACE}-{SPAN}-01"), None),
            (format!("00-{TRACE}-{SPAN}_01"), None),
            (format!("00-{}-{SPAN}-01", "0".repeat(32)), None),
            (format!("00-{TRACE}-{}-01", "0".repeat(16)), None),
            (format!("00-{}-{SPAN}-01", "g".repeat(32)), None),
            (String::new(), None),
        ] {
            let context = of(&[(TRACEPARENT, &parent)]);
            let sent = context.map(|context| context.headers().collect::<Vec<_>>());
            let expected = passed_on.map(|flags| vec![(TRACEPARENT, format!("00-{TRACE}-{SPAN}-{flags}"))]);
            assert_eq!(sent, expected, "{parent}");
        }
        let good = format!("00-{TRACE}-{SPAN}-01");
        assert_eq!(of(&[(TRACEPARENT, &good), (TRACEPARENT, &good)]), None, "two traceparent headers are ignored");
        assert_eq!(of(&[(TRACESTATE, "a=1")]), None, "a tracestate without a traceparent is ignored");
    }

    #[test]
    fn tracestate_is_propagated_unchanged_or_dropped() {
        let good = format!("00-{TRACE}-{SPAN}-01");
        let state = |headers: &[&str]| {
            let mut all = vec![(TRACEPARENT, good.as_str())];
            all.extend(headers.iter().map(|value| (TRACESTATE, *value)));
            of(&all).unwrap().state
        };
        assert_eq!(state(&["rojo=00f067aa0ba902b7, congo=t61rcWkgMzE"]), "rojo=00f067aa0ba902b7, congo=t61rcWkgMzE");
        assert_eq!(state(&["a=1,b=2", "c=3"]), "a=1,b=2,c=3");
        let most = format!("a={}", "x".repeat(TRACE_STATE_BYTES_MAX - 2));
        assert_eq!(state(&[&most]), most);
        assert_eq!(state(&[&most, "b=1"]), "", "too long in total");
        assert_eq!(state(&["a=\u{e9}"]), "", "not ASCII: the traceparent is still valid");
    }

    #[test]
    fn stored_trace_context_round_trips() {
        for state in ["", "rojo=00f067aa0ba902b7,congo=t61rcWkgMzE"] {
            let context = TraceContext { trace: [3; 16], span: [5; 8], flags: 1, state: state.to_owned() };
            let bytes = context.to_bytes();
            assert_eq!(bytes.len(), 25 + state.len());
            assert_eq!(TraceContext::from_bytes(&bytes), Some(context));
            assert_eq!(TraceContext::from_bytes(&bytes[..24]), None);
        }
        assert_eq!(TraceContext::from_bytes(&[0xff; 26]), None, "a state is text");
    }
}
