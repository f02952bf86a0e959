//! Every query that `deploy` ships, of alerts and of the dashboard, held against the page that the agent gives out: figures and labels
//! that it asks for must be there, and what the page has must be somewhere to be seen.

use super::metrics;
use crate::diagnose::catalog;
use promql_parser::label::{MatchOp, Matcher};
use promql_parser::parser::{
    AggregateExpr, BinaryExpr, Expr, LabelModifier, VectorMatchCardinality, VectorSelector, parse,
};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

const RULES: &str = include_str!("../../../deploy/prometheus/tcpwatch.rules.yml");
const DASHBOARD: &str = include_str!("../../../deploy/grafana/tcpwatch.json");

/// What Prometheus itself gives every series of a target.
const TARGET: [&str; 2] = ["instance", "job"];

type Labels = BTreeSet<String>;

/// Names of series, each with its labels.
type Page = BTreeMap<String, Labels>;

fn labels<T: AsRef<str>>(names: impl IntoIterator<Item = T>) -> Labels {
    names.into_iter().map(|name| name.as_ref().to_owned()).collect()
}

/// What can be asked for: the agent's series, and what Prometheus adds.
fn page() -> Page {
    let text = metrics::tests::full().plain_page().unwrap();
    let mut page = Page::new();
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        let (series, _) = line.rsplit_once(' ').unwrap();
        let (name, rest) = series.split_once('{').unwrap_or((series, ""));
        let keys = rest.split("=\"").filter_map(|part| part.rsplit(['{', ',', '"']).next());
        let keys = keys.filter(|key| !key.is_empty() && *key != "}");
        page.insert(name.to_owned(), labels(keys.chain(TARGET)));
    }
    page.insert("up".into(), labels(TARGET));
    page
}

/// The labels of what an expression gives; an error if it asks for what is not there. `None`: a number.
fn given(expr: &Expr, page: &Page) -> Result<Option<Labels>, String> {
    Ok(match expr {
        Expr::NumberLiteral(_) | Expr::StringLiteral(_) => None,
        Expr::VectorSelector(selector) => Some(selected(selector, page)?),
        Expr::MatrixSelector(matrix) => Some(selected(&matrix.vs, page)?),
        Expr::Paren(paren) => given(&paren.expr, page)?,
        Expr::Unary(unary) => given(&unary.expr, page)?,
        Expr::Subquery(sub) => given(&sub.expr, page)?,
        Expr::Call(call) => {
            let all: Result<Vec<_>, _> = call.args.args.iter().map(|arg| given(arg, page)).collect();
            all?.into_iter().flatten().next()
        }
        Expr::Aggregate(aggregate) => Some(gathered(aggregate, page)?),
        Expr::Binary(binary) => joined(binary, page)?,
        Expr::Extension(_) => return Err("an extension of PromQL".into()),
    })
}

fn within(wanted: &[String], all: &Labels, what: impl Fn() -> String) -> Result<Labels, String> {
    match wanted.iter().find(|label| !all.contains(*label)) {
        Some(label) => Err(format!("{} has no label `{label}`, but {all:?}", what())),
        None => Ok(labels(wanted)),
    }
}

fn selected(selector: &VectorSelector, page: &Page) -> Result<Labels, String> {
    let is_name = |matcher: &&Matcher| matcher.name == "__name__";
    let names: Vec<&str> = match &selector.name {
        Some(name) => vec![name],
        None => {
            let matcher = selector.matchers.matchers.iter().find(is_name).ok_or("no name")?;
            matcher.value.split('|').collect()
        }
    };
    let mut common: Option<Labels> = None;
    for name in names {
        let has = page.get(name).ok_or_else(|| format!("nobody gives out {name}"))?;
        common = Some(common.map_or_else(|| has.clone(), |common| &common & has));
    }
    let common = common.ok_or("no name")?;
    for matcher in selector.matchers.matchers.iter().filter(|matcher| !is_name(matcher)) {
        within(std::slice::from_ref(&matcher.name), &common, || selector.to_string())?;
        // A regular expression is a list of words here, so that a cause that was renamed is found.
        let is_variable = matcher.value.starts_with('$');
        if matcher.name == "cause" && !is_variable {
            let ids: Vec<&str> = match &matcher.op {
                MatchOp::Re(_) | MatchOp::NotRe(_) => matcher.value.split('|').collect(),
                MatchOp::Equal | MatchOp::NotEqual => vec![&matcher.value],
            };
            if let Some(id) = ids.into_iter().find(|id| catalog::find(id).is_none()) {
                return Err(format!("no cause is named {id}"));
            }
        }
    }
    Ok(common)
}

fn gathered(aggregate: &AggregateExpr, page: &Page) -> Result<Labels, String> {
    let inner = given(&aggregate.expr, page)?.ok_or("a sum of a number")?;
    let what = || aggregate.expr.to_string();
    let chosen = match &aggregate.modifier {
        Some(LabelModifier::Include(by)) => within(&by.labels, &inner, what)?,
        Some(LabelModifier::Exclude(without)) => &inner - &within(&without.labels, &inner, what)?,
        None => Labels::new(),
    };
    let picks = ["topk", "bottomk"].contains(&aggregate.op.to_string().as_str());
    Ok(if picks { inner } else { chosen })
}

fn joined(binary: &BinaryExpr, page: &Page) -> Result<Option<Labels>, String> {
    let (left, right) = match (given(&binary.lhs, page)?, given(&binary.rhs, page)?) {
        (Some(left), Some(right)) => (left, right),
        (one, other) => return Ok(one.or(other)),
    };
    let modifier = binary.modifier.as_ref();
    let matching = modifier.and_then(|modifier| modifier.matching.as_ref());
    let what = || binary.to_string();
    let keys = match matching {
        Some(LabelModifier::Include(on)) => {
            within(&on.labels, &left, what)?;
            within(&on.labels, &right, what)?
        }
        Some(LabelModifier::Exclude(ignoring)) => &left - &labels(&ignoring.labels),
        None => left.clone(),
    };
    let is_or = binary.op.to_string() == "or";
    // Series of different labels never meet.
    if matching.is_none() && left != right && !is_or {
        return Err(format!("{} joins {left:?} with {right:?}", binary));
    }
    Ok(Some(match modifier.map(|modifier| &modifier.card) {
        _ if is_or => &left & &right,
        Some(VectorMatchCardinality::ManyToMany) => left,
        Some(VectorMatchCardinality::ManyToOne(more)) => &left | &within(&more.labels, &right, what)?,
        Some(VectorMatchCardinality::OneToMany(more)) => &right | &within(&more.labels, &left, what)?,
        Some(VectorMatchCardinality::OneToOne) | None => keys,
    }))
}

/// The names between `open` and a character that no name has.
fn named<'a>(text: &'a str, open: &'a str) -> impl Iterator<Item = String> + 'a {
    text.split(open).skip(1).map(|rest| {
        let rest = rest.trim_start();
        rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default().to_owned()
    })
}

fn check(query: &str, text: &str, open: &str, page: &Page) -> Result<Labels, String> {
    let parsed = parse(query).map_err(|error| format!("{query}: {error}"))?;
    let given = given(&parsed, page).map_err(|error| format!("{query}: {error}"))?.unwrap_or_default();
    let names: Vec<_> = named(text, open).collect();
    within(&names, &given, || format!("what {query} gives, and {text:?} asks for,"))?;
    Ok(given)
}

fn rules() -> Vec<Value> {
    let file: Value = serde_saphyr::from_str(RULES).unwrap();
    let groups = file["groups"].as_array().unwrap();
    groups.iter().flat_map(|group| group["rules"].as_array().unwrap()).cloned().collect()
}

#[test]
fn alerts_ask_for_what_there_is() {
    let page = page();
    let rules = rules();
    assert!(!rules.is_empty());
    for rule in rules {
        let texts: Vec<_> =
            rule["annotations"].as_object().unwrap().values().filter_map(Value::as_str).collect();
        check(rule["expr"].as_str().unwrap(), &texts.join("\n"), "$labels.", &page).unwrap();
        assert!(rule["annotations"]["runbook_url"].is_string(), "{rule}");
    }
}

/// Queries, each with the text that names labels of what it gives, wherever they are in a dashboard.
fn queries(part: &Value, found: &mut Vec<(String, String)>) {
    match part {
        Value::Object(object) => {
            if let Some(expr) = object.get("expr").and_then(Value::as_str) {
                let text = |key: &str| object.get(key).and_then(Value::as_str).unwrap_or_default();
                let texts = ["legendFormat", "titleFormat", "textFormat"].map(text).join(" ");
                found.push((expr.to_owned(), texts));
            }
            object.values().for_each(|value| queries(value, found));
        }
        Value::Array(array) => array.iter().for_each(|value| queries(value, found)),
        _ => {}
    }
}

#[test]
fn the_dashboard_asks_for_what_there_is_and_shows_all_of_it() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let mut page = page();
    let own: Vec<String> = page.keys().filter(|name| name.starts_with("tcpwatch_")).cloned().collect();
    // Prometheus makes it of the alerts.
    let of_alerts = rules().iter().fold(labels(["alertname", "alertstate"]), |all, rule| {
        let gives = check(rule["expr"].as_str().unwrap(), "", "$labels.", &page).unwrap();
        &(&all | &gives) | &labels(rule["labels"].as_object().unwrap().keys())
    });
    page.insert("ALERTS".into(), of_alerts);
    let variables: Vec<&Value> = dashboard["templating"]["list"].as_array().unwrap().iter().collect();
    let known: Labels = labels(variables.iter().filter_map(|variable| variable["name"].as_str()));
    let mut found = Vec::new();
    queries(&dashboard, &mut found);
    assert!(found.len() > 20, "{}", found.len());
    for variable in variables.iter().filter_map(|variable| variable["definition"].as_str()) {
        let inside = variable.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')')).unwrap();
        let (selector, label) = inside.rsplit_once(',').unwrap();
        found.push((selector.to_owned(), format!("{{{{{}}}}}", label.trim())));
    }
    for (query, text) in &found {
        for variable in named(query, "$").filter(|name| !name.starts_with("__")) {
            assert!(known.contains(&variable), "{query}: no variable is named {variable}");
        }
        let query = query.replace("$__rate_interval", "5m").replace("$__range", "1h");
        check(&query, text, "{{", &page).unwrap();
    }
    for name in own {
        assert!(
            found.iter().any(|(query, _)| query.contains(&name)),
            "no panel shows {name}: add it to deploy/grafana/tcpwatch.json"
        );
    }
}

#[test]
fn panels_are_distinct_and_do_not_overlap() {
    let dashboard: Value = serde_json::from_str(DASHBOARD).unwrap();
    let panels = dashboard["panels"].as_array().unwrap();
    let mut taken = BTreeMap::new();
    let mut ids = BTreeSet::new();
    for panel in panels {
        let title = panel["title"].as_str().unwrap();
        assert!(ids.insert(panel["id"].as_u64().unwrap()), "two panels have the id of {title}");
        let at = |key: &str| panel["gridPos"][key].as_u64().unwrap();
        assert!(at("x") + at("w") <= 24, "{title} is wider than the page");
        for (x, y) in
            (at("x")..at("x") + at("w")).flat_map(|x| (at("y")..at("y") + at("h")).map(move |y| (x, y)))
        {
            if let Some(other) = taken.insert((x, y), title) {
                panic!("{title} lies on {other}");
            }
        }
    }
}

/// Links lead to pages of this repository, and to headings that they have.
#[test]
fn links_lead_somewhere() {
    const DOCS: &str = "https://github.com/tcpwatch/tcpwatch/blob/main/";
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut count = 0;
    for rest in [RULES, DASHBOARD].into_iter().flat_map(|text| text.split(DOCS).skip(1)) {
        let target = rest.split('"').next().unwrap();
        let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
        let page = std::fs::read_to_string(root.join(file)).unwrap_or_else(|_| panic!("there is no {file}"));
        let is_found_later = anchor.is_empty() || anchor.contains(['{', '$']);
        let heading = |line: &str| line.trim_start_matches('#').trim().to_lowercase().replace(' ', "-");
        assert!(
            is_found_later || page.lines().any(|line| line.starts_with('#') && heading(line) == anchor),
            "{file} has no heading for #{anchor}"
        );
        count += 1;
    }
    assert!(count > 10, "{count}");
}

#[test]
fn what_is_wrong_in_a_query_is_found() {
    let page = page();
    let wrong = |query: &str, text: &str| check(query, text, "{{", &page).unwrap_err();
    assert!(wrong("rate(tcpwatch_reset_total[5m])", "").contains("nobody gives out"));
    assert!(wrong("sum by (netns) (tcpwatch_resets_total)", "").contains("`netns`"));
    assert!(wrong("tcpwatch_resets_total{comm=\"x\"}", "").contains("`comm`"));
    assert!(wrong("tcpwatch_resets_total{cause=~\"closed-port|no-such\"}", "").contains("no-such"));
    assert!(wrong("sum by (cause) (tcpwatch_resets_total)", "{{process}}").contains("`process`"));
    assert!(wrong("tcpwatch_time_wait_sockets / tcpwatch_resets_total", "").contains("joins"));
    assert!(wrong("tcpwatch_lag_seconds * on (netns) up", "").contains("`netns`"));
    assert!(wrong("sum by (", "").contains("sum by ("));
}
