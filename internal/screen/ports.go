package screen

import (
	"cmp"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// portKey is what stays of a port use from one snapshot to the next.
type portKey struct {
	netns         uint32
	local, remote string
}

func keyOfPort(p *watch.PortUse) portKey {
	return portKey{p.NetNS, p.Local, p.Remote}
}

// share is the part of the local ports that is taken, in percent; -1 unknown.
func share(p *watch.PortUse) int {
	if p.Range <= 0 {
		return -1
	}
	return p.Used * 100 / p.Range
}

var portColumns = []column[*watch.PortUse]{
	{title: "LOCAL", min: 15, max: 39, rank: 3,
		text: func(p *watch.PortUse) string { return render.Escape(p.Local) },
		cmp:  func(a, b *watch.PortUse) int { return strings.Compare(a.Local, b.Local) }},
	{title: "REMOTE", min: 21, max: 47, rank: 0,
		fit: func(p *watch.PortUse, width int) string { return shortAddr(render.Escape(p.Remote), width) },
		cmp: func(a, b *watch.PortUse) int { return strings.Compare(a.Remote, b.Remote) }},
	{title: "USED", min: 6, max: 6, right: true, rank: 1, desc: true,
		text: func(p *watch.PortUse) string { return strconv.Itoa(p.Used) },
		cmp:  func(a, b *watch.PortUse) int { return cmp.Compare(a.Used, b.Used) }},
	{title: "OF", min: 6, max: 6, right: true, rank: 2, desc: true,
		text: func(p *watch.PortUse) string { return portRange(p.Range) },
		cmp:  func(a, b *watch.PortUse) int { return cmp.Compare(a.Range, b.Range) }},
	{title: "SHARE", min: 7, max: 7, right: true, rank: 5, desc: true,
		text: func(p *watch.PortUse) string {
			if share(p) < 0 {
				return "-"
			}
			s := strconv.Itoa(share(p)) + " %"
			if nearlyFull(p) {
				s += "!"
			}
			return s
		},
		loud: nearlyFull,
		cmp:  func(a, b *watch.PortUse) int { return cmp.Compare(share(a), share(b)) }},
	{title: "FULL IN", min: 9, max: 9, right: true, rank: 4,
		text: func(p *watch.PortUse) string { return render.Duration(p.FullIn) },
		loud: func(p *watch.PortUse) bool { return p.FullIn >= 0 && p.FullIn < 600e9 },
		cmp:  func(a, b *watch.PortUse) int { return unknownLast(a.FullIn, b.FullIn) }},
	{title: "NETNS", min: 10, max: 10, right: true, rank: 6,
		text: func(p *watch.PortUse) string {
			if p.NetNS == 0 {
				return "-"
			}
			return strconv.FormatUint(uint64(p.NetNS), 10)
		},
		cmp: func(a, b *watch.PortUse) int { return cmp.Compare(a.NetNS, b.NetNS) }},
}
