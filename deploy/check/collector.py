"""Checks that the collector's pipelines and its components fit each other.

Must not know what a component's settings mean: no collector can be had here to say so.
"""

import pathlib
import sys

import yaml

PATH = pathlib.Path(__file__).resolve().parent.parent / "collector" / "config.yaml"


def main():
    config = yaml.safe_load(PATH.read_text())
    pipelines = config["service"]["pipelines"].values()
    problems = []
    for kind in ("receivers", "processors", "exporters"):
        used = {name for pipeline in pipelines for name in pipeline[kind]}
        if used != set(config[kind]):
            problems.append(f"{kind}: used {sorted(used)}, declared {sorted(config[kind])}")
    if set(config["service"]["extensions"]) != set(config["extensions"]):
        problems.append("extensions: used and declared differ")
    for pipeline in pipelines:
        if pipeline["processors"][0] != "memory_limiter" or pipeline["processors"][-1] != "batch":
            problems.append("memory_limiter has to come first and batch last")
    if problems:
        sys.exit("\n".join(problems))
    print("collector: every component is declared and used")


main()
