"""Holds the metrics and labels in rules and dashboard against the names that memtrace's sources export,
and the alerts against their runbooks.

Must not parse PromQL beyond the names in it; promtool does.
"""

import json
import pathlib
import re
import sys

import yaml

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
RUNBOOKS = ROOT / "docs" / "runbooks"
# What the translation from OpenTelemetry to Prometheus appends: unit, then type.
SUFFIXES = [
    unit + kind
    for unit in ("", "_bytes", "_seconds", "_bytes_per_second")
    for kind in ("", "_total", "_bucket", "_sum", "_count")
]
OURS = re.compile(r"^(memtrace|container|system|k8s|process)_")
# Attributes of the resource on /metrics; those of identity come from elsewhere than the exporter.
RESOURCE = {
    "k8s_namespace_name",
    "k8s_pod_name",
    "k8s_container_name",
    "k8s_node_name",
    "container_id",
    "container_name",
    "memtrace_cgroup_path",
}


def exported():
    """Every dotted name in the sources of the exporter, as Prometheus writes it."""
    names = set()
    for path in (ROOT / "tracer" / "src" / "export").rglob("*.rs"):
        names |= set(re.findall(r'"((?:memtrace|container|system|process)\.[a-z_.]+)"', path.read_text()))
    return {name.replace(".", "_") for name in names}


def expressions():
    for path in sorted((DEPLOY / "prometheus").glob("*.rules.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                yield f"{path.name} {rule.get('alert', rule.get('record'))}", rule["expr"]
    dashboard = json.loads((DEPLOY / "grafana" / "memtrace.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"dashboard {panel['title']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield f"dashboard {annotation['name']}", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        if variable["type"] == "query":
            values = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
            yield f"dashboard ${variable['name']}", f"sum by ({values[2]}) ({values[1]})"


def texts():
    """What people read: annotations of alerts, legends and columns of the dashboard."""
    for path in sorted((DEPLOY / "prometheus").glob("*.rules.yaml")):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                for text in rule.get("annotations", {}).values():
                    yield rule["alert"], set(re.findall(r"\$labels\.(\w+)", text))
    dashboard = json.loads((DEPLOY / "grafana" / "memtrace.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], set(re.findall(r"\{\{(\w+)\}\}", target.get("legendFormat", "")))
        for transformation in panel.get("transformations", []):
            options = transformation["options"]
            yield panel["title"], {*options.get("excludeByName", {}), *options.get("renameByName", {})}
    for annotation in dashboard["annotations"]["list"]:
        yield annotation["name"], set(re.findall(r"\{\{(\w+)\}\}", annotation.get("textFormat", "")))


def taken_apart(expression):
    """Metrics and labels of an expression."""
    # Strings first: they may hold any character; label_replace takes names of labels as strings.
    labels = set(re.findall(r'"((?:memtrace|k8s|container|system)_\w+)"', expression))
    expression = re.sub(r'"(?:[^"\\]|\\.)*"', '""', expression)
    for matchers in re.findall(r"\{([^}]*)\}", expression):
        labels |= set(re.findall(r"(\w+)\s*[=!]", matchers))
    expression = re.sub(r"\{[^}]*\}", "", expression)
    grouping = r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^)]*)\)"
    for names in re.findall(grouping, expression):
        labels |= set(re.findall(r"\w+", names))
    expression = re.sub(grouping, "", expression)
    metrics = set(re.findall(r"[a-zA-Z_:][\w:]*(?![\w:]*\s*\()", expression))
    return metrics, labels


def main():
    problems = []
    known = exported()
    recorded, alerts = set(), {}
    for path in (DEPLOY / "prometheus").glob("*.rules.yaml"):
        for group in yaml.safe_load(path.read_text())["groups"]:
            for rule in group["rules"]:
                if "record" in rule:
                    recorded.add(rule["record"])
                else:
                    alerts[rule["alert"]] = rule

    used = set()
    for where, expression in expressions():
        metrics, labels = taken_apart(expression)
        for metric in metrics:
            if ":" in metric:
                if metric not in recorded:
                    problems.append(f"{where}: nothing records {metric}")
            elif OURS.match(metric):
                used.add(metric)
                if not any(
                    metric.endswith(suffix) and metric.removesuffix(suffix) in known for suffix in SUFFIXES
                ):
                    problems.append(f"{where}: memtrace exports no {metric}")
        for label in labels:
            if OURS.match(label) and label not in known | RESOURCE:
                problems.append(f"{where}: memtrace has no label {label}")
    for where, labels in texts():
        for label in labels:
            if OURS.match(label) and label not in known | RESOURCE:
                problems.append(f"{where}: memtrace has no label {label}")
    if len(used) < 20:
        problems.append(f"only {len(used)} metrics were found in rules and dashboard")

    for name, rule in alerts.items():
        if rule["annotations"].get("runbook") != f"docs/runbooks/{name}.md":
            problems.append(f"{name}: annotation runbook")
    pages = {path.stem for path in RUNBOOKS.glob("*.md")}
    if pages != set(alerts):
        problems.append(f"runbooks and alerts differ: {sorted(pages ^ set(alerts))}")

    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(used)} metrics are exported, {len(alerts)} alerts have a runbook")


main()
