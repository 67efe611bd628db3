//! The documentation: links, headings and paths exist, and the book contains every page. Needs no host.

use std::collections::BTreeSet;
use std::path::{Component, Path, PathBuf};

use setgate_tests::place;

/// Folders of the repository that a page may name in backticks.
const FOLDERS: [&str; 9] =
    ["bench/", "deploy/", "docs/", "example-filters/", "guest-sdk/", "host/", "tests/", "wit/", "xtask/"];
/// Folders that contain no pages of ours.
const SKIPPED: [&str; 3] = ["target", "node_modules", ".git"];
/// README has to stay a page that is read in a few minutes.
const README_BYTES_MAX: usize = 9 * 1024;

/// A Markdown file: its path from the repository's root, and its text.
struct Page {
    path: PathBuf,
    text: String,
}

/// A link or path in a page, with the number of its line.
struct Found {
    line: usize,
    target: String,
}

/// All Markdown files of the repository.
fn pages() -> Vec<Page> {
    fn walk(folder: &Path, into: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() && !SKIPPED.iter().any(|name| path.ends_with(name)) {
                walk(&path, into);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                into.push(path);
            }
        }
    }
    let root = place::root();
    let mut paths = Vec::new();
    walk(&root, &mut paths);
    paths.sort();
    let page = |path: &PathBuf| Page {
        path: path.strip_prefix(&root).unwrap().to_owned(),
        text: std::fs::read_to_string(path).unwrap(),
    };
    paths.iter().map(page).collect()
}

impl Page {
    /// Its lines outside code blocks, with their numbers.
    fn prose(&self) -> Vec<(usize, &str)> {
        let mut in_code = false;
        let mut lines = Vec::new();
        for (number, line) in self.text.lines().enumerate() {
            if line.trim_start().starts_with("```") {
                in_code = !in_code;
            } else if !in_code {
                lines.push((number + 1, line));
            }
        }
        lines
    }

    /// The targets of its links to files and headings of the repository.
    fn links(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for (line, text) in self.prose() {
            for part in text.split("](").skip(1) {
                let target = part.split([')', ' ']).next().unwrap_or_default();
                if !target.contains("://") && !target.starts_with("mailto:") {
                    found.push(Found { line, target: target.to_owned() });
                }
            }
        }
        found
    }

    /// The paths of the repository that stand in backticks.
    fn paths(&self) -> Vec<Found> {
        let mut found = Vec::new();
        for (line, text) in self.prose() {
            for code in text.split('`').skip(1).step_by(2) {
                let is_path = code.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"/._-".contains(&byte));
                if is_path && FOLDERS.iter().any(|folder| code.starts_with(folder)) {
                    found.push(Found { line, target: code.to_owned() });
                }
            }
        }
        found
    }

    /// The fragments of its headings, as GitHub and mdBook build them.
    fn fragments(&self) -> BTreeSet<String> {
        let heading = |line: &str| line.starts_with('#').then(|| fragment(line.trim_start_matches('#').trim()));
        self.prose().into_iter().filter_map(|(_, line)| heading(line)).collect()
    }
}

fn fragment(heading: &str) -> String {
    let kept = heading.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter.to_ascii_lowercase() }).collect()
}

/// The path that a link of a page leads to, from the repository's root. `None` if it leads out of the repository.
fn resolved(page: &Path, target: &str) -> Option<PathBuf> {
    let mut path = page.to_owned();
    if !target.is_empty() {
        path.pop();
        path.push(target);
    }
    let mut clean = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => clean.pop().then_some(())?,
            Component::Normal(name) => clean.push(name),
            _ => {}
        }
    }
    Some(clean)
}

/// The reason why a link is broken.
fn broken(page: &Page, target: &str, pages: &[Page]) -> Option<String> {
    let (file, heading) = target.split_once('#').unwrap_or((target, ""));
    let Some(path) = resolved(&page.path, file) else { return Some("leads out of the repository".to_owned()) };
    if !place::root().join(&path).exists() {
        return Some(format!("{} does not exist", path.display()));
    }
    // A page of the book is also read as HTML, without the rest of the repository.
    if page.path.starts_with("docs") && !path.starts_with("docs") {
        return Some("leads out of the book: write the path in backticks".to_owned());
    }
    let linked = pages.iter().find(|other| other.path == path);
    let is_missing = !heading.is_empty() && !linked.is_some_and(|page| page.fragments().contains(heading));
    is_missing.then(|| format!("{} has no heading `{heading}`", path.display()))
}

#[track_caller]
fn none_of(faults: &[String]) {
    assert!(faults.is_empty(), "the documentation has {} faults:\n  {}", faults.len(), faults.join("\n  "));
}

#[test]
fn links_lead_to_files_and_headings() {
    let pages = pages();
    let mut faults = Vec::new();
    for page in &pages {
        for link in page.links() {
            if let Some(reason) = broken(page, &link.target, &pages) {
                faults.push(format!("{}:{}: {}: {reason}", page.path.display(), link.line, link.target));
            }
        }
    }
    none_of(&faults);
}

#[test]
fn paths_in_backticks_exist() {
    let root = place::root();
    let mut faults = Vec::new();
    for page in pages().iter().filter(|page| !page.path.starts_with("docs/decisions")) {
        for found in page.paths() {
            if !root.join(&found.target).exists() {
                faults.push(format!("{}:{}: there is no {}", page.path.display(), found.line, found.target));
            }
        }
    }
    none_of(&faults);
}

#[test]
fn book_contains_every_page_once() {
    let pages = pages();
    let summary = pages.iter().find(|page| page.path == Path::new("docs/SUMMARY.md")).expect("docs/SUMMARY.md");
    let mut listed: Vec<_> = summary.links().into_iter().map(|link| format!("docs/{}", link.target)).collect();
    listed.sort();
    let is_page = |page: &&Page| page.path.starts_with("docs") && !page.path.ends_with("SUMMARY.md");
    let mut written: Vec<_> = pages.iter().filter(is_page).map(|page| page.path.display().to_string()).collect();
    written.sort();
    let missing: Vec<_> = written.iter().filter(|page| !listed.contains(page)).collect();
    assert!(missing.is_empty(), "docs/SUMMARY.md does not list {missing:?}");
    assert_eq!(listed, written, "docs/SUMMARY.md lists a page twice, or one that does not exist");
}

#[test]
fn readme_is_short() {
    let bytes = std::fs::metadata(place::root().join("README.md")).unwrap().len() as usize;
    assert!(
        bytes <= README_BYTES_MAX,
        "README.md has {bytes} bytes, {README_BYTES_MAX} are allowed: move text to docs/"
    );
}

#[test]
fn broken_links_are_detected() {
    let page = |path: &str, text: &str| Page { path: path.into(), text: text.to_owned() };
    let pages = [page("docs/glossary.md", "# A `b`, c-d\n```\n# no\n```\n"), page("README.md", "")];
    for (target, is_broken) in [
        ("glossary.md", false),
        ("glossary.md#a-b-c-d", false),
        ("glossary.md#no", true),
        ("no-such-page.md", true),
        ("../README.md", true),
        ("../../README.md", true),
        ("#a-b-c-d", false),
        ("#e", true),
    ] {
        assert_eq!(broken(&pages[0], target, &pages).is_some(), is_broken, "{target}");
    }
    assert!(broken(&pages[1], "docs/glossary.md#a-b-c-d", &pages).is_none());
    let text = "[a](b.md) [c](https://d) `host/src/lib.rs`\n```\n[e](f.md)\n```\n[g](h.md#i) `host/{x}` `x/y.rs`\n";
    let found = page("x.md", text);
    let links: Vec<_> = found.links().into_iter().map(|link| (link.line, link.target)).collect();
    assert_eq!(links, [(1, "b.md".to_owned()), (5, "h.md#i".to_owned())]);
    let paths: Vec<_> = found.paths().into_iter().map(|path| path.target).collect();
    assert_eq!(paths, ["host/src/lib.rs"]);
}
