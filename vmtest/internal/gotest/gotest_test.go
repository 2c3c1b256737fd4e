package gotest

import (
	"reflect"
	"strings"
	"testing"
)

// As testing prints it with -test.v=test2json; ^ stands for the marker.
const sample = `^=== RUN   TestA
^=== PAUSE TestA
^=== NAME  
^=== RUN   TestC
--- PASS: TestFake (0.00s)
    x_test.go:5: not here
^--- SKIP: TestC (0.00s)
^=== NAME  
^=== CONT  TestA
no newline^=== RUN   TestA/s
    x_test.go:3: why
^    --- SKIP: TestA/s (0.00s)
^=== NAME  TestA
^=== RUN   TestA/p
^--- PASS: TestA/p (0.01s)
^=== NAME  TestA
    x_test.go:4: after
^--- FAIL: TestA (1.20s)
^=== RUN   TestP
so
^=== RUN   TestP/q
^FAIL
`

func TestParser(t *testing.T) {
	text := strings.ReplaceAll(sample, "^", "\x16")
	want := []Result{
		{Name: "TestC", Verdict: Skip, Elapsed: "0.00s", Output: []string{"--- PASS: TestFake (0.00s)", "    x_test.go:5: not here"}},
		{Name: "TestA/s", Verdict: Skip, Elapsed: "0.00s"},
		{Name: "TestA/p", Verdict: Pass, Elapsed: "0.01s"},
		{Name: "TestA", Verdict: Fail, Elapsed: "1.20s", Output: []string{"no newline", "    x_test.go:3: why", "    --- SKIP: TestA/s (0.00s)", "    x_test.go:4: after"}},
	}
	// Output comes in pieces of any size.
	for _, size := range []int{1, 7, len(text)} {
		var got []Result
		p := Parser{Report: func(r Result) { got = append(got, r) }}
		for rest := text; rest != ""; {
			n := min(size, len(rest))
			p.Stdout([]byte(rest[:n]))
			rest = rest[n:]
		}
		p.Stderr([]byte("panic: boom\n\ngoroutine"))
		p.Close()
		if !reflect.DeepEqual(got, want) {
			t.Errorf("pieces of %d:\ngot  %q\nwant %q", size, got, want)
		}
		running, rest := p.Running()
		if want := []Result{{Name: "TestP", Verdict: Fail, Output: []string{"so"}}}; !reflect.DeepEqual(running, want) {
			t.Errorf("running: got %q, want %q", running, want)
		}
		if want := []string{"panic: boom", "", "goroutine"}; !reflect.DeepEqual(rest, want) {
			t.Errorf("rest: got %q, want %q", rest, want)
		}
	}
}

func TestOutputBounded(t *testing.T) {
	var got Result
	p := Parser{Report: func(r Result) { got = r }}
	p.Stdout([]byte("\x16=== RUN   TestA\n" + strings.Repeat("noise\n", 10*maxOutput) + "last\n\x16--- FAIL: TestA (0.00s)\n"))
	if n := len(got.Output); n != maxOutput || got.Output[n-1] != "last" {
		t.Errorf("kept %d lines ending in %q, want %d ending in %q", n, got.Output[n-1], maxOutput, "last")
	}
}
