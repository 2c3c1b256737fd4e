package owner

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/watch"
)

// PortRange reads the local ports that the kernel chooses from, under proc. The
// sysctls are those of the network namespace of the calling thread.
func PortRange(proc string) (watch.PortRange, error) {
	dir := filepath.Join(proc, "sys/net/ipv4")
	text, err := os.ReadFile(filepath.Join(dir, "ip_local_port_range"))
	if err != nil {
		return watch.PortRange{}, err
	}
	fields := strings.Fields(string(text))
	if len(fields) != 2 {
		return watch.PortRange{}, fmt.Errorf("read ip_local_port_range: %q is not two ports", text)
	}
	var r watch.PortRange
	if r.PortSpan, err = parseSpan(fields[0] + "-" + fields[1]); err != nil {
		return watch.PortRange{}, fmt.Errorf("read ip_local_port_range: %w", err)
	}
	text, err = os.ReadFile(filepath.Join(dir, "ip_local_reserved_ports"))
	if err != nil {
		return watch.PortRange{}, err
	}
	// The kernel writes it sorted and without overlaps (proc_do_large_bitmap).
	for item := range strings.SplitSeq(strings.TrimSpace(string(text)), ",") {
		if item == "" {
			continue
		}
		s, err := parseSpan(item)
		if err != nil {
			return watch.PortRange{}, fmt.Errorf("read ip_local_reserved_ports: %w", err)
		}
		r.Reserved = append(r.Reserved, s)
	}
	return r, nil
}

// parseSpan reads a port or low-high.
func parseSpan(text string) (watch.PortSpan, error) {
	low, high, ok := strings.Cut(text, "-")
	if !ok {
		high = low
	}
	a, err := strconv.ParseUint(low, 10, 16)
	if err != nil {
		return watch.PortSpan{}, fmt.Errorf("%q is not a port", low)
	}
	b, err := strconv.ParseUint(high, 10, 16)
	if err != nil {
		return watch.PortSpan{}, fmt.Errorf("%q is not a port", high)
	}
	return watch.PortSpan{Low: uint16(a), High: uint16(b)}, nil
}
