#!/usr/bin/env bash
# Compiles bpf/ again in a folder of its own and compares the result with what is
# here, byte by byte. Neither the tree nor git's index is touched, so the check
# holds for uncommitted work too.
#
# Objects are the same only from the same compiler and the same libbpf headers:
# those of Debian 12. Elsewhere the check would report differences that are none;
# it says so and ends with status 77 (skipped), or fails where CI is set.
set -euo pipefail
cd "$(dirname "$0")/.."
: "${GO:=go}"

clang_want=19.1.7
libbpf_want=1.1

cannot() {
	echo "check-generate: $1" >&2
	if [ -n "${CI:-}" ]; then
		echo "check-generate: CI must check this: run it on Debian 12 with clang-19 and libbpf-dev" >&2
		exit 1
	fi
	echo "check-generate: skipped; Debian 12 has both (clang-19 $clang_want, libbpf-dev $libbpf_want)" >&2
	exit 77
}

command -v clang-19 >/dev/null || cannot "clang-19 is not installed"
command -v llvm-strip-19 >/dev/null || cannot "llvm-19 is not installed"
clang_have=$(clang-19 -dumpversion)
[ "$clang_have" = "$clang_want" ] || cannot "clang-19 is $clang_have, the objects are made with $clang_want"
libbpf_have=$(dpkg-query -W -f '${Version}' libbpf-dev 2>/dev/null || true)
libbpf_have=${libbpf_have#*:}
case $libbpf_have in
"$libbpf_want".*) ;;
*) cannot "libbpf-dev is ${libbpf_have:-not installed}, the objects are made with $libbpf_want" ;;
esac

scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
cp go.mod go.sum "$scratch"
cp -r bpf "$scratch/bpf"
rm -f "$scratch"/bpf/*_bpfel.o "$scratch"/bpf/*_bpfel.go
(cd "$scratch" && "$GO" generate ./bpf >/dev/null)

status=0
for made in "$scratch"/bpf/*_bpfel.o "$scratch"/bpf/*_bpfel.go; do
	name=bpf/$(basename "$made")
	if ! cmp -s "$made" "$name"; then
		echo "check-generate: $name is not what its sources give: run \`make generate\` and commit" >&2
		status=1
	fi
done
# A file that is no longer made would be embedded for ever.
for here in bpf/*_bpfel.o bpf/*_bpfel.go; do
	if [ ! -e "$scratch/$here" ]; then
		echo "check-generate: $here is made by nothing: remove it" >&2
		status=1
	fi
done
exit "$status"
