#!/bin/sh
# Makes sure that `make helm-test` finds helm, its plugin unittest, and kubeconform with schemas of
# Kubernetes: built by Go into .build/helm, from the Go module proxy. Some minutes the first time.
#
#   tools/get-helm.sh
#
# Exit status 1, with one line on standard error, if they can't be had.
set -eu
cd "$(dirname "$0")/.."

into=$PWD/.build/helm
kubernetes=v1.34.4
helm=helm.sh/helm/v3
helm_version=v3.19.5
unittest=github.com/helm-unittest/helm-unittest
unittest_version=v1.0.0
kubeconform=github.com/yannh/kubeconform/cmd/kubeconform@v0.7.0

[ -f "$into/schemas/deployment-apps-v1.json" ] && [ -x "$into/plugins/unittest/untt" ] && exit 0

fail() { # MESSAGE
    echo "amsync's tests of the chart need $1" >&2
    exit 1
}

folder_of() { # MODULE@VERSION: downloads a module and prints where it is
    go mod download -json "$1" | sed -n 's/^\t"Dir": "\(.*\)",*$/\1/p'
}

command -v go >/dev/null 2>&1 || fail "go >= 1.24 to build helm: not found; see go.dev/dl"
mkdir -p "$into"
export CGO_ENABLED=0 GOFLAGS=-buildvcs=false GOBIN="$into/bin"

echo "building helm, kubeconform and the plugin unittest into .build/helm"
# Without these numbers helm would take itself for one of a Kubernetes of 2020.
minor=${kubernetes#v1.} && minor=${minor%%.*}
flags="-s -w -X $helm/internal/version.version=$helm_version"
flags="$flags -X $helm/pkg/chartutil.k8sVersionMajor=1 -X $helm/pkg/chartutil.k8sVersionMinor=$minor"
flags="$flags -X $helm/pkg/lint/rules.k8sVersionMajor=1 -X $helm/pkg/lint/rules.k8sVersionMinor=$minor"
[ -x "$into/bin/helm" ] ||
    go install -trimpath -ldflags "$flags" "$helm/cmd/helm@$helm_version" >"$into/log" 2>&1 ||
    fail "helm, which can't be built; see .build/helm/log"
[ -x "$into/bin/kubeconform" ] ||
    go install -trimpath -ldflags "-s -w" "$kubeconform" >"$into/log" 2>&1 ||
    fail "kubeconform, which can't be built; see .build/helm/log"

# Its go.mod has replacements, which `go install` refuses: built in a copy.
scratch=$(mktemp -d)
trap 'chmod -R u+w "$scratch" && rm -rf "$scratch"' EXIT
source=$(folder_of "$unittest@$unittest_version") || fail "helm-unittest, which can't be had"
cp -r "$source" "$scratch/unittest" && chmod -R u+w "$scratch/unittest"
mkdir -p "$into/plugins/unittest"
(cd "$scratch/unittest" &&
    go build -mod=mod -trimpath -ldflags "-s -w" -o "$into/plugins/unittest/untt" ./cmd/helm-unittest) \
    >"$into/log" 2>&1 || fail "helm-unittest, which can't be built; see .build/helm/log"
cat >"$into/plugins/unittest/plugin.yaml" <<END
name: unittest
version: "${unittest_version#v}"
usage: unit tests of charts
description: unit tests of charts
command: \$HELM_PLUGIN_DIR/untt
END

source=$(folder_of "k8s.io/kubernetes@$kubernetes") || fail "Kubernetes' schemas, which can't be had"
"${PYTHON:-python3}" tools/kubernetes-schemas.py "$source/api/openapi-spec/swagger.json" "$into/schemas"
