package watch

import (
	"cmp"
	"net/netip"
	"slices"

	"github.com/tcptrace/tcptrace/internal/events"
)

// recentSec is over how many seconds the present rate of new TIME_WAITs is taken.
const recentSec = 10

type portKey struct {
	netns  uint32
	local  netip.Addr
	remote netip.AddrPort
}

// portCount is the use of local ports between a local address and a remote
// endpoint.
type portCount struct {
	ports    map[uint16]struct{}
	timewait int
	left     [61]int // TIME_WAITs by the seconds that they have left
}

// portUse counts the local ports in use from the last scans. Connections that came
// in through a listener take no port that connect() would choose.
func (s *Store) portUse() []PortUse {
	counts := make(map[portKey]*portCount)
	ranges := make(map[uint32]PortRange)
	for netns, sp := range s.spaces {
		r, known := PortRange{}, false
		if s.cfg.Ports != nil {
			if r, known = s.cfg.Ports(netns); known {
				ranges[netns] = r
			}
		}
		for _, u := range sp.ports {
			if known && !r.Has(u.local.Port()) {
				continue
			}
			e := entry{netns: netns, local: u.local, family: 6}
			if u.local.Addr().Is4() {
				e.family = 4
			}
			if s.listenersOf(&e) != nil {
				continue
			}
			key := portKey{netns, u.local.Addr(), u.remote}
			c := counts[key]
			if c == nil {
				c = &portCount{ports: make(map[uint16]struct{})}
				counts[key] = c
			}
			if _, twice := c.ports[u.local.Port()]; twice {
				continue
			}
			c.ports[u.local.Port()] = struct{}{}
			if u.timewait {
				c.timewait++
				c.left[min(u.left/1e9, 60)]++
			}
		}
	}
	list := make([]PortUse, 0, len(counts))
	for key, c := range counts {
		u := PortUse{
			NetNS: key.netns, Local: key.local.String(), Remote: key.remote.String(),
			Used: len(c.ports), TimeWait: c.timewait, Range: -1, FullIn: events.Unknown,
		}
		if r, ok := ranges[key.netns]; ok {
			u.Range = r.Usable()
			u.FullIn = c.fullIn(u.Range)
		}
		list = append(list, u)
	}
	slices.SortFunc(list, func(x, y PortUse) int {
		return cmp.Or(cmp.Compare(y.Used, x.Used), cmp.Compare(x.NetNS, y.NetNS),
			cmp.Compare(x.Local, y.Local), cmp.Compare(x.Remote, y.Remote))
	})
	return list
}

// fullIn returns the time until all ports of the range are taken, ns, if
// connections go on to enter TIME_WAIT at the rate of the last seconds: each leaves
// after a minute, so that most rates never fill the range; that is Unknown.
func (c *portCount) fullIn(usable int) int64 {
	used := float64(len(c.ports))
	if int(used) >= usable {
		return 0
	}
	recent := 0
	for _, n := range c.left[60-recentSec:] {
		recent += n
	}
	perSec := float64(recent) / recentSec
	for sec := range c.left {
		used += perSec - float64(c.left[sec])
		if used >= float64(usable) {
			return int64(sec+1) * 1e9
		}
	}
	return events.Unknown
}
