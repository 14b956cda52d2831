"""Holds the privileges that the manifests, the unit and the compose file ask for against one list.

Must not render; it is given what manifests.py rendered.
"""

import os
import pathlib
import re
import subprocess
import sys

import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
# README.md, "Privileges".
CAPABILITIES = {"BPF", "PERFMON", "SYS_PTRACE", "DAC_READ_SEARCH"}
READING = {"get", "list", "watch"}
PRIVILEGED = {"kustomize-privileged", "helm-privileged"}
# Renderings whose values ask for more on purpose.
EXTENDED = {"helm-everything"}


def container(items):
    daemon_set = next(item for item in items if item["kind"] == "DaemonSet")
    pod = daemon_set["spec"]["template"]["spec"]
    return pod, pod["containers"][0]


def check(name, items):
    """What is wrong with a rendering."""
    pod, memtrace = container(items)
    security = memtrace["securityContext"]
    if not pod["hostPID"] or pod.get("hostNetwork") or pod.get("hostIPC"):
        yield "the host's PID namespace is needed, and no other"
    if security["runAsUser"] != 0 or not security["readOnlyRootFilesystem"]:
        yield "must run as user 0 on a read-only root"
    for mount in memtrace["volumeMounts"]:
        if not mount.get("readOnly") and mount["name"] not in ("state", "run"):
            yield f"volume {mount['name']} can be written"
    run = next(volume for volume in pod["volumes"] if volume["name"] == "run")
    if set(run) != {"name", "emptyDir"}:
        yield "volume run is not the pod's own"
    if memtrace["resources"]["limits"] != {"memory": "128Mi"}:
        yield "limits are not 128Mi of memory alone"
    for probe, path in [("livenessProbe", "/healthz"), ("readinessProbe", "/readyz")]:
        if memtrace[probe]["httpGet"]["path"] != path:
            yield f"{probe} does not ask {path}"
    if name in PRIVILEGED:
        if not security["privileged"] or not security["allowPrivilegeEscalation"]:
            yield "is not privileged"
    elif name not in EXTENDED:
        if security["privileged"] or security["allowPrivilegeEscalation"]:
            yield "is privileged"
        if security["capabilities"]["drop"] != ["ALL"]:
            yield "does not drop all capabilities"
        if set(security["capabilities"]["add"]) != CAPABILITIES:
            yield f"adds {security['capabilities']['add']}"
    rules = [rule for item in items if item["kind"] == "ClusterRole" for rule in item["rules"]]
    for rule in rules:
        if not set(rule["verbs"]) <= READING or "*" in rule["resources"] + rule["apiGroups"]:
            yield f"may do more than read: {rule}"
        if "namespaces" in rule["resources"] and rule.get("resourceNames") != ["kube-system"]:
            yield "may read every namespace"
    api = any(argument in ("--identity=kubernetes", "--identity=auto") for argument in memtrace["args"])
    if api != bool(rules) or api != pod["automountServiceAccountToken"]:
        yield "RBAC and token do not fit the source of names"


def options(argument_lists):
    """Whether the program knows the options."""
    program = os.environ.get("MEMTRACE_BIN")
    if not program:
        return
    text = subprocess.run([program, "run", "--help"], capture_output=True, text=True, check=True).stdout
    known = set(re.findall(r"--[a-z][a-z-]*", text))
    for argument in {item for arguments in argument_lists for item in arguments}:
        name = argument.split("=")[0].split()[0]
        if name.startswith("--") and name not in known:
            yield f"memtrace run has no {name}"


def main():
    problems, arguments = [], []
    for path in sorted(pathlib.Path(sys.argv[1]).glob("*.yaml")):
        items = list(yaml.safe_load_all(path.read_text()))
        problems += [f"{path.stem}: {problem}" for problem in check(path.stem, items)]
        arguments.append(container(items)[1]["args"])

    unit = (DEPLOY / "systemd" / "memtrace.service").read_text()
    for key in ("CapabilityBoundingSet", "AmbientCapabilities"):
        names = re.findall(rf"^{key}=(.*)$", unit, re.MULTILINE)
        if [set(line.split()) for line in names] != [{f"CAP_{name}" for name in CAPABILITIES}]:
            problems.append(f"memtrace.service: {key}={names}")
    command = re.search(r"^ExecStart=\S+ run (.*)$", unit, re.MULTILINE).group(1)
    arguments.append(command.split())

    compose = yaml.safe_load((DEPLOY / "docker" / "compose.yaml").read_text())["services"]["memtrace"]
    if set(compose["cap_add"]) != CAPABILITIES or compose["cap_drop"] != ["ALL"]:
        problems.append(f"compose.yaml: {compose['cap_add']}")
    arguments.append(compose["command"])

    problems += options(arguments)
    if problems:
        sys.exit("\n".join(problems))
    print(f"{len(arguments)} places ask for {', '.join(sorted(CAPABILITIES))}")


main()
