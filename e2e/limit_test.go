package e2e

import (
	"bytes"
	"encoding/json"
	"fmt"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestMaxConnections: with more connections than may be tracked, those that are
// tracked keep to the limit, and the others are counted, in each output.
func TestMaxConnections(t *testing.T) {
	const limit, pairs = 16, 25
	l := newLossRun(t, "poll", lossModes[0])
	l.listener = l.listen()
	common := []string{"--netns", l.ns.Name(), "--hooks", "poll", "--max-connections", fmt.Sprint(limit)}
	before := l.open(pairs) // there when the trace begins: 50 sockets and a listener
	stream := startFiled(t, append([]string{"-o", "json"}, common...)...)
	text := startFiled(t, common...)
	watch := startFiled(t, append([]string{"--watch", "established", "--interval", "200ms", "-o", "json"}, common...)...)

	type line struct {
		Type                                  string
		Max, Count, Total, Untracked, Sockets int
	}
	// last returns the last line of a type for which ok holds.
	last := func(f *filed, typ string, ok func(line) bool) (got line) {
		t.Helper()
		for deadline := time.Now().Add(callTimeout); ; time.Sleep(20 * time.Millisecond) {
			for _, raw := range wholeLines(f.output()) {
				var x line
				if err := json.Unmarshal(raw, &x); err != nil {
					t.Fatal(err)
				}
				if x.Type == typ {
					got = x
				}
			}
			if ok(got) {
				return got
			}
			if time.Now().After(deadline) {
				t.Errorf("the last %s line is %+v", typ, got)
				return got
			}
		}
	}
	const others = 2*pairs + 1 - limit
	last(stream, "limit", func(x line) bool { return x == line{Type: "limit", Max: limit, Untracked: others} })
	last(watch, "snapshot", func(x line) bool { return x.Sockets == limit && x.Untracked == 2*pairs-limit })
	// until waits for something on the standard error of the text.
	until := func(what string, ok func(talk string) bool) {
		t.Helper()
		for deadline := time.Now().Add(callTimeout); !ok(text.talk()); time.Sleep(20 * time.Millisecond) {
			if time.Now().After(deadline) {
				t.Fatalf("no %s: %q", what, text.talk())
			}
		}
	}
	note := fmt.Sprintf("tcptrace: at the limit of %d connections: 0 of the oldest forgotten (0 in all), %d sockets not tracked", limit, others)
	until(note, func(talk string) bool { return strings.Contains(talk, note) })

	// Newcomers push old ones out: each of the 20 ends of 10 connections takes a
	// place. What goes on with those of before is told all the same.
	l.open(10)
	last(stream, "limit", func(x line) bool { return x.Total >= 20 && x.Untracked >= others })
	l.reset(before)
	closed := func(f *filed) int {
		n := 0
		for _, raw := range wholeLines(f.output()) {
			var x line
			if json.Unmarshal(raw, &x) == nil && x.Type == "closed" {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(callTimeout); closed(stream) < 2*pairs; time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d ends are told, want %d", closed(stream), 2*pairs)
		}
	}
	text.cmd.Process.Signal(syscall.SIGUSR1)
	until("answer to SIGUSR1", statusLine.MatchString)
	for _, f := range []*filed{stream, text, watch} {
		f.end()
	}
}

// wholeLines returns the lines that have ended.
func wholeLines(out []byte) [][]byte {
	end := bytes.LastIndexByte(out, '\n')
	if end < 0 {
		return nil
	}
	return bytes.Split(out[:end], []byte("\n"))
}
