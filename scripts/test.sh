#!/usr/bin/env bash
# Everything that must hold before a change lands, in one run. Every step runs,
# also after one has failed; the last line counts what passed. Whole logs are in
# dist/test.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${GO:=go}"

if [ "$(id -u)" -ne 0 ] && ! command -v sudo >/dev/null; then
	echo "test: needs root (namespaces, BPF): run it as root, or install sudo" >&2
	exit 1
fi
if ! command -v "$GO" >/dev/null; then
	echo "test: needs Go $(sed -n 's/^go //p' go.mod) or later in PATH" >&2
	exit 1
fi

logs=dist/test
rm -rf "$logs"
mkdir -p "$logs"
passed=0 failed=0 skipped=0
began=$SECONDS

# show prints what matters of the output of go test -v: of a package that failed all
# but its passes, of any other its result and what was skipped. What comes from no
# package is passed through.
show() {
	awk '
		function flush_all(i) { for (i = 0; i < n; i++) print held[i]; n = 0 }
		/^(=== |PASS$)/ || /^ *--- PASS: / { next }
		/^(ok  |FAIL|\?   )\t/ {
			if ($1 == "FAIL") flush_all()
			for (i = 0; i < n; i++)
				if (held[i] ~ /^ *--- SKIP: /) {
					if (i > 0 && held[i-1] ~ /_test\.go:[0-9]+: /) print held[i-1]
					print held[i]
				}
			n = 0
			if ($1 != "?") print
			fflush()
			next
		}
		{ held[n++] = $0 }
		END { flush_all() }'
}

# count adds up the results in a log: the runner's own total if it wrote one, else
# go test's lines, else the step is the one test. Sets counted to the text.
count() {
	local log=$1 status=$2 p=0 f=0 s=0 line
	line=$(grep -E '^[0-9]+ passed, [0-9]+ failed, [0-9]+ skipped$' "$log" | tail -n 1 || true)
	if [ -n "$line" ]; then
		read -r p _ f _ s _ <<<"$line"
	elif grep -qE '^ *--- (PASS|FAIL|SKIP): ' "$log"; then
		p=$(grep -cE '^ *--- PASS: ' "$log" || true)
		f=$(grep -cE '^ *--- FAIL: ' "$log" || true)
		s=$(grep -cE '^ *--- SKIP: ' "$log" || true)
	elif [ "$status" -eq 77 ]; then
		s=1
	elif [ "$status" -eq 0 ]; then
		p=1
	fi
	if [ "$status" -ne 0 ] && [ "$status" -ne 77 ] && [ "$f" -eq 0 ]; then
		f=1
	fi
	passed=$((passed + p)) failed=$((failed + f)) skipped=$((skipped + s))
	counted="$p passed, $f failed, $s skipped"
}

# step runs a command under a name and through a filter. Status 77 means that it
# could not be done here and that this is no failure.
summary=()
step() {
	local filter=$1 name=$2 status from=$SECONDS word line
	shift 2
	echo "=== RUN   $name"
	set +e
	"$@" 2>&1 | tee "$logs/$name.log" | "$filter"
	status=${PIPESTATUS[0]}
	set -e
	case $status in
	0) word=PASS ;;
	77) word=SKIP ;;
	*) word=FAIL ;;
	esac
	count "$logs/$name.log" "$status"
	line="--- $word: $name ($((SECONDS - from))s): $counted"
	echo "$line"
	summary+=("$line")
}

# again is a pattern that matches the tests that failed in the log of a step; nothing where
# it cannot be told.
again() {
	awk '/^--- FAIL: Test[A-Za-z0-9_]+ \(/ && !seen[$3]++ { list = list (list ? "|" : "") $3 }
		END { if (list) print "^(" list ")$" }' "$1"
}

# step_twice is step for the end-to-end tests on this kernel, whose truth is the clock: what
# failed is run once more, and counts as failed if it fails again. On 6.18 the kernel
# leaves programs on tracepoints out now and then, uncounted. What had to be run again is
# said.
step_twice() {
	local filter=$1 name=$2 before=$failed pattern
	shift 2
	step "$filter" "$name" "$@"
	[ "$failed" -gt "$before" ] || return 0
	pattern=$(again "$logs/$name.log")
	[ -n "$pattern" ] || return 0
	failed=$before
	echo "AGAIN   $name: $pattern"
	step "$filter" "$name-again" "$@" RUN="${pattern//\$/\$\$}"
}

step cat deps scripts/deps.sh
step cat lint scripts/lint.sh
step cat generated scripts/check-generate.sh
step show unit "${MAKE:-make}" --no-print-directory test-unit GOTESTFLAGS=-v
step_twice show e2e "${MAKE:-make}" --no-print-directory test-e2e GOTESTFLAGS=-v
step cat vm "${MAKE:-make}" --no-print-directory vmtest-all

echo
printf '%s\n' "${summary[@]}"
if [ "$failed" -eq 0 ]; then
	printf 'ok  \ttcptrace\t%ss\n' "$((SECONDS - began))"
else
	printf 'FAIL\ttcptrace\t%ss\n' "$((SECONDS - began))"
fi
echo "$passed passed, $failed failed, $skipped skipped"
[ "$failed" -eq 0 ]
