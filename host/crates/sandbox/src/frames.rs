//! Finds the function in which a guest faulted: the innermost frame of the author's own code.
//!
//! A stack starts with frames of the runtime (a panic adds a dozen of them), continues through libraries, and ends with
//! the glue code that the host called. Names come from the component's name section, if it has one.

use std::fmt::{self, Write as _};

use wasmtime::WasmBacktrace;

use super::log::cut_to;

/// Longest function name that is reported, in bytes.
const NAME_BYTES_MAX: usize = 160;
/// Bytes of a mangled name that are read. The cost of demangling grows faster than the length of the name.
const MANGLED_BYTES_MAX: usize = 2 << 10;

/// Crates of the Rust runtime and of our SDK, as they appear in symbols.
const RUNTIME_CRATES: [&str; 18] = [
    "__rustc",
    "alloc",
    "compiler_builtins",
    "core",
    "dlmalloc",
    "hashbrown",
    "panic_abort",
    "panic_unwind",
    "rustc_demangle",
    "rustc_std_workspace_core",
    "setgate_sdk",
    "std",
    "std_detect",
    "unwind",
    "wasi",
    "wasip2",
    "wit_bindgen",
    "wit_bindgen_rt",
];

/// Prefixes of C runtime functions and of tool-generated functions.
const RUNTIME_STARTS: [&str; 9] =
    ["__", "_start", "_initialize", "cabi_", "rust_", "_abort", "signature_mismatch:", "undefined", "wasi_snapshot_"];

/// C functions that terminate, allocate, or work on memory.
const RUNTIME_FUNCTIONS: [&str; 18] = [
    "_Exit",
    "abort",
    "calloc",
    "dlcalloc",
    "dlfree",
    "dlmalloc",
    "dlrealloc",
    "exit",
    "free",
    "malloc",
    "memcmp",
    "memcpy",
    "memmove",
    "memset",
    "raise",
    "realloc",
    "sbrk",
    "strlen",
];

/// Prefixes of interpreter functions. If the stack contains one of them, none of its frames was written by the filter's
/// author.
const INTERPRETER_STARTS: [&str; 8] = [
    "JS_Call",
    "PyEval_",
    "PyObject_",
    "_PyEval_",
    "_PyObject_",
    "async_func_resume",
    "js::Interpret",
    "js::RunScript",
];

/// The author's function in which an error happened. `None` if no name is known or if the filter runs in an
/// interpreter.
pub(super) fn author_function(error: &wasmtime::Error) -> Option<String> {
    let backtrace = error.downcast_ref::<WasmBacktrace>()?;
    let of_tools = |name: Option<&str>| name.is_some_and(|name| name.starts_with("wit-component:"));
    let frames = backtrace.frames().iter().filter(|frame| !of_tools(frame.module().name()));
    first_own(frames.map(|frame| frame.func_name()))
}

/// The first name that belongs to the author's code. `names` are ordered from the innermost frame.
fn first_own<'n>(names: impl Iterator<Item = Option<&'n str>>) -> Option<String> {
    let names: Vec<String> = names.flatten().map(demangled).collect();
    if names.iter().any(|name| INTERPRETER_STARTS.iter().any(|start| name.starts_with(start))) {
        return None;
    }
    let own: Vec<&String> = names.iter().filter(|name| !is_runtime(name)).collect();
    // The host calls the author's crate, which calls its libraries. So the outermost frame identifies the author's
    // crate.
    let outermost = own.last().and_then(|name| crate_of(name));
    let same_crate = |name: &&&String| outermost.is_none() || crate_of(name) == outermost;
    own.iter().find(same_crate).map(|name| cut_to(name, NAME_BYTES_MAX).to_owned())
}

fn is_runtime(name: &str) -> bool {
    match crate_of(name) {
        Some(of_crate) => RUNTIME_CRATES.contains(&of_crate),
        // `setgate:filter/transform@0.1.0#process` is a generated wrapper. `<T as Trait>` and `<[T]>` are generic code.
        None => {
            name.contains(['#', '<'])
                || RUNTIME_FUNCTIONS.contains(&name)
                || RUNTIME_STARTS.iter().any(|start| name.starts_with(start))
        }
    }
}

/// The crate of a demangled Rust path (`<mask::Rule as core::fmt::Debug>::fmt` belongs to `mask`), or the namespace of
/// a C++ path.
fn crate_of(name: &str) -> Option<&str> {
    let path = name.trim_start_matches(['<', '&', '*', '(', '[']);
    let path = ["mut ", "const ", "dyn "].iter().fold(path, |path, word| path.trim_start_matches(word));
    let end = path.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(path.len());
    path[end..].starts_with("::").then_some(&path[..end])
}

/// Demangles a symbol: both Rust manglings and C++. Other symbols are returned as they are.
fn demangled(name: &str) -> String {
    let name = cut_to(name, MANGLED_BYTES_MAX);
    let mut text = Bounded(String::new());
    if let Ok(rust) = rustc_demangle::try_demangle(name) {
        // `#` omits the hash. `Bounded` ends the write when the name is too long.
        let _ = write!(text, "{rust:#}");
        return text.0;
    }
    if let Some(cpp) = name.starts_with("_Z").then(|| cpp_demangle::Symbol::new(name).ok()).flatten() {
        let options = cpp_demangle::DemangleOptions::new().no_params().no_return_type();
        if cpp.structured_demangle(&mut text, &options).is_ok() || !text.0.is_empty() {
            return text.0;
        }
    }
    name.to_owned()
}

/// Accepts at most [`NAME_BYTES_MAX`] bytes: a mangled name of a few hundred bytes can expand to gigabytes.
struct Bounded(String);

impl fmt::Write for Bounded {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let kept = cut_to(text, NAME_BYTES_MAX.saturating_sub(self.0.len()));
        self.0.push_str(kept);
        if kept.len() < text.len() { Err(fmt::Error) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(names: &[&str]) -> Option<String> {
        first_own(names.iter().map(|name| Some(*name)))
    }

    #[test]
    fn skips_runtime_and_library_frames() {
        let names = [
            "_ZN3std7process5abort17h0123456789abcdefE",
            "__rust_start_panic",
            "rust_panic",
            "_RNvCs1_7___rustc17rust_begin_unwind",
            "_ZN4core9panicking9panic_fmt17h0123456789abcdefE",
            "_ZN10serde_json2de10from_trait17h0123456789abcdefE",
            "_ZN12mask_address5parse17h0123456789abcdefE",
            "_ZN12mask_address6filter17h0123456789abcdefE",
            "_ZN11setgate_sdk5guest7process17h0123456789abcdefE",
            "setgate:filter/transform@0.1.0#process",
        ];
        assert_eq!(first(&names).unwrap(), "mask_address::parse");
        assert_eq!(first(&names[8..]), None, "no frame is the author's");
        assert_eq!(first(&[]), None);
    }

    #[test]
    fn demangles_names_of_each_language() {
        for (mangled, name) in [
            ("_RNvCskwGfYPst2Cb_3foo16example_function", "foo::example_function"),
            (
                "_ZN47_$LT$mask..Rule$u20$as$u20$core..fmt..Debug$GT$3fmt17h0123456789abcdefE",
                "<mask::Rule as core::fmt::Debug>::fmt",
            ),
            ("_ZN5shape6Circle4areaEi", "shape::Circle::area"),
            ("_Z7processPKc", "process"),
            ("plain_c", "plain_c"),
        ] {
            assert_eq!(first(&[mangled]).as_deref(), Some(name));
        }
        let bomb = format!("_Z1f{}", "S0_".repeat(600));
        assert!(demangled(&bomb).len() <= MANGLED_BYTES_MAX);
    }

    #[test]
    fn interpreter_frames_have_no_author() {
        assert_eq!(first(&["abort", "js_throw", "JS_CallInternal", "process"]), None);
        assert_eq!(first(&["abort", "_PyEval_EvalFrameDefault", "mine"]), None);
        assert_eq!(first(&["abort", "raise", "look", "process"]).unwrap(), "look");
    }
}
