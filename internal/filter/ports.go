package filter

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// PortRange is the ports from First to Last, both included.
type PortRange struct{ First, Last uint16 }

// Ports is a set of ports: ranges in order that neither overlap nor touch. Nil
// stands for no restriction.
type Ports []PortRange

// acceptedPorts says what ParsePorts accepts, for error texts.
const acceptedPorts = "want ports and ranges from 1 to 65535, such as 80,443,8000-8100"

// ParsePorts reads a comma list of ports and ranges.
func ParsePorts(list string) (Ports, error) {
	var ports Ports
	for item := range strings.SplitSeq(list, ",") {
		first, last, isRange := strings.Cut(strings.TrimSpace(item), "-")
		if !isRange {
			last = first
		}
		var r PortRange
		var ok bool
		if r.First, ok = parsePort(first); !ok {
			return nil, fmt.Errorf("bad port %q: %s", item, acceptedPorts)
		}
		if r.Last, ok = parsePort(last); !ok {
			return nil, fmt.Errorf("bad port %q: %s", item, acceptedPorts)
		}
		if r.First > r.Last {
			return nil, fmt.Errorf("bad port range %q: it ends before it starts; %s", item, acceptedPorts)
		}
		ports = append(ports, r)
	}
	return ports.merge(), nil
}

func parsePort(text string) (uint16, bool) {
	text = strings.TrimSpace(text)
	if strings.HasPrefix(text, "+") {
		return 0, false
	}
	port, err := strconv.ParseUint(text, 10, 16)
	return uint16(port), err == nil && port != 0
}

// Union returns the ports of both sets, neither of which may be nil for "every
// port".
func (p Ports) Union(q Ports) Ports { return slices.Concat(p, q).merge() }

func (p Ports) merge() Ports {
	slices.SortFunc(p, func(a, b PortRange) int { return cmp.Compare(a.First, b.First) })
	merged := p[:0]
	for _, r := range p {
		if n := len(merged); n > 0 && int(r.First) <= int(merged[n-1].Last)+1 {
			merged[n-1].Last = max(merged[n-1].Last, r.Last)
			continue
		}
		merged = append(merged, r)
	}
	return merged
}

// Has reports whether port is in the set; nil has every port.
func (p Ports) Has(port uint16) bool {
	if p == nil {
		return true
	}
	_, found := slices.BinarySearchFunc(p, port, func(r PortRange, port uint16) int {
		switch {
		case r.Last < port:
			return -1
		case r.First > port:
			return 1
		default:
			return 0
		}
	})
	return found
}

// String returns the set as ParsePorts reads it.
func (p Ports) String() string {
	items := make([]string, len(p))
	for i, r := range p {
		items[i] = strconv.Itoa(int(r.First))
		if r.First != r.Last {
			items[i] += "-" + strconv.Itoa(int(r.Last))
		}
	}
	return strings.Join(items, ",")
}
