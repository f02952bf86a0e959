//! `tcpwatch doctor`: what is seen on this host, what is not, and what to do about it.

pub mod census;

use super::page::Page;
use crate::host::preflight::{self, Finding, HookStatus};
use serde::Serialize;
use std::collections::BTreeMap;

/// Everything that doctor found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Of tcpwatch.
    pub version: String,
    /// `uname -r`.
    pub kernel: String,
    pub findings: Vec<Finding>,
    /// Empty when attaching was not even tried.
    pub hooks: Vec<HookStatus>,
}

impl Report {
    /// Whether tcpwatch can see anything at all, as far as was tried.
    pub fn works(&self) -> bool {
        let any = self.hooks.is_empty() || self.hooks.iter().any(|hook| hook.attached.is_some());
        !preflight::is_hopeless(&self.findings) && any
    }

    /// For people; at most 100 columns, ends with a newline.
    pub fn text(&self) -> String {
        let mut page = Page::default();
        page.line(0, &format!("tcpwatch {} on kernel {}", self.version, self.kernel));
        page.blank();
        page.line(0, "Prerequisites");
        for finding in &self.findings {
            let mark = if finding.ok { "ok  " } else { "no  " };
            page.hanging(2, mark, &finding.what);
            if !finding.ok {
                page.line(6, &finding.effect);
                page.hanging(6, "hint: ", &finding.hint);
            }
        }
        if !self.hooks.is_empty() {
            page.blank();
            self.hooks_text(&mut page);
        }
        page.blank();
        page.line(0, &self.verdict());
        page.text
    }

    fn hooks_text(&self, page: &mut Page) {
        let missing: Vec<&HookStatus> = self.hooks.iter().filter(|hook| hook.attached.is_none()).collect();
        let attached = self.hooks.len() - missing.len();
        page.line(0, &format!("Hooks: {attached} of {} attached", self.hooks.len()));
        let mut ways: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for hook in &self.hooks {
            if let Some(how) = &hook.attached {
                ways.entry(how).or_default().push(&hook.name);
            }
        }
        let width = ways.keys().map(|how| how.len()).max().unwrap_or(0) + 2;
        for (how, names) in ways {
            page.hanging(2, &format!("{how:width$}"), &names.join(" "));
        }
        if missing.is_empty() {
            return;
        }
        page.blank();
        page.line(0, "Not seen");
        for hook in missing {
            page.hanging(2, "no  ", &format!("{}: {}", hook.name, hook.loses));
            for (how, error) in &hook.tried {
                page.hanging(6, &format!("{how}: "), error);
            }
        }
    }

    fn verdict(&self) -> String {
        let lacking = self.findings.iter().filter(|finding| !finding.ok).count();
        let unseen = self.hooks.iter().filter(|hook| hook.attached.is_none()).count();
        if !self.works() {
            return "tcpwatch cannot work here: see the first `no` above.".to_owned();
        }
        if self.hooks.is_empty() {
            return "The prerequisites are met; no hook was tried.".to_owned();
        }
        match (lacking, unseen) {
            (0, 0) => "tcpwatch sees everything here.".to_owned(),
            (_, 0) => format!("Every hook is attached; {} above {} it.", things(lacking), limits(lacking)),
            (_, _) => format!("tcpwatch works here, without what {} would see.", hooks(unseen)),
        }
    }

    /// For programs: one object, ends with a newline.
    pub fn json(&self) -> String {
        let Self { version, kernel, findings, hooks } = self;
        let output = Output {
            version,
            kernel,
            works: self.works(),
            findings: findings.iter().map(OutputFinding::from).collect(),
            hooks: hooks.iter().map(OutputHook::from).collect(),
        };
        // Only a map with keys that are no strings, or a failing writer, make this fail: there is neither.
        serde_json::to_string(&output).map(|json| json + "\n").unwrap_or_default()
    }
}

fn things(count: usize) -> String {
    if count == 1 { "one prerequisite".to_owned() } else { format!("{count} prerequisites") }
}

fn limits(count: usize) -> &'static str {
    if count == 1 { "limits" } else { "limit" }
}

fn hooks(count: usize) -> String {
    if count == 1 { "one hook".to_owned() } else { format!("{count} hooks") }
}

/// The public form; names are a contract, absence is `null`.
#[derive(Serialize)]
struct Output<'a> {
    version: &'a str,
    kernel: &'a str,
    works: bool,
    findings: Vec<OutputFinding<'a>>,
    hooks: Vec<OutputHook<'a>>,
}

#[derive(Serialize)]
struct OutputFinding<'a> {
    what: &'a str,
    ok: bool,
    fatal: bool,
    effect: Option<&'a str>,
    hint: Option<&'a str>,
}

impl<'a> From<&'a Finding> for OutputFinding<'a> {
    fn from(finding: &'a Finding) -> Self {
        let Finding { what, ok, fatal, effect, hint } = finding;
        let present = |text: &'a String| (!text.is_empty()).then_some(text.as_str());
        Self { what, ok: *ok, fatal: *fatal, effect: present(effect), hint: present(hint) }
    }
}

#[derive(Serialize)]
struct OutputHook<'a> {
    name: &'a str,
    attached: Option<&'a str>,
    tried: Vec<OutputTry<'a>>,
    /// What is not seen; `null` when attached.
    loses: Option<&'a str>,
}

#[derive(Serialize)]
struct OutputTry<'a> {
    how: &'a str,
    error: &'a str,
}

impl<'a> From<&'a HookStatus> for OutputHook<'a> {
    fn from(hook: &'a HookStatus) -> Self {
        let HookStatus { name, attached, tried, loses } = hook;
        Self {
            name,
            attached: attached.as_deref(),
            tried: tried.iter().map(|(how, error)| OutputTry { how, error }).collect(),
            loses: attached.is_none().then_some(loses),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::page::WIDTH;
    use super::*;

    fn good(what: &str) -> Finding {
        Finding { what: what.into(), ok: true, fatal: false, effect: String::new(), hint: String::new() }
    }

    fn attached(name: &str, how: &str) -> HookStatus {
        HookStatus { name: name.into(), attached: Some(how.into()), tried: Vec::new(), loses: "x".into() }
    }

    fn report() -> Report {
        Report {
            version: "0.1.0".into(),
            kernel: "6.12.107".into(),
            findings: vec![
                good("CAP_BPF and CAP_PERFMON"),
                Finding {
                    what: "kernel symbols are hidden".into(),
                    ok: false,
                    fatal: false,
                    effect: "the deciding kernel function has no name, so that a few of the causes which only differ in \
                             their caller stay unknown"
                        .into(),
                    hint: "sysctl kernel.kptr_restrict=1".into(),
                },
            ],
            hooks: vec![
                attached("tcp_reset", "fentry"),
                attached("tcp_send_reset", "raw_tp"),
                attached("tcp_v4_send_reset", "fentry"),
                HookStatus {
                    name: "nf_send_reset".into(),
                    attached: None,
                    tried: vec![
                        ("fentry".into(), "no such function".into()),
                        ("kprobe".into(), "no such function".into()),
                    ],
                    loses: "RSTs that the firewall sends".into(),
                },
            ],
        }
    }

    #[test]
    fn the_page_tells_what_works_and_what_does_not() {
        let expected = "\
tcpwatch 0.1.0 on kernel 6.12.107

Prerequisites
  ok  CAP_BPF and CAP_PERFMON
  no  kernel symbols are hidden
      the deciding kernel function has no name, so that a few of the causes which only differ in
      their caller stay unknown
      hint: sysctl kernel.kptr_restrict=1

Hooks: 3 of 4 attached
  fentry  tcp_reset tcp_v4_send_reset
  raw_tp  tcp_send_reset

Not seen
  no  nf_send_reset: RSTs that the firewall sends
      fentry: no such function
      kprobe: no such function

tcpwatch works here, without what one hook would see.
";
        assert_eq!(report().text(), expected);
    }

    #[test]
    fn no_line_is_too_wide() {
        let mut report = report();
        for n in 0..60 {
            report.hooks.push(attached(&format!("a_kernel_function_{n}"), "fentry"));
        }
        report.hooks[3].tried[0].1 = "the verifier says no ".repeat(40);
        for line in report.text().lines() {
            assert!(line.chars().count() <= WIDTH, "{line}");
        }
    }

    #[test]
    fn the_verdict_names_the_worst() {
        let mut all = report();
        all.hooks.truncate(3);
        assert!(all.text().ends_with("Every hook is attached; one prerequisite above limits it.\n"));
        all.findings.truncate(1);
        assert!(all.text().ends_with("tcpwatch sees everything here.\n"));
        all.findings[0] = Finding { ok: false, fatal: true, ..good("CAP_BPF is missing") };
        assert!(!all.works() && all.text().contains("cannot work here"));
        all.findings[0] = good("CAP_BPF");
        all.hooks.clear();
        assert!(all.text().ends_with("no hook was tried.\n"));
        all.hooks.push(HookStatus::default());
        assert!(!all.works(), "none could be attached");
    }

    #[test]
    fn the_json_has_null_for_what_is_not_there() {
        let json: serde_json::Value = serde_json::from_str(&report().json()).unwrap();
        assert_eq!(json["works"], true);
        assert_eq!(json["findings"][0]["hint"], serde_json::Value::Null);
        assert_eq!(json["findings"][1]["hint"], "sysctl kernel.kptr_restrict=1");
        assert_eq!(json["hooks"][0]["loses"], serde_json::Value::Null);
        assert_eq!(json["hooks"][3]["attached"], serde_json::Value::Null);
        assert_eq!(json["hooks"][3]["tried"][1]["how"], "kprobe");
        assert!(report().json().ends_with("}\n"));
    }
}
