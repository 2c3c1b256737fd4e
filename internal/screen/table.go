package screen

import (
	"slices"

	"github.com/tcptrace/tcptrace/internal/render"
)

// column is one column of a table of T.
type column[T any] struct {
	title    string
	min, max int  // cells; it grows up to max where there is room
	right    bool // numbers
	// rank says what goes first when the terminal is narrow: the highest.
	rank int
	text func(T) string
	fit  func(row T, width int) string // instead of text: knows its room
	// loud marks a cell that asks for attention; its text tells the same.
	loud func(T) bool
	cmp  func(a, b T) int // ascending
	desc bool             // the first press sorts downward
}

// placed is a column as it is shown.
type placed struct {
	col   int // index into the columns
	width int
}

// place chooses the columns that fit into width, behind a gutter for the
// selection's mark, and their widths.
func place[T any](cols []column[T], width, gutter int) []placed {
	order := make([]int, len(cols))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cols[a].rank - cols[b].rank })
	room := width - gutter
	var shown []placed
	for i, c := range order {
		need := cols[c].min
		if i > 0 {
			need++ // the space between
		}
		if need > room && i > 0 {
			break
		}
		room -= need
		shown = append(shown, placed{c, min(cols[c].min, max(width-gutter, 1))})
	}
	for i := range shown {
		grow := min(cols[shown[i].col].max-shown[i].width, room)
		if grow > 0 {
			shown[i].width += grow
			room -= grow
		}
	}
	slices.SortFunc(shown, func(a, b placed) int { return a.col - b.col })
	return shown
}

// table is a list of rows of which one is selected: the selection belongs to the
// row's key and stays with it when the rows change.
type table[T any, K comparable] struct {
	cols []column[T]
	key  func(T) K
	// gutter is the room at the left for the selection's mark.
	gutter int
	// order is the name of the order in which the rows come.
	order string

	rows   []T
	sel    int
	top    int // first visible row
	height int // visible rows, as last drawn
	sort   int // column, or -1: as the rows come
	desc   bool
}

func newTable[T any, K comparable](order string, key func(T) K) table[T, K] {
	return table[T, K]{key: key, order: order, sort: -1, gutter: 2}
}

// set takes new rows, sorts them, and finds the selected one again.
func (t *table[T, K]) set(rows []T) {
	var selected K
	had := t.sel < len(t.rows)
	if had {
		selected = t.key(t.rows[t.sel])
	}
	if t.sort >= 0 && t.sort < len(t.cols) {
		cmp := t.cols[t.sort].cmp
		if t.desc {
			slices.SortStableFunc(rows, func(a, b T) int { return cmp(b, a) })
		} else {
			slices.SortStableFunc(rows, cmp)
		}
	}
	t.rows = rows
	if had && (t.sel >= len(rows) || t.key(rows[t.sel]) != selected) {
		if i := slices.IndexFunc(rows, func(row T) bool { return t.key(row) == selected }); i >= 0 {
			t.sel = i
		}
	}
	t.move(0)
}

// selected returns the selected row.
func (t *table[T, K]) selected() (row T, ok bool) {
	if t.sel < len(t.rows) {
		return t.rows[t.sel], true
	}
	return row, false
}

func (t *table[T, K]) move(by int) {
	t.sel = max(0, min(t.sel+by, len(t.rows)-1))
}

// navigate handles the keys that move the selection.
func (t *table[T, K]) navigate(key string) bool {
	page := max(t.height-1, 1)
	switch key {
	case "up", "k":
		t.move(-1)
	case "down", "j":
		t.move(1)
	case "pgup", "ctrl+b":
		t.move(-page)
	case "pgdown", "ctrl+f":
		t.move(page)
	case "home", "g":
		t.move(-len(t.rows))
	case "end", "G":
		t.move(len(t.rows))
	default:
		return false
	}
	return true
}

// sortBy handles the keys that choose the order and reports whether the rows are
// to be set again.
func (t *table[T, K]) sortBy(key string) bool {
	switch {
	case key == "0":
		t.sort = -1
	case len(key) == 1 && key[0] >= '1' && key[0] <= '9':
		col := int(key[0] - '1')
		if col >= len(t.cols) {
			return false
		}
		if t.sort == col {
			t.desc = !t.desc
		} else {
			t.sort, t.desc = col, t.cols[col].desc
		}
	case key == ">" || key == "<":
		step := 1
		if key == "<" {
			step = -1
		}
		n := len(t.cols) + 1 // one more: as the rows come
		t.sort = (t.sort+1+step+n)%n - 1
		if t.sort >= 0 {
			t.desc = t.cols[t.sort].desc
		}
	case key == "r" && t.sort >= 0:
		t.desc = !t.desc
	default:
		return false
	}
	return true
}

// setColumns changes the columns; the order stays with the column's name.
func (t *table[T, K]) setColumns(cols []column[T]) {
	if t.sort >= 0 && t.sort < len(t.cols) {
		title := t.cols[t.sort].title
		t.sort = slices.IndexFunc(cols, func(c column[T]) bool { return c.title == title })
	}
	t.cols = cols
}

// sorted says in words how the rows are sorted.
func (t *table[T, K]) sorted() string {
	switch {
	case t.sort < 0 || t.sort >= len(t.cols):
		return "sort: " + t.order
	case t.desc:
		return "sort: " + t.cols[t.sort].title + " down"
	}
	return "sort: " + t.cols[t.sort].title + " up"
}

// draw writes the line of titles and the visible rows, at most height.
func (t *table[T, K]) draw(c *canvas, height int) {
	shown := place(t.cols, c.w, t.gutter)
	c.to(plain, t.gutter)
	for i, p := range shown {
		if i > 0 {
			c.text(plain, " ")
		}
		col := t.cols[p.col]
		digit := ""
		if p.col < 9 {
			digit = string(rune('1' + p.col))
		}
		st, title := bold, digit+col.title
		if p.col == t.sort {
			arrow := "^"
			if t.desc {
				arrow = "v"
			}
			st = mark
			if title += arrow; len(title) > p.width {
				title = arrow + col.title
			}
		}
		c.text(st, render.Pad(title, p.width, col.right))
	}
	c.newline()

	height = max(height, 0)
	t.height = height
	if height == 0 {
		return
	}
	t.top = max(0, min(t.top, len(t.rows)-height))
	if t.sel < t.top {
		t.top = t.sel
	} else if t.sel >= t.top+height {
		t.top = t.sel - height + 1
	}
	for i := t.top; i < min(t.top+height, len(t.rows)); i++ {
		row := t.rows[i]
		if i == t.sel {
			c.base = mark
			c.text(plain, ">")
		}
		c.to(plain, t.gutter)
		for j, p := range shown {
			if j > 0 {
				c.text(plain, " ")
			}
			col := &t.cols[p.col]
			st := plain
			if col.loud != nil && col.loud(row) {
				st = alarm
			}
			cell := ""
			if col.fit != nil {
				cell = col.fit(row, p.width)
			} else {
				cell = col.text(row)
			}
			c.text(st, render.Pad(cell, p.width, col.right))
		}
		c.newline()
	}
}

// position says which rows are visible.
func (t *table[T, K]) position() string {
	if len(t.rows) == 0 {
		return "0 of 0"
	}
	last := min(t.top+t.height, len(t.rows))
	return render.Thousands(int64(t.top+1)) + "-" + render.Thousands(int64(last)) +
		" of " + render.Thousands(int64(len(t.rows)))
}
