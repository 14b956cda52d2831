"""Checks the dashboard by Grafana's schema and layout, and writes its queries as rules for promtool.

Must not know metric names; that is names.py.
"""

import json
import pathlib
import re
import sys

import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

PATH = pathlib.Path(__file__).resolve().parent.parent / "grafana" / "memtrace.json"
ROWS = ["Fleet", "Namespace", "Container", "Incidents"]
VARIABLES = {"$__rate_interval": "5m", "$__range": "1h"}
# Of annotations: Grafana writes and reads them, its schema does not have them.
BEYOND_THE_SCHEMA = {"builtIn", "titleFormat", "textFormat"}


def lost(given, kept, path="$"):
    """Keys that the schema does not know: what a decoder of it does not keep."""
    if isinstance(given, dict):
        for key, value in given.items():
            if key in BEYOND_THE_SCHEMA:
                continue
            if not isinstance(kept, dict) or key not in kept:
                # Empty and absent are the same to the schema's encoder.
                if value not in (None, "", [], {}, False):
                    yield f"{path}.{key}"
            else:
                yield from lost(value, kept[key], f"{path}.{key}")
    elif isinstance(given, list):
        if not isinstance(kept, list) or len(given) != len(kept):
            yield path
        else:
            for index, (left, right) in enumerate(zip(given, kept)):
                yield from lost(left, right, f"{path}[{index}]")


def layout(panels):
    """Panels that overlap or leave the grid."""
    taken = {}
    for panel in panels:
        grid = panel["gridPos"]
        if grid["x"] + grid["w"] > 24:
            yield f"{panel['title']} leaves the grid"
        for x in range(grid["x"], grid["x"] + grid["w"]):
            for y in range(grid["y"], grid["y"] + grid["h"]):
                if (x, y) in taken:
                    yield f"{panel['title']} covers {taken[x, y]}"
                    return
                taken[x, y] = panel["title"]


def queries(dashboard):
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        if "expr" in annotation:
            yield annotation["name"], annotation["expr"]


def main():
    dashboard = json.loads(PATH.read_text())
    kept = json.loads(JSONEncoder().encode(Dashboard.from_json(dashboard)))
    problems = [f"not in Grafana's schema: {path}" for path in lost(dashboard, kept)]
    panels = dashboard["panels"]
    problems += layout(panels)
    ids = [panel["id"] for panel in panels]
    if len(ids) != len(set(ids)):
        problems.append("panels share an id")
    if [panel["title"] for panel in panels if panel["type"] == "row"] != ROWS:
        problems.append(f"rows are not {ROWS}")
    known = {variable["name"] for variable in dashboard["templating"]["list"]}
    text = json.dumps(dashboard)
    used = {name.strip("{}") for name in re.findall(r"\$(\{\w+\}|\w+)", text)}
    # $1 is of label_replace.
    used = {name for name in used if not name.startswith("__") and not name.isdigit()}
    if used != known:
        problems.append(f"variables: used {sorted(used)}, declared {sorted(known)}")
    if problems:
        sys.exit("\n".join(problems))

    rules = []
    for index, (_, expression) in enumerate(queries(dashboard)):
        for name, value in VARIABLES.items():
            expression = expression.replace(name, value)
        expression = re.sub(r'"\$[a-z_]\w*"', '".*"', expression)
        rules.append({"record": f"dashboard:query:{index}", "expr": expression})
    document = {"groups": [{"name": "dashboard", "rules": rules}]}
    pathlib.Path(sys.argv[1]).write_text(yaml.safe_dump(document))
    print(f"dashboard: {len(panels)} panels, {len(rules)} queries")


main()
