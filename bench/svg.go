//go:build linux

package main

import (
	"fmt"
	"math"
	"strings"
)

// curve is a line through points of a picture with logarithmic axes.
type curve struct {
	title  string
	points [][2]float64
}

func (c *curve) add(x, y float64) { c.points = append(c.points, [2]float64{x, y}) }

// drawCurves draws the curves side by side, each with a dashed line of slope 1 through
// its last point: what grows in proportion runs along it.
func drawCurves(curves []curve) []byte {
	const (
		width, height       = 360, 260
		left, top, in, down = 56, 34, 284, 176
	)
	var s strings.Builder
	fmt.Fprintf(&s, `<svg xmlns="http://www.w3.org/2000/svg" width="%d" height="%d" viewBox="0 0 %[1]d %[2]d" font-family="sans-serif" font-size="11">`+"\n",
		width*len(curves), height)
	fmt.Fprintf(&s, `<rect width="%d" height="%d" fill="white"/>`+"\n", width*len(curves), height)
	for n, c := range curves {
		lowX, highX := decades(c.points, 0)
		lowY, highY := decades(c.points, 1)
		x := func(v float64) float64 {
			return float64(n*width+left) + in*(math.Log10(v)-lowX)/(highX-lowX)
		}
		y := func(v float64) float64 {
			return float64(top+down) - down*(math.Log10(v)-lowY)/(highY-lowY)
		}
		fmt.Fprintf(&s, `<text x="%d" y="20" font-size="13">%s</text>`+"\n", n*width+left, c.title)
		for e := lowX; e <= highX; e++ {
			at := x(math.Pow(10, e))
			fmt.Fprintf(&s, `<path d="M%.1f %d v%d" stroke="#ddd"/><text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n",
				at, top, down, at, top+down+16, short(e))
		}
		for e := lowY; e <= highY; e++ {
			at := y(math.Pow(10, e))
			fmt.Fprintf(&s, `<path d="M%d %.1f h%d" stroke="#ddd"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
				n*width+left, at, in, n*width+left-6, at+4, short(e))
		}
		last := c.points[len(c.points)-1]
		from := math.Max(math.Pow(10, lowX), last[0]*math.Pow(10, lowY)/last[1])
		fmt.Fprintf(&s, `<path d="M%.1f %.1f L%.1f %.1f" stroke="#999" stroke-dasharray="4 3"/>`+"\n",
			x(from), y(last[1]*from/last[0]), x(last[0]), y(last[1]))
		var path strings.Builder
		for i, p := range c.points {
			fmt.Fprintf(&path, "%c%.1f %.1f ", "ML"[min(i, 1)], x(p[0]), y(p[1]))
			fmt.Fprintf(&s, `<circle cx="%.1f" cy="%.1f" r="3" fill="#06c"/>`+"\n", x(p[0]), y(p[1]))
		}
		fmt.Fprintf(&s, `<path d="%s" fill="none" stroke="#06c" stroke-width="1.5"/>`+"\n", strings.TrimSpace(path.String()))
		fmt.Fprintf(&s, `<text x="%d" y="%d" text-anchor="middle">connections (dashed: in proportion)</text>`+"\n",
			n*width+left+in/2, top+down+36)
	}
	s.WriteString("</svg>\n")
	return []byte(s.String())
}

// decades returns the powers of ten around the coordinates.
func decades(points [][2]float64, axis int) (low, high float64) {
	low, high = math.Inf(1), math.Inf(-1)
	for _, p := range points {
		low, high = math.Min(low, p[axis]), math.Max(high, p[axis])
	}
	low, high = math.Floor(math.Log10(low)), math.Ceil(math.Log10(high))
	if high == low {
		high++
	}
	return low, high
}

// short writes a power of ten.
func short(exponent float64) string {
	switch e := int(exponent); {
	case e >= 6:
		return fmt.Sprintf("%.0fM", math.Pow10(e-6))
	case e >= 3:
		return fmt.Sprintf("%.0fk", math.Pow10(e-3))
	default:
		return fmt.Sprintf("%g", math.Pow10(e))
	}
}
