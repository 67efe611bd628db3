//! The outcome of a filter call for one event, printed as text or as JSON.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::value::RawValue;
use setgate_dialects::normalize::NormalizeError;
use setgate_domain::chain;
use setgate_domain::event::NewEvent;
use setgate_domain::redact::Redactor;
use setgate_domain::set::Applied;
use setgate_domain::tenant::Quota;
use setgate_domain::time::Timestamp;
use setgate_domain::verdict::{Fault, FilterRun, Verdict};
use setgate_sandbox::{CompiledFilter, UploadError};

use super::show::{difference, say_cost, say_effect};
use crate::cli::out::{self, CONTINUED, say};

/// The outcome for one event.
pub(super) enum Outcome {
    /// A host would refuse the event.
    Refused(NormalizeError),
    /// The filter was called.
    Called(Box<Called>),
}

/// A call, and the result of applying its verdict as a host does.
pub(super) struct Called {
    pub(super) event: NewEvent,
    pub(super) run: FilterRun,
    pub(super) applied: Result<Applied, Fault>,
}

impl Called {
    /// Applies the verdict as a host does.
    pub(super) fn new(
        event: NewEvent,
        decided: Result<Verdict, Fault>,
        mut run: FilterRun,
        quota: &Quota,
        redactor: &Redactor,
    ) -> Self {
        let apply = |verdict| chain::apply(&event.set, verdict, quota.output_bytes_max, redactor);
        let applied = decided.and_then(apply);
        if let Err(fault) = &applied {
            run.verdict = None;
            run.fault = Some(fault.clone());
        }
        Self { event, run, applied }
    }
}

impl Outcome {
    /// Whether the event was accepted and the filter returned a valid verdict.
    pub(super) fn is_good(&self) -> bool {
        matches!(self, Self::Called(called) if called.applied.is_ok())
    }

    /// The outcome in one word, for a summary.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Refused(_) => "refused",
            Self::Called(called) => called.run.verdict.map_or("fault", |verdict| verdict.as_str()),
        }
    }

    /// Prints the outcome as text.
    pub(super) fn say(&self, compiled: &CompiledFilter, quota: &Quota) -> anyhow::Result<()> {
        let Called { event, run, applied } = match self {
            Self::Refused(why) => {
                say!("refused   {}: a host would not accept this event", why.code());
                say!("{CONTINUED}{why}");
                return Ok(());
            }
            Self::Called(called) => &**called,
        };
        match (&run.verdict, &run.fault) {
            (Some(verdict), _) => say!("verdict   {}", verdict.as_str()),
            (None, Some(fault)) => {
                say!("fault     {}", fault.kind());
                say!("{CONTINUED}it {fault}");
            }
            (None, None) => {}
        }
        say_cost(run, compiled, quota, event.subject.as_deref());
        say_effect(&event.set, applied)
    }

    /// Prints the outcome as one line of JSON, documented in `docs/reference/filter-run.md`.
    pub(super) fn say_json(&self, file: &Path, quota: &Quota) -> anyhow::Result<()> {
        let document = match self {
            Self::Refused(why) => {
                let refused = Why { code: why.code(), detail: why.to_string() };
                Document { event: Some(file), refused: Some(refused), ..Document::default() }
            }
            Self::Called(called) => {
                let Called { event, run, applied } = &**called;
                let after = match applied {
                    Ok(Applied::Unchanged) => Some(&event.set.text),
                    Ok(Applied::Changed(after)) => Some(&after.text),
                    Ok(Applied::Dropped(_)) | Err(_) => None,
                };
                let changes = match (applied, after) {
                    (Ok(Applied::Changed(_)), Some(after)) => {
                        difference(&serde_json::from_str(&event.set.text)?, &serde_json::from_str(after)?)
                    }
                    _ => Vec::new(),
                };
                Document {
                    event: Some(file),
                    refused: None,
                    subject: event.subject.as_deref(),
                    accepted_at: Some(event.accepted_at),
                    types: &event.set.types,
                    set: Some(RawValue::from_string(event.set.text.clone())?),
                    message: run.fault.as_ref().map(|fault| format!("it {fault}")),
                    run: Some(run),
                    claims: after.map(|text| RawValue::from_string(text.clone())).transpose()?,
                    changes,
                    limits: Some(Limits {
                        fuel_per_call: quota.fuel_per_call,
                        memory_bytes_max: quota.memory_bytes_max,
                    }),
                }
            }
        };
        Ok(out::json_line(&document)?)
    }
}

/// One line of `--json`.
#[derive(Default, Serialize)]
struct Document<'a> {
    event: Option<&'a Path>,
    refused: Option<Why>,
    subject: Option<&'a str>,
    accepted_at: Option<Timestamp>,
    types: &'a [String],
    set: Option<Box<RawValue>>,
    run: Option<&'a FilterRun>,
    message: Option<String>,
    claims: Option<Box<RawValue>>,
    changes: Vec<String>,
    limits: Option<Limits>,
}

#[derive(Serialize)]
struct Why {
    code: &'static str,
    detail: String,
}

#[derive(Serialize)]
struct Limits {
    fuel_per_call: u64,
    memory_bytes_max: u64,
}

/// Prints the reason for which a host would reject the component, as text or as a line of JSON.
pub(super) fn say_not_taken(file: &Path, why: &UploadError, json: bool) -> anyhow::Result<()> {
    if json {
        let refused = Why { code: why.kind(), detail: why.to_string() };
        return Ok(out::json_line(&Document { refused: Some(refused), ..Document::default() })?);
    }
    say!("{}: a host would not accept this filter: {}", file.display(), why.kind());
    say!("  {why}");
    Ok(())
}

/// Counts the outcomes of several events by kind.
pub(super) fn summary(outcomes: &[&'static str]) -> String {
    let mut kinds: Vec<(&str, usize)> = Vec::new();
    for kind in outcomes {
        match kinds.iter_mut().find(|(known, _)| known == kind) {
            Some((_, count)) => *count += 1,
            None => kinds.push((kind, 1)),
        }
    }
    let words: Vec<_> = kinds.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
    format!("{} events: {}", outcomes.len(), words.join(", "))
}

/// Expands directories to their event files, sorted by name.
pub(super) fn files(given: &[PathBuf]) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for path in given {
        if !path.is_dir() {
            files.push(path.clone());
            continue;
        }
        let mut inside = Vec::new();
        for entry in std::fs::read_dir(path)? {
            let path = entry?.path();
            if path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("json")) {
                inside.push(path);
            }
        }
        if inside.is_empty() {
            anyhow::bail!("{} has no events: it contains no .json file", path.display());
        }
        inside.sort();
        files.extend(inside);
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_summary_counts_each_kind() {
        assert_eq!(summary(&["patch", "fault", "patch"]), "3 events: 2 patch, 1 fault");
    }
}
