#!/usr/bin/env bash
# Every check that reads the sources and runs nothing. All of them run, also after
# one has failed.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${GO:=go}"

status=0
complain() {
	echo "lint: $1" >&2
	status=1
}

mapfile -t go_files < <(git ls-files --cached --others --exclude-standard '*.go')
unformatted=$("$(dirname "$(command -v "$GO")")/gofmt" -l "${go_files[@]}") || complain "gofmt failed"
[ -z "$unformatted" ] || complain "gofmt would change: ${unformatted//$'\n'/ }"

"$GO" vet ./... || complain "go vet found the above"
"$GO" tool staticcheck ./... || complain "staticcheck found the above"
# The objects of both architectures are committed; the Go around them must build too.
GOARCH=arm64 CGO_ENABLED=0 "$GO" build -o /dev/null ./cmd/tcptrace || complain "no build for arm64"

if command -v shellcheck >/dev/null; then
	shellcheck scripts/*.sh .ci/run || complain "shellcheck found the above"
elif [ -n "${CI:-}" ]; then
	complain "shellcheck is not installed"
else
	echo "lint: shellcheck is not installed: scripts not checked (make deps)" >&2
fi

for file in bpf/*.[ch]; do
	head -n 5 "$file" | grep -qE '^(/\*|//) SPDX-License-Identifier: \(GPL-2\.0-only OR MIT\)' ||
		complain "$file: the first lines must hold its SPDX licence line"
done

exit "$status"
