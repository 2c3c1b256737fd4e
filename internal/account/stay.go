package account

import (
	"math"
	"math/bits"

	"github.com/HdrHistogram/hdrhistogram-go"

	"github.com/tcptrace/tcptrace/internal/events"
)

// ErrorPercent is how far a quantile may lie above the true value, which is never
// above it. A bucket of an HDR histogram of two significant digits is as wide as
// 1/128 of its values; the quantile told is the bucket's upper end.
const ErrorPercent = 1

const (
	significantDigits = 2
	// maxStayNS is the longest time that a histogram tells apart: what lasts
	// longer counts as that (the maximum is kept beside it, exact).
	maxStayNS = int64(400 * 24 * 3600 * 1e9)
)

// stay is the times that connections spent in one state before they left it.
type stay struct {
	hist    *hdrhistogram.PackedHistogram
	count   uint64 // in hist
	approx  uint64 // of them, ends that are known only to lie between two walks
	atLeast uint64 // lower bounds: in no quantile
	unknown uint64 // left after a time of which nothing is known
	max     int64  // of count
	bound   int64  // the greatest of the lower bounds
	sum     sum    // of count
}

// sum is a sum of durations: those of a million connections over a day exceed 64
// bits of ns.
type sum struct{ hi, lo uint64 }

func (s *sum) add(hi, lo uint64) {
	var carry uint64
	s.lo, carry = bits.Add64(s.lo, lo, 0)
	s.hi += hi + carry
}

// mean returns the sum divided by n, events.Unknown for none.
func (s sum) mean(n uint64) int64 {
	if n <= s.hi { // also 0: the quotient would not fit
		return events.Unknown
	}
	quotient, _ := bits.Div64(s.hi, s.lo, n)
	return int64(min(quotient, math.MaxInt64))
}

func newStay() *stay {
	return &stay{hist: hdrhistogram.NewPacked(1, maxStayNS, significantDigits), bound: events.Unknown}
}

// add takes one transition out of the state.
func (s *stay) add(t *events.Transition) {
	switch {
	case t.InOld >= 0:
		s.record(t.InOld)
		if !t.Exact {
			s.approx++
		}
	case t.InOldMin >= 0:
		s.atLeast++
		s.bound = max(s.bound, t.InOldMin)
	default:
		s.unknown++
	}
}

func (s *stay) record(ns int64) {
	// In range, so that there is no error.
	_ = s.hist.RecordValue(min(ns, maxStayNS))
	s.count++
	s.max = max(s.max, ns)
	s.sum.add(0, uint64(ns))
}

func (s *stay) merge(from *stay) {
	s.hist.Merge(from.hist) // of the same geometry: nothing is dropped
	s.count += from.count
	s.approx += from.approx
	s.atLeast += from.atLeast
	s.unknown += from.unknown
	s.max = max(s.max, from.max)
	s.bound = max(s.bound, from.bound)
	s.sum.add(from.sum.hi, from.sum.lo)
}

// Stay is what is told of the times in one state.
type Stay struct {
	// Count is the stays of known length that ended; Approx of them ended at a
	// time that is known only to lie between two walks.
	Count, Approx uint64
	// Of these, ns, or events.Unknown: quantiles by nearest rank, not below the
	// true value and at most ErrorPercent above it; Max is exact, and so is Mean
	// (cut to the ns).
	P50, P90, P99, Max, Mean int64
	// AtLeast is the stays of which only a lower bound is known, because they
	// began before the trace did or during a loss; AtLeastMax is the greatest of
	// these bounds, ns, or events.Unknown. They are in no quantile.
	AtLeast    uint64
	AtLeastMax int64
	// Unknown is the stays that ended after a time of which nothing is known.
	Unknown uint64
	// Histogram is how many of Count lasted less than each of the Bounds, and not
	// less than the one before it; the last is the rest. A stay within
	// ErrorPercent of a bound may be counted on its other side.
	Histogram [Cells]uint64
}

// Cells is the number of cells of a drawn histogram.
const Cells = len(Bounds) + 1

// Bounds are the upper ends of the cells of a drawn histogram, ns.
var Bounds = [...]int64{
	3e3, 1e4, 3e4, 1e5, 3e5, 1e6, 3e6, 1e7, 3e7, 1e8, 3e8, 1e9, 3e9, 1e10, 3e10, 1e11, 3e11, 1e12, 3e12,
}

var percentiles = []float64{50, 90, 99}

func (s *stay) result() Stay {
	r := Stay{
		Count: s.count, Approx: s.approx, AtLeast: s.atLeast, AtLeastMax: s.bound, Unknown: s.unknown,
		P50: events.Unknown, P90: events.Unknown, P99: events.Unknown, Max: events.Unknown, Mean: events.Unknown,
	}
	if s.count == 0 {
		return r
	}
	r.Max, r.Mean = s.max, s.sum.mean(s.count)
	q := s.hist.ValueAtPercentilesSlice(percentiles)
	r.P50, r.P90, r.P99 = min(q[0], s.max), min(q[1], s.max), min(q[2], s.max)
	cell := 0
	for value, count := range s.hist.ForEachBucket {
		for cell < len(Bounds) && value >= Bounds[cell] {
			cell++
		}
		r.Histogram[cell] += uint64(count)
	}
	return r
}
