package e2e

import (
	"math"
	"math/rand/v2"
	"testing"
)

// trend is a line through samples that are a second apart.
type trend struct {
	n                int
	mean, least, top float64
	slope            float64 // a second
	deviation        float64 // standard error of slope
}

func trendOf(samples []float64) trend {
	t := trend{n: len(samples), least: math.Inf(1), top: math.Inf(-1)}
	for _, v := range samples {
		t.mean += v / float64(t.n)
		t.least, t.top = min(t.least, v), max(t.top, v)
	}
	middle := float64(t.n-1) / 2
	var xx, xy float64
	for i, v := range samples {
		x := float64(i) - middle
		xx += x * x
		xy += x * (v - t.mean)
	}
	t.slope = xy / xx
	var rest float64
	for i, v := range samples {
		d := v - t.mean - t.slope*(float64(i)-middle)
		rest += d * d
	}
	t.deviation = math.Sqrt(rest / float64(t.n-2) / xx)
	return t
}

// grown is by how much the line rises over the samples.
func (t trend) grown() float64 { return t.slope * float64(t.n-1) }

// flat reports whether the line rises by no more than the bound, or by no more than
// what noise makes of a flat one: three of its standard errors.
func (t trend) flat(bound float64) bool {
	return t.grown() <= bound || t.slope <= 3*t.deviation
}

// TestFlat: the judgement of the soak tells a leak from a saw.
func TestFlat(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	const n, bound = 400, 3.0
	for _, tc := range []struct {
		name string
		f    func(i int) float64
		want bool
	}{
		{"level", func(int) float64 { return 50 }, true},
		{"noise", func(int) float64 { return 50 + rng.NormFloat64() }, true},
		{"saw of the garbage collector", func(i int) float64 { return 40 + float64(i%37)/2 }, true},
		{"falls", func(i int) float64 { return 50 - float64(i)/10 }, true},
		{"within the bound", func(i int) float64 { return 50 + float64(i)*2.9/n }, true},
		{"leak", func(i int) float64 { return 50 + float64(i)*6/n }, false},
		{"leak in noise", func(i int) float64 { return 50 + float64(i)*6/n + rng.NormFloat64() }, false},
		{"leak under the saw", func(i int) float64 { return 40 + float64(i%37)/2 + float64(i)*12/n }, false},
		{"steps", func(i int) float64 { return 50 + float64(i/50) }, false},
	} {
		samples := make([]float64, n)
		for i := range samples {
			samples[i] = tc.f(i)
		}
		if got := trendOf(samples); got.flat(bound) != tc.want {
			t.Errorf("%s: grown by %.2f, %.5f a second +- %.5f: flat is %v", tc.name, got.grown(), got.slope, got.deviation, !tc.want)
		}
	}
}
