package filter

import "github.com/tcptrace/tcptrace/internal/events"

// ProcessSet is a set of processes that may grow.
type ProcessSet interface {
	Has(pid uint32) bool
}

// Descendants is the processes that the kernel side tells of as descendants
// (events.KindFork). The zero value is empty. Not safe for concurrent use.
type Descendants struct {
	// until is, by process, the time from which its number may be another's; 0:
	// it lives.
	until map[uint32]int64
	dead  int // of until, at least as many as are not 0
	now   int64
}

// afterlife is how long, ns, a process that was reaped still counts: its
// connections may be in TIME_WAIT, which lasts 60 s and the slack of the timer.
const afterlife = 70_000_000_000

// maxDescendants bounds the processes: more than the kernel side keeps, and the end
// of those beyond that is not told.
const maxDescendants = 1 << 17

// forgetDead makes room: what the connections of reaped processes belonged to is
// told by their cgroup still.
func (d *Descendants) forgetDead() {
	for pid, until := range d.until {
		if until != 0 {
			delete(d.until, pid)
		}
	}
	d.dead = 0
}

// Add takes the next record; most are none of its business.
func (d *Descendants) Add(r *events.Record) {
	d.now = max(d.now, r.TS)
	switch r.Kind {
	case events.KindFork:
		if d.until == nil {
			d.until = make(map[uint32]int64)
		}
		if len(d.until) >= maxDescendants && d.dead > 0 {
			d.forgetDead()
		}
		if len(d.until) < maxDescendants {
			d.until[r.PID] = 0
		}
	case events.KindReaped:
		if _, ok := d.until[r.PID]; ok {
			d.dead++
			d.until[r.PID] = r.TS + afterlife
		}
	case events.KindTick:
		for pid, until := range d.until {
			if until != 0 && until < d.now {
				delete(d.until, pid)
			}
		}
	}
}

// Has reports whether pid is a descendant, or was one a short while ago.
func (d *Descendants) Has(pid uint32) bool {
	until, ok := d.until[pid]
	return ok && (until == 0 || d.now <= until)
}
