package watch

import (
	"hash/maphash"
	"net/netip"

	"github.com/tcptrace/tcptrace/internal/events"
)

const (
	// closerSets times closerWays is how many connections closers remembers.
	closerBits = 15
	closerSets = 1 << closerBits
	closerWays = 4
	// closersNS is how long it does: most connections get from FIN_WAIT1 to TIME_WAIT
	// within tcp_fin_timeout.
	closersNS = int64(600e9)
)

// closers remembers who closed connections that are not in TIME_WAIT yet. Its room is
// taken once: in each set the note that is oldest gives way. The connection of such a
// note has no known closer, and neither has one that takes longer than closersNS.
type closers struct {
	seed maphash.Seed
	sets [][closerWays]closeNote
}

type closeKey struct {
	netns         uint32
	local, remote netip.AddrPort
}

// closeNote is empty if its key is 0.
type closeNote struct {
	key    uint64 // hash of the closeKey
	cookie uint64
	ts     int64
	by     events.Process
}

// set returns the notes among which a connection's is, and its key.
func (c *closers) set(key closeKey) (*[closerWays]closeNote, uint64) {
	hash := max(maphash.Comparable(c.seed, key), 1)
	return &c.sets[hash>>(64-closerBits)], hash
}

func (c *closers) add(r *events.Record) {
	if c.sets == nil {
		c.seed, c.sets = maphash.MakeSeed(), make([][closerWays]closeNote, closerSets)
	}
	set, key := c.set(closeKey{r.NetNS, r.Local, r.Remote})
	at := 0
	for i := range set {
		if set[i].key == key {
			at = i
			break
		}
		if set[i].ts < set[at].ts {
			at = i
		}
	}
	set[at] = closeNote{key, r.Cookie, r.TS, events.Process{PID: r.PID, Comm: r.Comm}}
}

// take returns who closed the connection of e, and forgets it: e says so from now on.
func (c *closers) take(e *entry) (events.Process, bool) {
	if c.sets == nil {
		return events.Process{}, false
	}
	set, key := c.set(closeKey{e.netns, e.local, e.remote})
	for i := range set {
		note := set[i]
		if note.key != key {
			continue
		}
		if e.seen-note.ts > closersNS || (note.cookie != 0 && e.cookie != 0 && note.cookie != e.cookie) {
			break
		}
		set[i] = closeNote{}
		return note.by, true
	}
	return events.Process{}, false
}
