package heaviest

import (
	"math/rand/v2"
	"slices"
	"testing"
)

func weigh(v *int64) int64 { return *v }

// The counts of all that was added are in the map or were handed to drop.
func TestNothingVanishes(t *testing.T) {
	for seed := range uint64(50) {
		rng := rand.New(rand.NewPCG(seed, 1))
		limit := 2 + rng.IntN(30)
		var dropped int64
		m := New[int](limit, weigh, func(v *int64) { dropped += *v })
		added := int64(0)
		for range 2000 {
			// Two keys in turns, as the ends of a connection come, then others.
			a, b := rng.IntN(3*limit), rng.IntN(3*limit)
			for range rng.IntN(5) {
				*m.At(a)++
				*m.At(b)++
				added += 2
			}
			if len(m.entries) > limit {
				t.Fatalf("%d entries, the limit is %d", len(m.entries), limit)
			}
		}
		kept := int64(0)
		for _, e := range m.List() {
			kept += e.Value
		}
		if kept+dropped != added {
			t.Fatalf("seed %d: %d kept and %d dropped of %d", seed, kept, dropped, added)
		}
		if m.Forgotten() == 0 {
			t.Fatalf("seed %d: nothing was forgotten", seed)
		}
	}
}

func TestLightestHalfIsForgotten(t *testing.T) {
	m := New[string](4, weigh, nil)
	for k, n := range map[string]int64{"a": 4, "b": 1} {
		*m.At(k) = n
	}
	*m.At("c") = 3
	*m.At("d") = 3 // as heavy as c, and younger
	*m.At("e") = 1
	var got []string
	for _, e := range m.List() {
		got = append(got, e.Key)
	}
	if want := []string{"a", "c", "e"}; !slices.Equal(got, want) || m.Forgotten() != 2 {
		t.Errorf("got %v and %d forgotten, want %v and 2", got, m.Forgotten(), want)
	}
}

func BenchmarkAt(b *testing.B) {
	m := New[[4]uint64](1024, weigh, nil)
	keys := [][4]uint64{{1}, {2}}
	for i := 0; b.Loop(); i++ {
		*m.At(keys[i&1])++
	}
}
