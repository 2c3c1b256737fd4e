//go:build linux

package main

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

func TestQuantile(t *testing.T) {
	for _, tt := range []struct {
		s    sample
		q    float64
		want float64
	}{
		{nil, 0.5, 0},
		{sample{7}, 0.5, 7},
		{sample{3, 1, 2}, 0.5, 2},
		{sample{4, 1, 3, 2}, 0.5, 2.5},
		{sample{4, 1, 3, 2}, 0, 1},
		{sample{4, 1, 3, 2}, 1, 4},
	} {
		if got := tt.s.quantile(tt.q); got != tt.want {
			t.Errorf("quantile %v of %v: got %v, want %v", tt.q, tt.s, got, tt.want)
		}
	}
}

// A verdict compares with the number, not with how it is printed.
func TestVerdict(t *testing.T) {
	limit := 100.0
	for _, tt := range []struct {
		median  float64
		atLeast bool
		want    string
	}{{100, false, "yes"}, {100.4, false, "NO"}, {99, false, "yes"}, {100, true, "yes"}, {99.6, true, "NO"}} {
		r := row{Median: tt.median, Target: &limit, AtLeast: tt.atLeast}
		if _, got := r.verdict(); got != tt.want {
			t.Errorf("median %v, at least %t: got %s, want %s", tt.median, tt.atLeast, got, tt.want)
		}
	}
}

func TestCounts(t *testing.T) {
	for _, tt := range []struct {
		name         string
		out, stderr  string
		count        func(*bench) (int, int, error)
		events, lost int
	}{
		{"json", `{"type":"header","schema":1}` + "\n" + `{"type":"transition","old":"CLOSE"}` + "\n" +
			`{"type":"closed"}` + "\n" + `{"type":"lost","count":5,"total":7}` + "\n" + `{"type":"transition"}` + "\n",
			"", countJSON, 2, 5},
		{"text", "PID COMM OLDSTATE -> NEWSTATE DURATION\n1 a CLOSE -> LISTEN -\n1 a LISTEN -> CLOSE 1s\n", "", countText, 2, 0},
		{"summary", `{"type":"header"}` + "\n" + `{"type":"summary","states":{"LISTEN":{"entered":4,"left":4},` +
			`"ESTABLISHED":{"entered":6,"left":6}},"closed":6,"lost":{"count":3}}` + "\n", "", countSummary, 20, 3},
		{"peer", "SKADDR PID\nffff 1 x 127.0.0.1 20000 127.1.1.0 20000 CLOSE -> LISTEN\nother\n", "lost 12 events on CPU #1\n",
			countPeer("lost"), 1, 12},
		{"count", "Attaching 1 probe...\n\n\n@: 42\n", "", (&bench{}).bpftraceCount().delivered, 42, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b := &bench{dir: t.TempDir()}
			for name, text := range map[string]string{outFile: tt.out, "stderr": tt.stderr} {
				if err := os.WriteFile(filepath.Join(b.dir, name), []byte(text), 0o600); err != nil {
					t.Fatal(err)
				}
			}
			events, lost, err := tt.count(b)
			if events != tt.events || lost != tt.lost || err != nil {
				t.Errorf("got %d transitions, %d lost, %v: want %d, %d", events, lost, err, tt.events, tt.lost)
			}
		})
	}
}

// The picture is the same for the same figures, and well-formed.
func TestDrawCurves(t *testing.T) {
	c := curve{title: "memory"}
	for n := 1e3; n <= 1e6; n *= 10 {
		c.add(n, n/7)
	}
	first := drawCurves([]curve{c, c})
	if !bytes.Equal(first, drawCurves([]curve{c, c})) {
		t.Error("two pictures of the same differ")
	}
	for d := xml.NewDecoder(bytes.NewReader(first)); ; {
		_, err := d.Token()
		if errors.Is(err, io.EOF) {
			return
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}
