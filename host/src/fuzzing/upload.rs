//! Fuzzing of uploads, up to the start of the compiler.

use setgate_domain::tenant::Quota;
use setgate_sandbox::{StructureLimits, UploadError, check_before_compile};
use wasmparser::Validator;

/// Above this size the validator is not run: it parses types recursively, and the caps protect it from deep nesting.
const VALIDATED_BYTES_MAX: usize = 16 << 10;

/// One inspection of an upload; the target measures its memory use.
pub fn look(bytes: &[u8]) -> bool {
    check_before_compile(bytes, &StructureLimits::default(), &Quota::default()).is_ok()
}

/// Any upload is accepted or refused with a message, and each refusal names a limit that is exceeded.
pub fn upload(bytes: &[u8]) {
    let quota = Quota::default();
    let checked = check_before_compile(bytes, &StructureLimits::default(), &quota);
    assert_eq!(checked, check_before_compile(bytes, &StructureLimits::default(), &quota), "the same twice");
    match &checked {
        Ok(()) => {
            assert_eq!(check_before_compile(bytes, &unlimited(), &limitless()), Ok(()), "taken with more room");
            let mut tighter = quota.clone();
            tighter.filter_bytes_max = bytes.len() as u64 - 1;
            assert!(matches!(check_before_compile(bytes, &unlimited(), &tighter), Err(UploadError::TooLarge { .. })));
            // An upload that reaches the compiler does not overflow the stack of its validator.
            if bytes.len() <= VALIDATED_BYTES_MAX {
                let _either = Validator::new().validate_all(bytes);
            }
        }
        Err(UploadError::Structure { what, found, limit_name, limit }) => {
            assert!(found > limit, "{what}: {found} is within {limit_name}, {limit}");
            let again = check_before_compile(bytes, &unlimited(), &limitless());
            if let Err(UploadError::Structure { limit_name, .. }) = again {
                assert_eq!(limit_name, "filter_nesting_max", "the one that has a ceiling of its own");
            }
        }
        Err(UploadError::Invalid { detail }) => {
            assert!(detail.len() <= 500, "{detail}");
            // An upload refused as invalid is invalid, except for features that filters may not use.
            if bytes.len() <= VALIDATED_BYTES_MAX && !detail.contains("which no filter may") {
                assert!(Validator::new().validate_all(bytes).is_err(), "refused, but valid: {detail}");
            }
        }
        Err(UploadError::NotWasm { .. } | UploadError::CoreModule | UploadError::Precompiled) => {}
        Err(other) => panic!("not before a compile: {other}"),
    }
    if let Err(refused) = checked {
        let said = refused.to_string();
        assert!(said.len() < 1_000 && !said.contains(char::is_control), "{said}");
    }
}

fn limitless() -> Quota {
    Quota { memory_bytes_max: u64::MAX, table_elements_max: u64::MAX, filter_bytes_max: u64::MAX, ..Quota::default() }
}

fn unlimited() -> StructureLimits {
    StructureLimits {
        modules_max: u64::MAX,
        instances_max: u64::MAX,
        core_instances_max: u64::MAX,
        functions_max: u64::MAX,
        function_bytes_max: u64::MAX,
        locals_max: u64::MAX,
        blocks_max: u64::MAX,
        types_max: u64::MAX,
        nesting_max: u64::MAX,
        imports_max: u64::MAX,
        exports_max: u64::MAX,
        links_max: u64::MAX,
        globals_max: u64::MAX,
        memories_max: u64::MAX,
        tables_max: u64::MAX,
        segments_max: u64::MAX,
    }
}
