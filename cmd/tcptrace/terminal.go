package main

import (
	"io"
	"os"

	"golang.org/x/term"
)

// terminal returns the width of w if it is a terminal.
func terminal(w io.Writer) (columns int, ok bool) {
	f, isFile := w.(*os.File)
	if !isFile || !term.IsTerminal(int(f.Fd())) {
		return 0, false
	}
	columns, _, err := term.GetSize(int(f.Fd()))
	if err != nil {
		columns = 0 // a serial line may not know
	}
	return columns, true
}

// wantColor decides by --color, and by https://no-color.org: any value of NO_COLOR
// but the empty one is a no.
func wantColor(when string, isTerminal bool) bool {
	switch when {
	case "always":
		return true
	case "never":
		return false
	default:
		return isTerminal && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
	}
}
