"""Renders the kustomizations and the chart into a directory, and compares the two.

Must not judge privileges; that is privileges.py.
"""

import pathlib
import subprocess
import sys
import tempfile

import helm_python as helm
import yaml

DEPLOY = pathlib.Path(__file__).resolve().parent.parent
KUSTOMIZE = DEPLOY / "kubernetes"
CHART = DEPLOY / "helm" / "memtrace"
COMPONENTS = sorted(path.name for path in (KUSTOMIZE / "components").iterdir())

# Values that the schema must accept, by the name of the file they are rendered into.
ACCEPTED = {
    "default": {},
    "privileged": {"privileged": True},
    "cri": {"identity": {"source": "cri", "cri": {"hostPath": "/run/crio", "socket": "crio.sock"}}},
    "none": {"identity": {"source": "none"}},
    "everything": {
        "image": {"registry": "registry.example.com", "digest": "sha256:" + "0" * 64},
        "imagePullSecrets": [{"name": "pull"}],
        "listen": {"address": "::", "port": 9000},
        "otlp": {
            "endpoint": "http://$(HOST_IP):4317",
            "protocol": "grpc",
            "headersSecret": "otlp",
        },
        "extraArgs": ["--no-command-lines"],
        "configMap": "memtrace-config",
        "extraEnv": [{"name": "OTEL_METRIC_EXPORT_INTERVAL", "value": "30000"}],
        "extraCapabilities": ["SYS_ADMIN"],
        "seccompProfile": {"type": "Localhost", "localhostProfile": "memtrace.json"},
        "seLinuxOptions": {"type": "spc_t"},
        "serviceAccount": {"name": "tracer", "annotations": {"a": "b"}},
        "hostPaths": {"tracefs": ""},
        "podAnnotations": {"a": "b"},
        "podLabels": {"c": "d"},
        "podMonitor": {"create": True},
    },
}
REFUSED = [
    {"identity": {"source": "docker"}},
    {"image": {"digest": "latest"}},
    {"listen": {"port": 0}},
    {"configMap": "no_name"},
    {"extraCapabilities": ["CAP_SYS_ADMIN"]},
    {"seccompProfile": {"type": "Localhost"}},
    {"hostPaths": {"state": "relative"}},
    {"resource": {}},
]
# What the chart says of itself.
CHART_LABELS = {
    "app.kubernetes.io/instance",
    "app.kubernetes.io/managed-by",
    "app.kubernetes.io/version",
    "helm.sh/chart",
}


def kustomize(directory):
    """The objects of a kustomization."""
    command = ["kubectl", "kustomize", str(directory)]
    run = subprocess.run(command, capture_output=True, text=True)
    if run.returncode != 0 or run.stderr:
        sys.exit(f"{' '.join(command)}: {run.stderr}")
    return objects(run.stdout)


def with_components(names, scratch):
    """The objects of the base with components, as an overlay of a user has them."""
    with tempfile.TemporaryDirectory(dir=scratch) as directory:
        # kustomize wants relative paths.
        (pathlib.Path(directory) / "deploy").symlink_to(KUSTOMIZE)
        base = pathlib.Path(directory).resolve()
        up = "../" * (len(base.parts) - 1)
        root = up + str(KUSTOMIZE).lstrip("/")
        overlay = {
            "resources": [f"{root}/base"],
            "components": [f"{root}/components/{name}" for name in names],
        }
        (base / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
        return kustomize(base)


def objects(text):
    return [item for item in yaml.safe_load_all(text) if item]


def chart(values):
    """The objects of the chart."""
    with helm.Chart.load(str(CHART)) as loaded:
        files = loaded.render(values, name="memtrace", namespace="memtrace")
    return [
        item
        for name, text in sorted(files.items())
        if name.endswith(".yaml")
        for item in objects(text)
    ]


def comparable(items):
    """Objects by kind, without what only the chart says and without the namespace, which Helm makes."""
    found = {}
    for item in items:
        if item["kind"] == "Namespace":
            continue
        strip_labels(item)
        found[item["kind"]] = item
    return found


def strip_labels(node):
    if isinstance(node, dict):
        for key in ("labels", "matchLabels"):
            if isinstance(node.get(key), dict):
                for label in CHART_LABELS | {"app.kubernetes.io/part-of"}:
                    node[key].pop(label, None)
        for value in node.values():
            strip_labels(value)
    elif isinstance(node, list):
        for value in node:
            strip_labels(value)


def write(directory, name, items):
    # kubernetes-validate has no schemas of custom resources.
    known = [item for item in items if "monitoring.coreos.com" not in item["apiVersion"]]
    (directory / f"{name}.yaml").write_text(yaml.safe_dump_all(known, sort_keys=False))


def main():
    directory = pathlib.Path(sys.argv[1])
    directory.mkdir(parents=True)

    base = kustomize(KUSTOMIZE / "base")
    write(directory, "kustomize-base", base)
    write(directory, "kustomize-privileged", kustomize(KUSTOMIZE / "overlays" / "privileged"))
    for name in COMPONENTS:
        items = with_components([name], directory)
        if items == base:
            sys.exit(f"component {name} changes nothing")
        write(directory, f"kustomize-{name}", items)
    write(directory, "kustomize-all", with_components(COMPONENTS, directory))

    lint = helm.lint(str(CHART))
    worse = [entry for entry in lint["messages"] if entry["severity"] > 1]
    if lint["errors"] or worse:
        sys.exit(f"helm lint: {lint}")
    for name, values in ACCEPTED.items():
        write(directory, f"helm-{name}", chart(values))
    for values in REFUSED:
        try:
            with helm.Chart.load(str(CHART)) as loaded:
                loaded.validate_schema(values)
        except helm.HelmError:
            continue
        sys.exit(f"values.schema.json accepts {values}")

    pairs = [("base", base, {}), ("cri", with_components(["cri"], directory), {"identity": {"source": "cri"}})]
    pairs.append(("privileged", kustomize(KUSTOMIZE / "overlays" / "privileged"), {"privileged": True}))
    pairs.append(("config", with_components(["config"], directory), {"configMap": "memtrace-config"}))
    for name, ours, values in pairs:
        kustomized, charted = comparable(ours), comparable(chart(values))
        for kind in sorted(kustomized.keys() | charted.keys()):
            if kustomized.get(kind) != charted.get(kind):
                sys.exit(
                    f"{name}: kustomize and Helm differ in {kind}:\n"
                    f"{yaml.safe_dump(kustomized.get(kind))}\n---\n{yaml.safe_dump(charted.get(kind))}"
                )
    print(f"{len(list(directory.glob('*.yaml')))} renderings; kustomize and Helm give the same objects")


main()
