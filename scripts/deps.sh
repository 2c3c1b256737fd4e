#!/usr/bin/env bash
# Installs the Debian or Ubuntu packages that the tests need, and says nothing
# where all are there. Which mirror they come from is apt's configuration.
set -euo pipefail

required=(
	gcc libc6-dev                                # the race detector links with cgo
	shellcheck                                   # lint of scripts/
	iproute2                                     # ss, to compare with
	tmux                                         # a terminal for the screen
	qemu-system-x86 xz-utils                     # the VM kernels
	debian-archive-keyring debootstrap           # signatures and mirror of the VM kernels
	ca-certificates git
)
# Only where the release has them: without this clang nothing but the check of the
# generated files is lost, and that check says so.
optional=(clang-19 llvm-19 libbpf-dev linux-libc-dev)

installed() {
	[ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]
}

available() {
	apt-cache show --no-all-versions "$1" >/dev/null 2>&1
}

missing=()
for package in "${required[@]}"; do
	if ! command -v dpkg-query >/dev/null; then
		break
	fi
	installed "$package" || missing+=("$package")
done
missing_optional=()
for package in "${optional[@]}"; do
	if ! command -v dpkg-query >/dev/null; then
		break
	fi
	installed "$package" || missing_optional+=("$package")
done

if ! command -v apt-get >/dev/null; then
	echo "deps: no apt-get here: install what corresponds to these Debian packages:" >&2
	echo "  ${required[*]} ${optional[*]}" >&2
	exit 1
fi
if [ "${#missing[@]}" -eq 0 ] && [ "${#missing_optional[@]}" -eq 0 ]; then
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	if [ "${#missing[@]}" -eq 0 ]; then
		exit 0
	fi
	echo "deps: packages are missing; install them with:" >&2
	echo "  sudo apt-get install --no-install-recommends ${missing[*]} ${missing_optional[*]}" >&2
	exit 1
fi

log=$(mktemp)
trap 'rm -f "$log"' EXIT
quietly() {
	if ! DEBIAN_FRONTEND=noninteractive "$@" >"$log" 2>&1; then
		cat "$log" >&2
		echo "deps: failed: $*" >&2
		exit 1
	fi
}

quietly apt-get update
for package in "${missing_optional[@]}"; do
	if available "$package"; then
		missing+=("$package")
	fi
done
if [ "${#missing[@]}" -gt 0 ]; then
	echo "deps: installing ${missing[*]}"
	quietly apt-get install -y --no-install-recommends "${missing[@]}"
fi
