package render

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// stayed is the sockets of the answer that leaks returns, as leaks.
func stayed() []*watch.Leak {
	var list []*watch.Leak
	seen := make(map[*watch.Socket]bool)
	for _, g := range leaks().Groups {
		for _, s := range g.Sockets {
			if s.State == events.CloseWait && !seen[s] {
				seen[s] = true
				list = append(list, &watch.Leak{Socket: *s, TS: 1000 * sec, Limit: 3 * sec, Left: s.AgeExact})
			}
		}
	}
	return list
}

func TestLeaksText(t *testing.T) {
	var out bytes.Buffer
	if err := Leaks(&out, stayed(), 4, "--fail-on close_wait:3s"); err != nil {
		t.Fatal(err)
	}
	want := `tcptrace: 4 sockets stayed too long in CLOSE_WAIT (--fail-on close_wait:3s):
 PID  COMM                    FD     LOCAL               REMOTE                   AGE  REASON
4711  python3                 12,13  10.0.0.1:8080       10.0.0.2:50001      >=12m04s  drained
4712  e\x1b[2Jvil             9
4711  python3                 14     10.0.0.1:8080       10.0.0.2:50002        10.00s  unread
  99  backend-with-long-name  -      [2001:db8::1]:8080  [2001:db8::2]:4000   >=3.00s  not-accepted
   -  -                       -      10.0.0.1:2049       10.0.0.9:700          16m39s  kernel
`
	if got := out.String(); got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestLeaksTextStates(t *testing.T) {
	list := stayed()[1:2]
	for range 21 {
		l := *list[0]
		l.State, l.Reason = events.TimeWait, watch.ReasonNone
		l.Holders = nil
		list = append(list, &l)
	}
	var out bytes.Buffer
	if err := Leaks(&out, list, 25, "--fail-on a\x1b"); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSuffix(out.String(), "\n"), "\n")
	if len(lines) != 1+1+LeakRows+1 || lines[0] != `tcptrace: 25 sockets stayed too long (--fail-on a\x1b):` || lines[len(lines)-1] != "and 5 more" {
		t.Errorf("got\n%s", out.String())
	}
	if !strings.Contains(lines[1], "STATE") || strings.Count(out.String(), "  TIME_WAIT ") != LeakRows-1 {
		t.Errorf("no states in\n%s", out.String())
	}
}

func TestLeakJSON(t *testing.T) {
	var out bytes.Buffer
	j := NewWatchJSON(&out, events.Clock{})
	for _, l := range stayed() {
		j.Leak(l)
	}
	if err := j.Flush(); err != nil {
		t.Fatal(err)
	}
	n := 0
	for line := range strings.Lines(out.String()) {
		n++
		var got struct {
			Type    string
			State   string
			AgeNS   int64 `json:"age_ns"`
			LimitNS int64 `json:"limit_ns"`
			Left    *bool
			LAddr   string
			Holders []any
		}
		if err := json.Unmarshal([]byte(line), &got); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if got.Type != "leak" || got.State != "CLOSE_WAIT" || got.LimitNS != 3*sec || got.AgeNS < 3*sec || got.Left == nil || got.LAddr == "" || got.Holders == nil {
			t.Errorf("got %+v of %s", got, line)
		}
	}
	if n != 4 {
		t.Errorf("got %d lines, want 4", n)
	}
}

func TestLeaksError(t *testing.T) {
	want := errors.New("full")
	if err := Leaks(failing{want}, stayed(), 4, ""); !errors.Is(err, want) {
		t.Errorf("got %v, want %v", err, want)
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
