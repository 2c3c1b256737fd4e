package account

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// distributions are of durations as connections have them, and of what is hardest
// for a histogram.
var distributions = map[string]func(r *rand.Rand) int64{
	"uniform":     func(r *rand.Rand) int64 { return r.Int64N(90 * sec) },
	"log-uniform": func(r *rand.Rand) int64 { return int64(math.Pow(10, 1+r.Float64()*13)) },
	"exponential": func(r *rand.Rand) int64 { return int64(r.ExpFloat64() * 3e7) },
	"time-wait":   func(r *rand.Rand) int64 { return 60*sec + r.Int64N(2*sec) },
	"two-peaks":   func(r *rand.Rand) int64 { return []int64{12 * 1000, 75 * 60 * sec}[r.IntN(2)] + r.Int64N(1000) },
	"constant":    func(*rand.Rand) int64 { return 40*ms + 1 },
	"tiny":        func(r *rand.Rand) int64 { return r.Int64N(300) },
	"zero":        func(*rand.Rand) int64 { return 0 },
}

// nearestRank returns the value of the rank nearest to p percent of n, from 1 on.
func nearestRank(sorted []int64, p float64) int64 {
	return sorted[max(int(p/100*float64(len(sorted))+0.5), 1)-1]
}

func checkStay(t *testing.T, name string, got Stay, values []int64) {
	t.Helper()
	sorted := slices.Sorted(slices.Values(values))
	if got.Count != uint64(len(values)) {
		t.Errorf("%s: count %d, want %d", name, got.Count, len(values))
	}
	for _, q := range []struct {
		p   float64
		got int64
	}{{50, got.P50}, {90, got.P90}, {99, got.P99}} {
		want := nearestRank(sorted, q.p)
		if q.got < want || float64(q.got-want) > float64(want)*ErrorPercent/100 {
			t.Errorf("%s: p%g of %d values is %d, want %d to 1 %% above", name, q.p, len(values), q.got, want)
		}
	}
	if want := sorted[len(sorted)-1]; got.Max != want {
		t.Errorf("%s: max %d, want %d", name, got.Max, want)
	}
	sum := 0.0
	total := uint64(0)
	for _, v := range values {
		sum += float64(v)
	}
	if mean := sum / float64(len(values)); math.Abs(float64(got.Mean)-mean) > 1+mean*1e-9 {
		t.Errorf("%s: mean %d, want %g", name, got.Mean, mean)
	}
	for _, n := range got.Histogram {
		total += n
	}
	if total != got.Count {
		t.Errorf("%s: the histogram has %d, want %d", name, total, got.Count)
	}
	// As many lie below a bound, but for those within the error of it.
	below := uint64(0)
	for i, bound := range Bounds {
		below += got.Histogram[i]
		least, most := uint64(0), uint64(0)
		for _, v := range values {
			if float64(v) < float64(bound)*(1-ErrorPercent/100.) {
				least++
			}
			if float64(v) < float64(bound)*(1+ErrorPercent/100.) {
				most++
			}
		}
		if below < least || below > most {
			t.Errorf("%s: %d below %d, want %d to %d", name, below, bound, least, most)
		}
	}
}

func TestStayError(t *testing.T) {
	for name, draw := range distributions {
		for _, n := range []int{1, 2, 3, 10, 101, 10007} {
			r := rand.New(rand.NewPCG(uint64(n), 7))
			s := newStay()
			var values []int64
			for range n {
				v := draw(r)
				values = append(values, v)
				s.record(v)
			}
			checkStay(t, fmt.Sprintf("%s of %d", name, n), s.result(), values)
		}
	}
}

// Merged, two histograms are what one would have been.
func TestStayMerge(t *testing.T) {
	for name, draw := range distributions {
		for other, drawOther := range distributions {
			r := rand.New(rand.NewPCG(5, 11))
			a, b, both := newStay(), newStay(), newStay()
			var values []int64
			for i := range 2003 {
				v, to := draw(r), a
				if i%3 == 0 {
					v, to = drawOther(r), b
				}
				values = append(values, v)
				to.record(v)
				both.record(v)
			}
			a.merge(b)
			if a.result() != both.result() {
				t.Errorf("%s and %s: %+v, want %+v", name, other, a.result(), both.result())
			}
			checkStay(t, name+" and "+other, a.result(), values)
		}
	}
	a, b := newStay(), newStay()
	b.add(&events.Transition{InOld: events.Unknown, InOldMin: 5})
	b.add(&events.Transition{InOld: events.Unknown, InOldMin: 3})
	b.add(&events.Transition{InOld: events.Unknown, InOldMin: events.Unknown})
	b.add(&events.Transition{InOld: 7, InOldMin: events.Unknown})
	a.merge(b)
	if got := a.result(); got.Count != 1 || got.Approx != 1 || got.AtLeast != 2 || got.AtLeastMax != 5 || got.Unknown != 1 || got.P99 != 7 {
		t.Errorf("got %+v", got)
	}
}

// What lasts longer than a histogram tells apart has its maximum all the same.
func TestStayLongest(t *testing.T) {
	s := newStay()
	for range 3 {
		s.record(math.MaxInt64)
	}
	got := s.result()
	if got.Count != 3 || got.Max != math.MaxInt64 || got.Mean != math.MaxInt64 || got.P50 < maxStayNS {
		t.Errorf("got %+v", got)
	}
	if empty := newStay().result(); empty.P50 != events.Unknown || empty.Max != events.Unknown || empty.Mean != events.Unknown {
		t.Errorf("got %+v", empty)
	}
}

// The memory of a histogram follows from how many different times there are, within
// the error, and has an end.
func TestStayMemory(t *testing.T) {
	s := newStay()
	r := rand.New(rand.NewPCG(1, 1))
	for range 200_000 {
		s.record(int64(math.Pow(10, r.Float64()*16.5)))
	}
	if size := s.hist.GetMemorySize(); size > 64<<10 {
		t.Errorf("%d bytes for every time from 1 ns to 400 days", size)
	}
	s = newStay()
	for range 200_000 {
		s.record(60*sec + r.Int64N(2*sec))
	}
	if size := s.hist.GetMemorySize(); size > 1<<10 {
		t.Errorf("%d bytes for TIME_WAITs", size)
	}
}

func FuzzStay(f *testing.F) {
	f.Add(int64(0), int64(1), int64(1e18))
	f.Fuzz(func(t *testing.T, a, b, c int64) {
		s := newStay()
		var values []int64
		for _, v := range []int64{a, b, c} {
			if v >= 0 && v <= maxStayNS {
				values = append(values, v)
				s.record(v)
			}
		}
		if values != nil {
			checkStay(t, "fuzz", s.result(), values)
		}
	})
}
