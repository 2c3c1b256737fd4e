#!/usr/bin/env bash
# Installs the peers that `make bench` compares with, from Debian or Ubuntu. One that
# cannot be had is left out, and the benchmark says so.
set -euo pipefail

missing=()
for package in iproute2 libbpf-tools bpftrace; do
	status=$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true)
	[ "$status" = installed ] || missing+=("$package")
done
[ "${#missing[@]}" -gt 0 ] || exit 0
if ! command -v apt-get >/dev/null; then
	echo "bench-deps: no apt-get here; missing: ${missing[*]}" >&2
	exit 0
fi
if [ "$(id -u)" -ne 0 ]; then
	echo "bench-deps: missing; install with: sudo apt-get install --no-install-recommends ${missing[*]}" >&2
	exit 0
fi
log=$(mktemp)
trap 'rm -f "$log"' EXIT
export DEBIAN_FRONTEND=noninteractive
apt-get update >"$log" 2>&1 || cat "$log" >&2
for package in "${missing[@]}"; do
	if apt-get install -y --no-install-recommends "$package" >"$log" 2>&1; then
		echo "bench-deps: installed $package"
	else
		echo "bench-deps: cannot install $package" >&2
	fi
done
