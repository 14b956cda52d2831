"""Breaks each rule in turn, what it leaves out too, and wants the tests of the rules to notice.

Must not test what rules say; that is promtool.
"""

import copy
import pathlib
import re
import shutil
import subprocess
import sys

import yaml

RULES = pathlib.Path(__file__).resolve().parent.parent / "prometheus"


def survives(promtool, directory):
    tests = sorted(str(path) for path in directory.glob("*_test.yaml"))
    return subprocess.run([promtool, "test", "rules", *tests], capture_output=True).returncode == 0


def main():
    promtool, directory = sys.argv[1], pathlib.Path(sys.argv[2])
    shutil.copytree(RULES, directory)
    if not survives(promtool, directory):
        sys.exit("the rules as they are do not pass")
    count, survivors = 0, []
    for path in sorted(directory.glob("*.rules.yaml")):
        original = path.read_text()
        document = yaml.safe_load(original)
        for at, group in enumerate(document["groups"]):
            for index, rule in enumerate(group["rules"]):
                mutants = [("silenced", "expr", "vector(0) > 1")]
                if "for" in rule:
                    mutants.append(("at once", "for", "0s"))
                for found in re.finditer(r"\bunless\b", rule["expr"]):
                    start, end = found.span()
                    all_told = rule["expr"][:start] + "or" + rule["expr"][end:]
                    mutants.append(("leaving nothing out", "expr", all_told))
                for what, key, value in mutants:
                    mutant = copy.deepcopy(document)
                    mutant["groups"][at]["rules"][index][key] = value
                    path.write_text(yaml.safe_dump(mutant))
                    count += 1
                    if survives(promtool, directory):
                        survivors.append(f"{rule.get('alert', rule.get('record'))} {what}")
        path.write_text(original)
    if survivors:
        sys.exit("no test notices: " + ", ".join(survivors))
    print(f"{count} broken rules, each noticed by a test")


main()
