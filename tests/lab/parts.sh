#!/usr/bin/env bash
# Builds the lab's parts that are missing, each once for its pins, and prints the folder that has them.
#
# The cache is ${SPOTKEEPER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spotkeeper}/lab/<hash of the pins>. With
# KUBEBUILDER_ASSETS, etcd, kube-apiserver and kubectl are taken from there.
set -euo pipefail
cd "$(dirname "$0")"

KUBERNETES=v1.36.3
KWOK=v0.8.0
IMDS_MOCK=v1.13.0

say() { printf 'lab: %s\n' "$*" >&2; }

need() {
    command -v "$1" >/dev/null 2>&1 && return
    say "$1 is missing; install it: $2"
    exit 1
}

pins=$( (cat parts/go.mod parts/go.sum requirements.txt; echo "$KUBERNETES $KWOK $IMDS_MOCK") | sha256sum | cut -c1-16)
root="${SPOTKEEPER_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/spotkeeper}/lab"
bin="$root/$pins/bin"
if [ -e "$bin/.complete" ]; then
    echo "$bin"
    exit 0
fi

need go "Go 1.26 or later, from https://go.dev/dl or 'apt-get install golang'"
need python3 "apt-get install python3 python3-venv"
need openssl "apt-get install openssl"
need flock "apt-get install util-linux"

mkdir -p "$bin"
exec 9>"$root/lock"
if ! flock -n 9; then
    say "another build of the lab's parts is under way; waiting for it"
    flock 9
fi

# Builds into a file beside its place and renames it: what is there is whole.
built() { mv "$bin/.$1.new" "$bin/$1"; }

# asset NAME: from KUBEBUILDER_ASSETS, where it is there.
asset() {
    [ -n "${KUBEBUILDER_ASSETS:-}" ] && [ -x "$KUBEBUILDER_ASSETS/$1" ] || return 1
    say "$1 from KUBEBUILDER_ASSETS"
    ln -sf "$KUBEBUILDER_ASSETS/$1" "$bin/$1"
}

# module NAME PACKAGE: a tool of parts/go.mod.
module() {
    [ -x "$bin/$1" ] && return
    say "building $1 ($3)"
    minor=${KUBERNETES#v1.}
    (cd parts && CGO_ENABLED=0 go build -trimpath -o "$bin/.$1.new" -ldflags="-s -w \
        -X k8s.io/component-base/version.gitVersion=$KUBERNETES \
        -X k8s.io/component-base/version.gitMajor=1 \
        -X k8s.io/component-base/version.gitMinor=${minor%%.*}" "$2") >&2
    built "$1"
}

# installed NAME PACKAGE@VERSION: a module of its own.
installed() {
    [ -x "$bin/$1" ] && return
    say "building $1 ($2)"
    GOBIN="$bin/.install" CGO_ENABLED=0 go install -trimpath -ldflags='-s -w' "$2" >&2
    mv "$bin/.install/$(basename "${2%@*}")" "$bin/.$1.new"
    built "$1"
}

say "the control plane is built once; on two cores that takes about eight minutes"
asset etcd || module etcd go.etcd.io/etcd/server/v3 "of $KUBERNETES' go.mod"
asset kube-apiserver || module kube-apiserver k8s.io/kubernetes/cmd/kube-apiserver "$KUBERNETES"
asset kubectl || module kubectl k8s.io/kubernetes/cmd/kubectl "$KUBERNETES"
module kube-controller-manager k8s.io/kubernetes/cmd/kube-controller-manager "$KUBERNETES"
module kube-scheduler k8s.io/kubernetes/cmd/kube-scheduler "$KUBERNETES"
installed kwok "sigs.k8s.io/kwok/cmd/kwok@$KWOK"
installed ec2-metadata-mock "github.com/aws/amazon-ec2-metadata-mock/cmd/ec2-metadata-mock@$IMDS_MOCK"

if [ ! -x "$bin/moto_server" ]; then
    say "installing moto (PyPI, into a venv of its own)"
    rm -rf "$root/$pins/venv"
    python3 -m venv "$root/$pins/venv" >&2 || { say "python3 cannot make a venv: apt-get install python3-venv"; exit 1; }
    "$root/$pins/venv/bin/pip" install --quiet --requirement requirements.txt >&2
    ln -sf "$root/$pins/venv/bin/moto_server" "$bin/moto_server"
fi

rm -rf "$bin/.install"
touch "$bin/.complete"
say "all parts are there"
echo "$bin"
