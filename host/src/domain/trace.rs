//! Where in a distributed trace something stands: W3C Trace Context, as it comes with a request, as it is kept with an
//! event, and as it is passed on.

use http::HeaderMap;

/// The header that names trace and parent (W3C Trace Context section 3.2).
pub const TRACEPARENT: &str = "traceparent";
/// The header with what tracing systems keep of their own (W3C Trace Context section 3.3).
pub const TRACESTATE: &str = "tracestate";
/// Bytes of `tracestate` that are kept and passed on; a longer one is left out as a whole. What section 3.3.1.5 asks for at
/// the least.
pub const TRACE_STATE_BYTES_MAX: usize = 512;

/// Bit 0 of the flags: the trace is recorded (section 3.2.2.5.1).
const SAMPLED: u8 = 1;
/// The flags that are passed on: those with a meaning in level 1 and 2, `sampled` and `random`. Others go out as 0.
const FLAGS_KNOWN: u8 = 0b11;
/// Bytes of `traceparent` in version 00; later versions may add to them.
const PARENT_BYTES: usize = 55;

/// A place in a trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    /// The trace's id; not zero.
    pub trace: [u8; 16],
    /// The id of the span that is the parent of what follows; not zero.
    pub span: [u8; 8],
    /// `trace-flags`.
    pub flags: u8,
    /// `tracestate` as it came, several headers joined; empty: none.
    pub state: String,
}

impl TraceContext {
    /// What a request says; none where it says nothing, or not as W3C Trace Context asks: then it is as if it had said
    /// nothing (section 3.2.2, "restart the trace").
    pub fn of_headers(headers: &HeaderMap) -> Option<Self> {
        let mut parents = headers.get_all(TRACEPARENT).iter();
        let parent = parents.next()?.to_str().ok()?;
        // Two parents are none: which one is meant cannot be told.
        if parents.next().is_some() {
            return None;
        }
        Some(Self { state: state_of(headers).unwrap_or_default(), ..Self::parse(parent)? })
    }

    /// Reads the value of `traceparent`. Later versions are read as far as this one goes, and only their flag `sampled` is
    /// believed (section 3.2.4).
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

    /// Whether whoever was there before records the trace.
    pub fn is_sampled(&self) -> bool {
        self.flags & SAMPLED != 0
    }

    /// A place that begins a trace, and whether it is recorded.
    pub fn beginning(trace: [u8; 16], span: [u8; 8], sampled: bool) -> Self {
        Self { trace, span, flags: if sampled { SAMPLED } else { 0 }, state: String::new() }
    }

    /// The same trace with another span as the parent.
    pub fn under(&self, span: [u8; 8]) -> Self {
        Self { span, ..self.clone() }
    }

    /// The headers that pass it on: `traceparent`, and `tracestate` where there is one.
    pub fn headers(&self) -> impl Iterator<Item = (&'static str, String)> {
        let parent = format!("00-{}-{}-{:02x}", hex::encode(self.trace), hex::encode(self.span), self.flags);
        let state = (!self.state.is_empty()).then(|| (TRACESTATE, self.state.clone()));
        std::iter::once((TRACEPARENT, parent)).chain(state)
    }

    /// As it is stored: trace, span, flags, then the state.
    pub fn to_bytes(&self) -> Vec<u8> {
        [&self.trace[..], &self.span, &[self.flags], self.state.as_bytes()].concat()
    }

    /// What [`TraceContext::to_bytes`] wrote; none where it is something else.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let (trace, rest) = bytes.split_first_chunk()?;
        let (span, rest) = rest.split_first_chunk()?;
        let (flags, state) = rest.split_first()?;
        let state = std::str::from_utf8(state).ok()?.to_owned();
        Some(Self { trace: *trace, span: *span, flags: *flags, state })
    }
}

/// Fields of several headers are one list, in their order (section 3.3.1; RFC 9110 section 5.3).
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
        TraceContext::of_headers(&map)
    }

    #[test]
    fn a_parent_is_read_as_the_recommendation_has_it() {
        for (parent, passed_on) in [
            (format!("00-{TRACE}-{SPAN}-01"), Some("01")),
            (format!("00-{TRACE}-{SPAN}-00"), Some("00")),
            // Flags without a meaning are not passed on.
            (format!("00-{TRACE}-{SPAN}-ff"), Some("03")),
            (format!("00-{TRACE}-{SPAN}-02"), Some("02")),
            // A later version: what is known of it.
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
        assert_eq!(of(&[(TRACEPARENT, &good), (TRACEPARENT, &good)]), None, "two parents are none");
        assert_eq!(of(&[(TRACESTATE, "a=1")]), None, "a state without a parent is none");
    }

    #[test]
    fn a_state_is_passed_on_as_it_came_or_not_at_all() {
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
        assert_eq!(state(&[&most, "b=1"]), "", "too long together");
        assert_eq!(state(&["a=\u{e9}"]), "", "no ASCII; the parent holds all the same");
    }

    #[test]
    fn what_is_stored_comes_back() {
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
