// Package sysctl owns reading what the kernel tells of one network namespace: its
// sysctls and its TCP counters. It never writes one.
//
// Which sysctls belong to a namespace changes with the kernel: one that is not
// there (net.ipv4.tcp_mem in any namespace but the first) is unknown, and so is one
// that may not be read.
package sysctl

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

// Values is what was read. What is not in the maps is unknown.
type Values struct {
	// Sysctls is by name (net.ipv4.tcp_fin_timeout), as the kernel writes it but
	// for the space around it.
	Sysctls map[string]string
	// Counters is by the name in /proc/net/netstat (TcpExt) or /proc/net/snmp
	// (Tcp), since the namespace was made.
	Counters map[string]int64
}

// Read reads the given sysctls and counters under proc (/proc). Those of a network
// namespace are of the calling thread's: see netns.Do.
func Read(proc string, sysctls, counters []string) Values {
	v := Values{Sysctls: make(map[string]string), Counters: make(map[string]int64)}
	for _, name := range sysctls {
		text, err := os.ReadFile(filepath.Join(proc, "sys", strings.ReplaceAll(name, ".", "/")))
		if err != nil {
			continue
		}
		if value := strings.TrimSpace(string(text)); value != "" && !strings.ContainsAny(value, "\n\x00") {
			v.Sysctls[name] = value
		}
	}
	// /proc/net is that of the process' first thread.
	v.counters(filepath.Join(proc, "thread-self/net/netstat"), "TcpExt:", counters)
	v.counters(filepath.Join(proc, "thread-self/net/snmp"), "Tcp:", counters)
	return v
}

// counters reads the counters of one group: a line with their names, and one with
// their values.
func (v *Values) counters(path, group string, wanted []string) {
	text, err := os.ReadFile(path)
	if err != nil {
		return
	}
	var names []string
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) == 0 || fields[0] != group {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i := 1; i < min(len(names), len(fields)); i++ {
			if n, err := strconv.ParseInt(fields[i], 10, 64); err == nil && n >= 0 && slices.Contains(wanted, names[i]) {
				v.Counters[names[i]] = n
			}
		}
		return
	}
}

// Growth returns how much each counter grew from start to end. One that is not
// known at both ends, or that shrank, is not in it.
func Growth(start, end Values) map[string]int64 {
	growth := make(map[string]int64)
	for name, n := range end.Counters {
		if before, ok := start.Counters[name]; ok && n >= before {
			growth[name] = n - before
		}
	}
	return growth
}

// Encode writes the values as lines of name=value, by name. Only names of sysctls
// have a dot.
func (v Values) Encode() string {
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(v.Sysctls)) {
		fmt.Fprintf(&b, "%s=%s\n", name, v.Sysctls[name])
	}
	for _, name := range slices.Sorted(maps.Keys(v.Counters)) {
		fmt.Fprintf(&b, "%s=%d\n", name, v.Counters[name])
	}
	return b.String()
}

// Decode reads what Encode wrote.
func Decode(text string) (Values, error) {
	v := Values{Sysctls: make(map[string]string), Counters: make(map[string]int64)}
	for line := range strings.Lines(text) {
		name, value, ok := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if !ok || name == "" {
			return Values{}, fmt.Errorf("%q is no value of the kernel", line)
		}
		if strings.Contains(name, ".") {
			v.Sysctls[name] = value
			continue
		}
		n, err := strconv.ParseInt(value, 10, 64)
		if err != nil || n < 0 {
			return Values{}, fmt.Errorf("%q is not the value of a counter", value)
		}
		v.Counters[name] = n
	}
	return v, nil
}
