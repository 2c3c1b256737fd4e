package render

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"

	"github.com/mattn/go-runewidth"
)

// cells measures runes as terminals do outside East Asian locales: ambiguous
// characters take one cell.
var cells = &runewidth.Condition{StrictEmojiNeutral: true}

// Escape returns s as it may be shown on a terminal. A process chooses its own
// name, command line and cgroup: what could move the cursor, change the terminal
// or hide its neighbours is written out. Control characters, spaces other than
// the ASCII one, formatting (bidirectional overrides among them), combining and
// unassigned characters become \x0a, \x1b, \u202e or \U000e0001; bytes that are no
// UTF-8 become \xff; a backslash is doubled, so that the text stays unambiguous.
//
// Width tells the cells that the result takes.
func Escape(s string) string {
	i := 0
	for i < len(s) && s[i] >= ' ' && s[i] < utf8.RuneSelf && s[i] != '\\' && s[i] != 0x7f {
		i++
	}
	if i == len(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	b.WriteString(s[:i])
	for i < len(s) {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1, r < ' ', r == 0x7f:
			b.WriteString(`\x`)
			b.WriteByte(hex[s[i]>>4])
			b.WriteByte(hex[s[i]&15])
		case r == '\\':
			b.WriteString(`\\`)
		case showable(r):
			b.WriteRune(r)
		default:
			quoted := strconv.QuoteRuneToASCII(r)
			b.WriteString(quoted[1 : len(quoted)-1])
		}
		i += size
	}
	return b.String()
}

const hex = "0123456789abcdef"

// showable reports whether r prints by itself, in cells of its own whatever
// stands beside it.
func showable(r rune) bool {
	switch {
	case r < utf8.RuneSelf:
		return r >= ' ' && r < 0x7f
	case !unicode.IsPrint(r), unicode.Is(unicode.M, r):
		return false
	case r >= 0x1f1e6 && r <= 0x1f1ff, r >= 0x1f3fb && r <= 0x1f3ff:
		// Regional indicators and skin tones join the rune before them: the
		// pair's width depends on the terminal.
		return false
	case unicode.Is(unicode.Hangul, r) && (r < 0xac00 || r > 0xd7a3) && !(r >= 0x3131 && r <= 0x318e):
		// Conjoining jamo likewise.
		return false
	}
	return cells.RuneWidth(r) > 0
}

// width returns the number of terminal cells of s, which Escape made.
func width(s string) int {
	n := 0
	for i := 0; i < len(s); i++ {
		if s[i] >= utf8.RuneSelf {
			for _, r := range s[i:] {
				n += cells.RuneWidth(r)
			}
			return n
		}
		n++
	}
	return n
}

// fit returns s, which Escape made, in at most n cells; a + stands for what was
// left out.
func fit(s string, n int) string {
	if n <= 0 {
		return ""
	}
	if width(s) <= n {
		return s
	}
	used := 0
	for i, r := range s {
		used += cells.RuneWidth(r)
		if used > n-1 {
			return s[:i] + "+"
		}
	}
	return s
}
