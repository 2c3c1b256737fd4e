//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

func build(t *testing.T, pkg, name string) string {
	t.Helper()
	bin := filepath.Join(t.TempDir(), name)
	cmd := exec.Command("go", "build", "-o", bin, pkg)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("go build %s: %v\n%s", pkg, err, out)
	}
	return bin
}

// tracer returns the tcptrace to show: TCPTRACE_BIN, or one built now.
func tracer(t *testing.T) string {
	t.Helper()
	if bin := os.Getenv("TCPTRACE_BIN"); bin != "" {
		return bin
	}
	return build(t, "../cmd/tcptrace", "tcptrace")
}

var pids = regexp.MustCompile(`(\S+) \(pid (\d+)\)`)

// gone fails the test if a process that the demo named still runs.
func gone(t *testing.T, talk string) {
	t.Helper()
	found := pids.FindAllStringSubmatch(talk, -1)
	if len(found) != 2 {
		t.Fatalf("got %d processes named: want the client and the server\n%s", len(found), talk)
	}
	for _, m := range found {
		pid, err := strconv.Atoi(m[2])
		if err != nil {
			t.Fatal(err)
		}
		if err := syscall.Kill(pid, 0); !errors.Is(err, syscall.ESRCH) {
			t.Errorf("%s (pid %d) is still there: kill: %v", m[1], pid, err)
		}
	}
}

func TestDemo(t *testing.T) {
	scratch := t.TempDir()
	cmd := exec.Command(build(t, ".", "demo"), tracer(t))
	cmd.Env = append(os.Environ(), "TMPDIR="+scratch)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v\n%s%s", err, stderr.Bytes(), stdout.Bytes())
	}
	var into, outOf int
	for line := range strings.Lines(stdout.String()) {
		_, change, _ := strings.Cut(line, " -> ")
		switch {
		case strings.HasPrefix(change, "CLOSE_WAIT"):
			into++
		case strings.Contains(line, "CLOSE_WAIT"):
			outOf++
		default:
			continue
		}
		if !strings.Contains(line, serverName) {
			t.Errorf("a CLOSE_WAIT without its owner: %s", line)
		}
	}
	if into != connections || outOf != connections {
		t.Errorf("got %d lines into CLOSE_WAIT and %d out of it: want %d each\n%s", into, outOf, connections, stdout.Bytes())
	}
	gone(t, stderr.String())
	if left, err := os.ReadDir(scratch); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestDemoKilled ends the demo in the one way that it cannot notice.
func TestDemoKilled(t *testing.T) {
	cmd := exec.Command(build(t, ".", "demo"), tracer(t))
	cmd.Env = append(os.Environ(), "TMPDIR="+t.TempDir())
	stderr, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	// The children hold stderr too: it ends with the last of them.
	if err := stderr.(*os.File).SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	var talk bytes.Buffer
	buf := make([]byte, 4096)
	for len(pids.FindAllString(talk.String(), -1)) < 2 {
		n, err := stderr.Read(buf)
		if err != nil {
			t.Fatalf("%v\n%s", err, talk.Bytes())
		}
		talk.Write(buf[:n])
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	for {
		n, err := stderr.Read(buf)
		talk.Write(buf[:n])
		if err != nil {
			if errors.Is(err, os.ErrDeadlineExceeded) {
				t.Errorf("a child outlived the demo\n%s", talk.Bytes())
			}
			break
		}
	}
	if err := cmd.Wait(); err == nil {
		t.Error("got success: want death by SIGKILL")
	}
}
