package watch

import "net/netip"

// Growth is a line fitted to the counts of the last five minutes, known after one.
const (
	growthWindow = int64(300e9)
	growthMin    = int64(60e9)
	// growthStep is the least distance of two points: sixty of them make a
	// history, however often a Snapshot is taken.
	growthStep = int64(5e9)
	// growthGroups bounds the number of histories: the groups that count less
	// have no growth.
	growthGroups = 4096
	// growthMax bounds them together with those of groups that are gone.
	growthMax = 2 * growthGroups
)

// groupKey tells groups apart, across snapshots too: start is the process' start,
// for its number may be given to another.
type groupKey struct {
	start  int64
	remote netip.AddrPort
	pid    uint32
	state  State
}

type point struct {
	ts    int64
	count int
	fds   int // descriptors of the process that the count holds
}

// history is what a group counted.
type history struct {
	points []point
	seen   int64 // last time that the group was there
}

func (h *history) add(p point) {
	// The newest point is the present; behind it they keep their distance.
	if n := len(h.points); n >= 2 && p.ts-h.points[n-2].ts < growthStep {
		h.points[n-1] = p
	} else {
		h.points = append(h.points, p)
	}
	for len(h.points) > 2 && p.ts-h.points[0].ts > growthWindow {
		h.points = h.points[:copy(h.points, h.points[1:])]
	}
}

// perMin returns the growth of count and of descriptors in a minute.
func (h *history) perMin() (count, fds float64, ok bool) {
	n := len(h.points)
	if n < 2 || h.points[n-1].ts-h.points[0].ts < growthMin {
		return 0, 0, false
	}
	// Least squares, with minutes since the first point.
	var st, sc, sf, stt, stc, stf float64
	for _, p := range h.points {
		t := float64(p.ts-h.points[0].ts) / 60e9
		c, f := float64(p.count), float64(p.fds)
		st, sc, sf = st+t, sc+c, sf+f
		stt, stc, stf = stt+t*t, stc+t*c, stf+t*f
	}
	k := float64(n)
	d := k*stt - st*st
	if d <= 0 {
		return 0, 0, false
	}
	return (k*stc - st*sc) / d, (k*stf - st*sf) / d, true
}
