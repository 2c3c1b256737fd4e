package screen

import (
	"strings"
	"unicode/utf8"

	"github.com/tcptrace/tcptrace/internal/render"
)

// style holds the parameters of an SGR sequence (ECMA-48 8.3.117).
type style string

const (
	plain style = ""
	bold  style = "1"
	faint style = "2"
	alarm style = "1;31" // red, bold
	shout style = "1;7;31"
	warn  style = "1;7;33"
	mark  style = "7" // reverse
)

// canvas collects the lines of one view. What lies outside of its width and
// height is dropped, so that a small terminal shows less and never garbage.
type canvas struct {
	buf  []byte
	w, h int
	x, y int
	base style // of the present line, its empty part included
}

// text appends s, escaped text without line breaks, to the present line.
func (c *canvas) text(st style, s string) {
	if s == "" || c.y >= c.h || c.x >= c.w {
		return
	}
	n := render.Width(s)
	if c.x+n > c.w {
		s = render.Cut(s, c.w-c.x)
		n = render.Width(s)
	}
	c.x += n
	if c.base != plain {
		if st != plain {
			st = c.base + ";" + st
		} else {
			st = c.base
		}
	}
	if st == plain {
		c.buf = append(c.buf, s...)
		return
	}
	c.buf = append(c.buf, "\x1b["...)
	c.buf = append(c.buf, st...)
	c.buf = append(c.buf, 'm')
	c.buf = append(c.buf, s...)
	c.buf = append(c.buf, "\x1b[m"...)
}

const spaces = "                                                                "

// to moves right to column x.
func (c *canvas) to(st style, x int) {
	for c.x < min(x, c.w) && c.y < c.h {
		c.text(st, spaces[:min(x-c.x, c.w-c.x, len(spaces))])
	}
}

// newline ends the present line.
func (c *canvas) newline() {
	if c.base != plain {
		c.to(plain, c.w)
		c.base = plain
	}
	c.x = 0
	c.y++
	if c.y < c.h {
		c.buf = append(c.buf, '\n')
	}
}

// line appends one whole line.
func (c *canvas) line(st style, s string) {
	c.text(st, s)
	c.newline()
}

// split shows left and, at the right edge, right; left gives way.
func (c *canvas) split(leftStyle style, left string, rightStyle style, right string) {
	room := c.w - c.x - render.Width(right) - 1
	if room < 1 {
		c.text(rightStyle, right)
		return
	}
	c.text(leftStyle, render.Cut(left, room))
	c.to(plain, c.w-render.Width(right))
	c.text(rightStyle, right)
}

// down moves to line y, leaving empty lines.
func (c *canvas) down(y int) {
	for c.y < y && c.y < c.h {
		c.newline()
	}
}

func (c *canvas) String() string {
	return string(c.buf)
}

// wrap breaks s into at most n lines of width cells, at spaces where it can. The
// last line is cut.
func wrap(s string, width, n int) []string {
	if width < 1 || n < 1 || s == "" {
		return nil
	}
	var lines []string
	for len(lines) < n-1 && render.Width(s) > width {
		end, used := 0, 0
		space := -1
		for i, r := range s {
			rw := render.Width(string(r))
			if used+rw > width {
				// A space just behind the edge is a good place, too.
				if r == ' ' {
					space = i
				}
				break
			}
			if r == ' ' {
				space = i
			}
			used += rw
			end = i + utf8.RuneLen(r)
		}
		if end == 0 {
			break // one rune is wider than the line
		}
		if space > 0 {
			end = space
		}
		lines = append(lines, strings.TrimRight(s[:end], " "))
		s = strings.TrimLeft(s[end:], " ")
	}
	return append(lines, render.Cut(s, width))
}
