//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// outFile is where a tool's stdout goes, in the bench's scratch directory.
const outFile = "out"

// tool is one way to trace.
type tool struct {
	name string
	path string
	args []string
	ours bool
	// delivered returns how many transitions came out, and how many the tool says
	// that it lost; nil: not counted.
	delivered func(b *bench) (events, lost int, err error)
	target    float64 // throughput ratio to reach, 0 for peers
	perEvent  float64 // user CPU per event to reach, µs
}

// The ports of the load, as each peer takes them.
func loadPorts() string {
	var ports []string
	for i := range workers {
		ports = append(ports, fmt.Sprint(firstPort+i))
	}
	return strings.Join(ports, ",")
}

// bpftraceFilter is a predicate: other traffic is neither printed nor counted.
var bpftraceFilter = fmt.Sprintf("tracepoint:sock:inet_sock_set_state /args->sport >= %d && args->sport < %d/",
	firstPort, firstPort+workers)

func (b *bench) ourTools() []*tool {
	own := []string{"--netns", "self"}
	with := func(args ...string) []string { return append(append([]string{}, own...), args...) }
	recording := filepath.Join(b.dir, "run.rec")
	tools := []*tool{
		{name: "tcptrace -w FILE", args: with("-w", recording), target: 0.97,
			delivered: func(b *bench) (int, int, error) { return b.replayed(recording) }},
		{name: "tcptrace -o json > FILE", args: with("-o", "json"), target: 0.90, perEvent: 0.6, delivered: countJSON},
		{name: "tcptrace > FILE", args: own, delivered: countText},
		{name: "tcptrace --watch close_wait", args: with("--watch", "close_wait"), target: 0.99},
	}
	if b.hasSummary {
		tools = append([]*tool{{name: "tcptrace --summary", args: with("--summary", "-o", "json"), target: 0.97, perEvent: 0.3,
			delivered: countSummary}}, tools...)
	}
	for _, t := range tools {
		t.path, t.ours = b.tcptrace, true
	}
	return tools
}

func (b *bench) peerTools() []*tool {
	var tools []*tool
	if b.tcpstates != "" {
		tools = append(tools, &tool{name: "tcpstates > FILE", path: b.tcpstates, args: []string{"-4", "-L", loadPorts()},
			delivered: countPeer("lost")})
	}
	if b.bpftrace != "" {
		tools = append(tools,
			&tool{name: "bpftrace printing > FILE", path: b.bpftrace, args: []string{"-e", bpftraceFilter +
				` { printf("%d %s %d %s %d %d %d\n", pid, comm, args->sport, ntop(args->daddr), args->dport, args->oldstate, args->newstate); }`},
				delivered: countPeer("Lost")},
			b.bpftraceCount())
	}
	return tools
}

func (b *bench) bpftraceCount() *tool {
	return &tool{name: "bpftrace counting only", path: b.bpftrace, args: []string{"-e", bpftraceFilter + ` { @ = count(); }`},
		delivered: func(b *bench) (int, int, error) {
			raw, err := os.ReadFile(filepath.Join(b.dir, outFile))
			if err != nil {
				return 0, 0, err
			}
			n := 0
			at := bytes.LastIndex(raw, []byte("@:"))
			if at < 0 {
				return 0, 0, errors.New("bpftrace printed no count")
			}
			_, err = fmt.Sscan(string(raw[at+2:]), &n)
			return n, 0, err
		}}
}

// lines calls f with each line of r.
func lines(r io.Reader, f func(line []byte) error) error {
	s := bufio.NewScanner(r)
	s.Buffer(make([]byte, 1<<20), 16<<20)
	for s.Scan() {
		if err := f(s.Bytes()); err != nil {
			return err
		}
	}
	return s.Err()
}

func (b *bench) outLines(f func(line []byte) error) error {
	file, err := os.Open(filepath.Join(b.dir, outFile))
	if err != nil {
		return err
	}
	defer file.Close()
	return lines(file, f)
}

func countJSON(b *bench) (events, lost int, err error) {
	err = b.outLines(func(line []byte) error { return countLine(line, &events, &lost) })
	return events, lost, err
}

func countLine(line []byte, events, lost *int) error {
	switch {
	case bytes.HasPrefix(line, []byte(`{"type":"transition"`)):
		*events++
	case bytes.HasPrefix(line, []byte(`{"type":"lost"`)):
		var l struct{ Count int }
		if err := json.Unmarshal(line, &l); err != nil {
			return err
		}
		*lost += l.Count
	}
	return nil
}

func countText(b *bench) (events, lost int, err error) {
	err = b.outLines(func(line []byte) error {
		if bytes.Contains(line, []byte(" -> ")) && !bytes.Contains(line, []byte("OLDSTATE")) {
			events++
		}
		return nil
	})
	return events, lost, err
}

// countSummary adds up how often each state was entered: CLOSE by the connections that
// are over and the listeners that left LISTEN.
func countSummary(b *bench) (events, lost int, err error) {
	err = b.outLines(func(line []byte) error {
		if !bytes.HasPrefix(line, []byte(`{"type":"summary"`)) {
			return nil
		}
		var s struct {
			States map[string]struct{ Entered, Left int }
			Closed int
			Lost   struct{ Count int }
		}
		if err := json.Unmarshal(line, &s); err != nil {
			return err
		}
		for _, state := range s.States {
			events += state.Entered
		}
		events += s.Closed + s.States["LISTEN"].Left
		lost = s.Lost.Count
		return nil
	})
	return events, lost, err
}

// countPeer counts the lines of a tracer that prints one for each transition.
func countPeer(lostWord string) func(b *bench) (int, int, error) {
	return func(b *bench) (events, lost int, err error) {
		count := func(line []byte) error {
			text := string(line)
			var n int
			if i := strings.Index(text, lostWord+" "); i >= 0 {
				if _, err := fmt.Sscan(text[i+len(lostWord):], &n); err == nil {
					lost += n
					return nil
				}
			}
			if strings.Contains(text, fmt.Sprint(firstPort/10)) {
				events++
			}
			return nil
		}
		if err := b.outLines(count); err != nil {
			return 0, 0, err
		}
		return events, lost, b.stderrLost(lostWord, &lost)
	}
}

func (b *bench) stderrLost(word string, lost *int) error {
	f, err := os.Open(filepath.Join(b.dir, "stderr"))
	if err != nil {
		return err
	}
	defer f.Close()
	return lines(f, func(line []byte) error {
		var n int
		if i := bytes.Index(line, []byte(word+" ")); i >= 0 {
			if _, err := fmt.Sscan(string(line[i+len(word):]), &n); err == nil {
				*lost += n
			}
		}
		return nil
	})
}

// replayed counts what a recording holds.
func (b *bench) replayed(path string) (events, lost int, err error) {
	cmd := command(b.tcptrace, "-r", path, "-o", "json")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return 0, 0, err
	}
	if err := cmd.Start(); err != nil {
		return 0, 0, err
	}
	err = lines(out, func(line []byte) error { return countLine(line, &events, &lost) })
	return events, lost, errors.Join(err, cmd.Wait())
}

// choose leaves the tools that are asked for.
func (b *bench) choose(tools []*tool) []*tool {
	return slices.DeleteFunc(tools, func(t *tool) bool { return !b.tools.MatchString(t.name) })
}

// find looks for the peers, and notes those that are missing.
func (b *bench) find() {
	look := func(name string, places ...string) string {
		for _, p := range append(places, name) {
			if path, err := exec.LookPath(p); err == nil {
				return path
			}
		}
		b.note("%s is not installed: its rows are missing", name)
		return ""
	}
	b.ss = look("ss")
	b.tcpstates = look("tcpstates", "/usr/sbin/tcpstates")
	b.bpftrace = look("bpftrace")
	if b.tracefs != nil && (b.tcpstates != "" || b.bpftrace != "") {
		b.note("tcpstates and bpftrace need tracefs: %v: their rows are missing", b.tracefs)
		b.tcpstates, b.bpftrace = "", ""
	}
	b.hasSummary = command(b.tcptrace, "--summary", "--version").Run() == nil
}
