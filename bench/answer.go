//go:build linux

package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

const leaked = 15_000

// firstAnswer measures the whole of a process that looks at 15,000 sockets in
// CLOSE_WAIT and says who holds them.
func (b *bench) firstAnswer() error {
	c, err := startChild("leak", strconv.Itoa(leaked))
	if err != nil {
		return err
	}
	defer c.end()
	lineCount := func(raw []byte) (int, error) {
		return bytes.Count(raw, []byte("users:((")), nil
	}
	looks := []struct {
		name   string
		target float64
		args   []string
		// count returns how many sockets the output tells of.
		count func(raw []byte) (int, error)
	}{
		{"tcptrace --watch close_wait --once", 100, []string{b.tcptrace, "--netns", "self", "--watch", "close_wait", "--once", "--color=never"},
			func(raw []byte) (int, error) {
				_, after, _ := bytes.Cut(raw, []byte("CLOSE_WAIT "))
				n := 0
				_, err := fmt.Sscan(string(after), &n)
				return n, err
			}},
		{"... -o json, a line for each socket", none, []string{b.tcptrace, "--netns", "self", "--watch", "close_wait", "--once", "-o", "json"},
			func(raw []byte) (int, error) { return bytes.Count(raw, []byte(`{"type":"socket"`)), nil }},
		{"ss -tanp state close-wait", none, []string{b.ss, "-tanp", "state", "close-wait"}, lineCount},
	}
	wall := make([]sample, len(looks))
	used := make([]sample, len(looks))
	for range b.pairs {
		for i, l := range looks {
			if l.args[0] == "" {
				continue
			}
			path := filepath.Join(b.dir, "answer")
			out, err := os.Create(path)
			if err != nil {
				return err
			}
			cmd := command(l.args[0], l.args[1:]...)
			cmd.Stdout = out
			start := time.Now()
			err = cmd.Run()
			took := time.Since(start)
			out.Close()
			if err != nil {
				return fmt.Errorf("%s: %w", l.name, err)
			}
			raw, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			if n, err := l.count(raw); err != nil || n != leaked {
				return fmt.Errorf("%s: it tells of %d sockets, want %d (%w)", l.name, n, leaked, err)
			}
			wall[i] = append(wall[i], float64(took.Microseconds())/1e3)
			used[i] = append(used[i], float64((cmd.ProcessState.UserTime()+cmd.ProcessState.SystemTime()).Microseconds())/1e3)
		}
	}
	const part = "first-answer"
	for i, l := range looks {
		if len(wall[i]) > 0 {
			b.add(part, fmt.Sprintf("whole process, %d sockets", leaked), l.name, "ms", 1, wall[i], l.target, false)
		}
	}
	for i, l := range looks {
		if len(wall[i]) > 0 {
			b.add(part, "its CPU time, all processors", l.name, "ms", 1, used[i], none, false)
		}
	}
	return nil
}

// quiet measures a stream where next to nothing happens: what waiting costs, and how
// late a lonely transition is.
func (b *bench) quiet() error {
	const part = "quiet"
	idle := 5 * b.spell
	t := &tool{name: "tcptrace", path: b.tcptrace, ours: true, args: []string{"--netns", "self", "-o", "json"}}
	p, err := startTool(t, b.dir)
	if err != nil {
		return err
	}
	before, err := ran(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	time.Sleep(idle)
	after, err := ran(p.cmd.Process.Pid)
	if err != nil {
		return err
	}
	if _, _, err := p.stop(); err != nil {
		return err
	}
	b.add(part, fmt.Sprintf("CPU of one processor, idle for %v", idle), "tcptrace -o json", "%", 3,
		sample{100 * float64(after-before) / float64(idle)}, 0.1, false)

	late, err := b.latency(3 * b.pairs)
	if err != nil {
		return err
	}
	b.add(part, "from a transition to its line", "tcptrace -o json | reader", "ms", 1, late, 100, false)
	return nil
}

// latency returns how late the lines of single transitions come through a pipe, ms.
func (b *bench) latency(n int) (late sample, err error) {
	ready := filepath.Join(b.dir, "ready")
	os.Remove(ready)
	cmd := command(b.tcptrace, "--netns", "self", "-o", "json", "--ready-file", ready)
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	defer func() {
		err = errors.Join(err, cmd.Process.Signal(unix.SIGINT))
		for s := bufio.NewScanner(out); s.Scan(); {
		}
		err = errors.Join(err, cmd.Wait())
	}()
	for {
		if _, err := os.Stat(ready); err == nil {
			break
		}
		if hasEnded(cmd.Process.Pid) {
			return nil, errors.New("tcptrace ended at once")
		}
		time.Sleep(time.Millisecond)
	}
	in := bufio.NewScanner(out)
	for len(late) < n {
		time.Sleep(70 * time.Millisecond)
		// Nobody listens there: CLOSE to SYN_SENT to CLOSE.
		if c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", firstPort)); err == nil {
			c.Close()
			return nil, errors.New("somebody listens")
		}
		for seen := 0; seen < 2; {
			if !in.Scan() {
				return nil, errors.Join(errors.New("tcptrace ended early"), in.Err())
			}
			var l struct {
				Type string
				TS   int64 `json:"ts_ns"`
			}
			if err := json.Unmarshal(in.Bytes(), &l); err != nil {
				return nil, err
			}
			if l.Type == "transition" {
				seen++
				late = append(late, float64(monotonic()-l.TS)/1e6)
			}
		}
	}
	return late, nil
}

func monotonic() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(err) // cannot be: the clock exists since 2.6
	}
	return ts.Nano()
}
