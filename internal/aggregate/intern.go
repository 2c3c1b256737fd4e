package aggregate

import (
	"github.com/tcptrace/tcptrace/internal/events"
)

// unknownUID is no user's: the kernel has it as "no such user" (INVALID_UID).
const unknownUID = ^uint32(0)

// processes gives every process that a connection names a small number; 0 is the
// unknown one. An entry lives as long as a connection refers to it.
type processes struct {
	index   map[events.Process]uint32
	entries []processEntry
	free    []uint32
	last    uint32 // that was asked for
}

type processEntry struct {
	events.Process
	refs uint32
}

func (p *processes) init() {
	p.index = make(map[events.Process]uint32)
	p.entries = make([]processEntry, 1)
}

func (p *processes) get(n uint32) events.Process { return p.entries[n].Process }

// ref returns the number of a process and counts a reference to it.
func (p *processes) ref(proc events.Process) uint32 {
	if proc.PID == 0 {
		return 0
	}
	if e := &p.entries[p.last]; e.refs > 0 && e.Process == proc {
		e.refs++
		return p.last
	}
	n, ok := p.index[proc]
	if !ok {
		if k := len(p.free); k > 0 {
			n, p.free = p.free[k-1], p.free[:k-1]
		} else {
			n = uint32(len(p.entries))
			p.entries = append(p.entries, processEntry{})
		}
		p.entries[n] = processEntry{Process: proc}
		p.index[proc] = n
	}
	p.entries[n].refs++
	p.last = n
	return n
}

func (p *processes) unref(n uint32) {
	if n == 0 {
		return
	}
	e := &p.entries[n]
	if e.refs--; e.refs > 0 {
		return
	}
	delete(p.index, e.Process)
	*e = processEntry{}
	p.free = append(p.free, n)
}

// origin is what the connections of one program on one machine have in common.
type origin struct {
	cgroup uint64
	netns  uint32
	uid    uint32 // unknownUID: not known
}

// origins gives every origin that a connection has a small number; 0 is the one of
// which nothing is known.
type origins struct {
	index   map[origin]uint32
	entries []originEntry
	free    []uint32
	last    uint32 // that was asked for: what comes next is mostly of it too
}

type originEntry struct {
	origin
	refs uint32
	ns   *namespace
}

func (o *origins) init(none *namespace) {
	o.index = make(map[origin]uint32)
	o.entries = []originEntry{{origin: origin{uid: unknownUID}, ns: none}}
	none.origins++
}

// refOrigin returns the number of an origin and counts a reference to it.
func (t *Table) refOrigin(want origin) uint32 {
	o := &t.origins
	if want == o.entries[0].origin {
		return 0
	}
	if e := &o.entries[o.last]; e.refs > 0 && e.origin == want {
		e.refs++
		return o.last
	}
	n, ok := o.index[want]
	if !ok {
		if k := len(o.free); k > 0 {
			n, o.free = o.free[k-1], o.free[:k-1]
		} else {
			n = uint32(len(o.entries))
			o.entries = append(o.entries, originEntry{})
		}
		ns := t.namespace(want.netns)
		ns.origins++
		o.entries[n] = originEntry{origin: want, ns: ns}
		o.index[want] = n
	}
	o.entries[n].refs++
	o.last = n
	return n
}

func (t *Table) unrefOrigin(n uint32) {
	if n == 0 {
		return
	}
	o := &t.origins
	e := &o.entries[n]
	if e.refs--; e.refs > 0 {
		return
	}
	e.ns.origins--
	delete(o.index, e.origin)
	*e = originEntry{}
	o.free = append(o.free, n)
}

// zone returns the number of a zone. Zones are interfaces: there are few.
func (t *Table) zone(name string) uint16 {
	for n, z := range t.zones {
		if z == name {
			return uint16(n)
		}
	}
	if len(t.zones) == 1<<16 {
		return 0
	}
	t.zones = append(t.zones, name)
	return uint16(len(t.zones) - 1)
}
