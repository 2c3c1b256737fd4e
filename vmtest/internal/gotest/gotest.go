// Package gotest reads the output of a Go test binary that runs with
// -test.v=test2json: which tests passed, failed and skipped, and what each
// printed.
package gotest

import (
	"bytes"
	"maps"
	"regexp"
	"slices"
	"strings"
)

// Verdict is how a test ended.
type Verdict string

// Verdicts, as the testing package prints them.
const (
	Pass Verdict = "PASS"
	Fail Verdict = "FAIL"
	Skip Verdict = "SKIP"
)

// Result is the end of one test or subtest.
type Result struct {
	Name    string
	Verdict Verdict
	Elapsed string // "1.23s"
	// Output is what the test and its subtests printed; of top-level tests
	// only.
	Output []string
}

// TopLevel reports whether r is of a test, not of a subtest.
func (r Result) TopLevel() bool { return !strings.Contains(r.Name, "/") }

// Parser takes the output of one test binary as it comes.
type Parser struct {
	// Report is called for each result, in the order of the output.
	Report func(Result)

	partial [2][]byte // of stdout and stderr
	current string    // top-level test whose output comes
	running map[string]bool
	output  map[string][]string
	rest    []string // output of no test: panics, TestMain
}

// Marker begins the lines that the testing package itself writes.
const Marker = "\x16"

var (
	verdictLine = regexp.MustCompile(`^ *--- (PASS|FAIL|SKIP): (\S+) \((\d+\.\d+s)\)$`)
	phaseLine   = regexp.MustCompile(`^=== (RUN|CONT|NAME|PAUSE) +(\S*)`)
)

// maxOutput bounds what is kept of one test for the report of its failure; the
// log has everything.
const maxOutput = 400

// Stdout takes a piece of the binary's standard output.
func (p *Parser) Stdout(b []byte) { p.split(&p.partial[0], b, p.line) }

// Stderr takes a piece of its standard error: panics and the race detector's
// reports, which name no test.
func (p *Parser) Stderr(b []byte) { p.split(&p.partial[1], b, p.stray) }

func (p *Parser) split(partial *[]byte, b []byte, line func(string)) {
	*partial = append(*partial, b...)
	for {
		i := bytes.IndexByte(*partial, '\n')
		if i < 0 {
			return
		}
		line(string((*partial)[:i]))
		*partial = (*partial)[i+1:]
	}
}

// Close takes what came without an end of line.
func (p *Parser) Close() {
	if len(p.partial[0]) > 0 {
		p.line(string(p.partial[0]))
	}
	if len(p.partial[1]) > 0 {
		p.stray(string(p.partial[1]))
	}
	p.partial = [2][]byte{}
}

// Running lists the top-level tests that began and did not end, with their
// output, and the output that belongs to no test: what there is to say about a
// binary that died.
func (p *Parser) Running() (tests []Result, rest []string) {
	for _, name := range slices.Sorted(maps.Keys(p.running)) {
		tests = append(tests, Result{Name: name, Verdict: Fail, Output: p.output[name]})
	}
	return tests, p.rest
}

func (p *Parser) line(line string) {
	// Output without a newline at its end precedes the marker on its line.
	text, own, marked := strings.Cut(line, Marker)
	if !marked {
		p.keep(line)
		return
	}
	if text != "" {
		p.keep(text)
	}
	if m := phaseLine.FindStringSubmatch(own); m != nil {
		p.current = top(m[2])
		if p.current != "" && m[1] == "RUN" {
			if p.running == nil {
				p.running, p.output = make(map[string]bool), make(map[string][]string)
			}
			p.running[p.current] = true
		}
		return
	}
	m := verdictLine.FindStringSubmatch(own)
	if m == nil {
		// PASS or FAIL of the whole, and coverage.
		return
	}
	r := Result{Verdict: Verdict(m[1]), Name: m[2], Elapsed: m[3]}
	p.current = top(r.Name)
	if r.TopLevel() {
		r.Output = p.output[r.Name]
		delete(p.running, r.Name)
		delete(p.output, r.Name)
	} else if r.Verdict != Pass {
		p.keep(own)
	}
	p.Report(r)
}

func (p *Parser) keep(line string) {
	if !p.running[p.current] {
		p.stray(line)
		return
	}
	p.output[p.current] = tail(p.output[p.current], line)
}

func (p *Parser) stray(line string) { p.rest = tail(p.rest, line) }

func tail(list []string, line string) []string {
	if len(list) >= maxOutput {
		list = list[1:]
	}
	return append(list, line)
}

func top(name string) string {
	name, _, _ = strings.Cut(name, "/")
	return name
}
