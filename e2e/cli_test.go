package e2e

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/testnet"
)

// exitCommand is this binary as the command that tcptrace starts: it makes
// connections or leaks sockets if it is told where, starts itself again if it is told
// to, and ends with the status, or by the signal after "signal". Or it shows the
// screen until that panics.
func exitCommand(code string) {
	if code == screenPanic {
		os.Exit(panickingScreen())
	}
	if code == privateMounts {
		if err := inPrivateMounts(os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(97)
		}
		os.Exit(0)
	}
	leaks := os.Getenv(envLeaks) != ""
	if path := os.Getenv(envExit + "_NETNS"); path != "" && !leaks {
		if err := commandConnects(path, os.Getenv(envExit+"_ADDR")); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
	}
	if n, _ := strconv.Atoi(os.Getenv(envExit + "_DEPTH")); n > 0 {
		child := exec.Command("/proc/self/exe")
		child.Env = append(os.Environ(), fmt.Sprintf("%s_DEPTH=%d", envExit, n-1))
		child.Stderr = os.Stderr
		child.Run() // its status is the grandchild's, which is not 0 by design
	} else if leaks {
		if err := commandLeaks(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(99)
		}
	}
	if sig, ok := strings.CutPrefix(code, "signal"); ok {
		n, _ := strconv.Atoi(sig)
		syscall.Kill(os.Getpid(), syscall.Signal(n))
		select {}
	}
	n, err := strconv.Atoi(code)
	if err != nil {
		n = 99
	}
	os.Exit(n)
}

// commandConnects is refused by addr in the namespace, prime times.
func commandConnects(path, addr string) error {
	runtime.LockOSThread() // until the process ends: the thread is in the namespace
	a := &actor{}
	req := &request{Op: "connect", NetNS: path, Addrs: []string{addr}, N: prime}
	if err := a.prepare(req); err != nil {
		return err
	}
	resp := &response{}
	if err := a.connect(req, resp); err != nil {
		return err
	}
	for _, errno := range resp.Errnos {
		if syscall.Errno(errno) != syscall.ECONNREFUSED {
			return fmt.Errorf("connect to %s: %v", addr, syscall.Errno(errno))
		}
	}
	return nil
}

// refusing binds a port of the namespace's loopback, which refuses.
func refusing(t *testing.T, ns *testnet.NS) netip.AddrPort {
	t.Helper()
	var addr netip.AddrPort
	err := ns.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		t.Cleanup(func() { unix.Close(fd) })
		if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		addr = netip.MustParseAddrPort(localAddr(fd))
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return addr
}

// connectRefused is refused n times. Each time makes two transitions and one
// closed line.
func connectRefused(t *testing.T, ns *testnet.NS, addr netip.AddrPort, n int) {
	t.Helper()
	err := ns.Do(func() error {
		for range n {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return err
			}
			err = unix.Connect(fd, sockaddr(addr, false))
			unix.Close(fd)
			if !errors.Is(err, unix.ECONNREFUSED) {
				return fmt.Errorf("connect: %v", err)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// tool is a started tcptrace with its output in pipes.
type tool struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout io.ReadCloser
	stderr bytes.Buffer
	exited chan struct{}
	ready  string
}

const toolTimeout = 60 * time.Second

func startTool(t *testing.T, env []string, args ...string) *tool {
	t.Helper()
	tl := &tool{t: t, exited: make(chan struct{}), ready: filepath.Join(t.TempDir(), "ready")}
	tl.cmd = exec.Command(tcptrace, append([]string{"--ready-file", tl.ready}, args...)...)
	tl.cmd.Env = append(os.Environ(), env...)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	tl.stdout, tl.cmd.Stdout, tl.cmd.Stderr = r, w, &tl.stderr
	if err := tl.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	go func() {
		tl.cmd.Wait()
		close(tl.exited)
	}()
	t.Cleanup(func() {
		r.Close()
		select {
		case <-tl.exited:
		default:
			tl.cmd.Process.Kill()
			<-tl.exited
		}
	})
	return tl
}

func (tl *tool) waitReady() {
	tl.t.Helper()
	if err := waitFile(tl.ready, tl.exited); err != nil {
		tl.t.Fatalf("%v: %s", err, &tl.stderr)
	}
}

// wait waits for the end and returns the exit status.
func (tl *tool) wait() syscall.WaitStatus {
	tl.t.Helper()
	select {
	case <-tl.exited:
	case <-time.After(toolTimeout):
		tl.t.Fatalf("does not end; stderr: %s", &tl.stderr)
	}
	return tl.cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func (tl *tool) wantStatus(code int) {
	tl.t.Helper()
	if ws := tl.wait(); !ws.Exited() || ws.ExitStatus() != code {
		tl.t.Errorf("ended with %v, want exit status %d; stderr: %s", tl.cmd.ProcessState, code, &tl.stderr)
	}
}

// lines reads the output to its end.
func (tl *tool) lines() []*Line {
	tl.t.Helper()
	text, err := io.ReadAll(tl.stdout)
	if err != nil {
		tl.t.Fatal(err)
	}
	if len(text) > 0 && text[len(text)-1] != '\n' {
		tl.t.Errorf("last line is cut: %q", text[max(0, len(text)-200):])
	}
	var lines []*Line
	for _, raw := range bytes.Split(bytes.TrimSuffix(text, []byte("\n")), []byte("\n")) {
		l, err := parseLine(raw)
		if err != nil {
			tl.t.Fatal(err)
		}
		lines = append(lines, l)
	}
	return lines
}

func count(lines []*Line, kind string) int {
	n := 0
	for _, l := range lines {
		if l.Type == kind {
			n++
		}
	}
	return n
}

// TestSignals: SIGINT and SIGTERM are normal ends: what happened before is
// said, in whole lines, and the status is 0.
func TestSignals(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(unix.SignalName(sig), func(t *testing.T) {
			ns := testnet.NewNS(t, "e2e-signal")
			addr := refusing(t, ns)
			tl := startTool(t, nil, "-o", "json", "--netns", ns.Name())
			tl.waitReady()
			connectRefused(t, ns, addr, prime)
			tl.cmd.Process.Signal(sig)
			lines := tl.lines()
			tl.wantStatus(0)
			if got, want := count(lines, "transition"), 2*prime; got != want {
				t.Errorf("%d transitions, want %d", got, want)
			}
			if got := count(lines, "closed"); got != prime {
				t.Errorf("%d closed, want %d", got, prime)
			}
			if tl.stderr.Len() != 0 && strings.Contains(tl.stderr.String(), "error") {
				t.Errorf("stderr: %s", &tl.stderr)
			}
		})
	}
}

// TestStdoutClosed: a reader that has enough, such as head -1, ends the program
// quietly.
func TestStdoutClosed(t *testing.T) {
	for _, format := range []string{"json", "text"} {
		t.Run(format, func(t *testing.T) {
			ns := testnet.NewNS(t, "e2e-head")
			addr := refusing(t, ns)
			tl := startTool(t, nil, "-o", format, "--netns", ns.Name())
			tl.waitReady()
			connectRefused(t, ns, addr, 1)
			if _, err := bufio.NewReaderSize(tl.stdout, 16).ReadString('\n'); err != nil {
				t.Fatal(err)
			}
			tl.stdout.Close()
			ctx, cancel := context.WithTimeout(context.Background(), toolTimeout)
			defer cancel()
			for done := false; !done && ctx.Err() == nil; {
				connectRefused(t, ns, addr, 1)
				select {
				case <-tl.exited:
					done = true
				case <-time.After(20 * time.Millisecond):
				}
			}
			if ws := tl.wait(); !(ws.Exited() && ws.ExitStatus() == 0) && !(ws.Signaled() && ws.Signal() == syscall.SIGPIPE) {
				t.Errorf("ended with %v", tl.cmd.ProcessState)
			}
			if tl.stderr.Len() != 0 {
				t.Errorf("not quiet: %s", &tl.stderr)
			}
		})
	}
}

// TestCommandStatus: tcptrace ends as its command does, and as shells do where
// it cannot be run.
func TestCommandStatus(t *testing.T) {
	ns := testnet.NewNS(t, "e2e-command")
	plain := filepath.Join(t.TempDir(), "plain")
	if err := os.WriteFile(plain, []byte("no program"), 0o644); err != nil {
		t.Fatal(err)
	}
	cases := []struct {
		name, command, exit string
		want                int
	}{
		{"success", "/proc/self/exe", "0", 0},
		{"status", "/proc/self/exe", "7", 7},
		{"killed", "/proc/self/exe", "signal9", 128 + 9},
		{"not found", "/nonexistent/program", "0", 127},
		{"not found in PATH", "tcptrace-no-such-program", "0", 127},
		{"not executable", plain, "0", 126},
		{"directory", "/proc", "0", 126},
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range cases {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			command := tc.command
			if command == "/proc/self/exe" {
				command = self
			}
			tl := startTool(t, []string{envExit + "=" + tc.exit}, "-o", "json", "--netns", ns.Name(), "--", command)
			go io.Copy(io.Discard, tl.stdout)
			tl.wantStatus(tc.want)
			if tc.want >= 126 && tc.want <= 127 && !strings.HasPrefix(tl.stderr.String(), "tcptrace: error: ") {
				t.Errorf("stderr is %q, want an error", &tl.stderr)
			}
		})
	}
}

// TestCommandTraced: with a command, what it and its descendants open is
// traced, and nothing else.
func TestCommandTraced(t *testing.T) {
	ns := testnet.NewNS(t, "e2e-command")
	theirs, others := refusing(t, ns), refusing(t, ns)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	const depth = 2
	tl := startTool(t, []string{envExit + "=7", envExit + "_NETNS=" + ns.Path(), envExit + "_ADDR=" + theirs.String(),
		fmt.Sprintf("%s_DEPTH=%d", envExit, depth)}, "-o", "json", "--netns", ns.Name(), "--", self)
	tl.waitReady()
	connectRefused(t, ns, others, prime)
	lines := tl.lines()
	tl.wantStatus(7)
	pids := map[int]int{}
	for _, l := range lines[1:] {
		if l.RPort == nil || *l.RPort != theirs.Port() {
			t.Errorf("not of the command: %s", l.raw())
		} else if l.Type == "closed" && l.PID != nil {
			pids[*l.PID]++
		}
	}
	if got, want := count(lines, "transition"), 2*prime*(depth+1); got != want {
		t.Errorf("%d transitions, want %d", got, want)
	}
	if len(pids) != depth+1 {
		t.Errorf("connections by process: %v, want %d processes", pids, depth+1)
	}
	for pid, n := range pids {
		if n != prime {
			t.Errorf("%d connections of process %d, want %d", n, pid, prime)
		}
	}
	if t.Failed() {
		t.Logf("last line: %s\nstderr: %s", lines[len(lines)-1].raw(), &tl.stderr)
		for _, l := range lines[1:] {
			if l.Type != "transition" && l.Type != "closed" {
				t.Logf("%s", l.raw())
			}
		}
	}
}

// TestDuration and TestCount: the program ends by itself.
func TestDuration(t *testing.T) {
	ns := testnet.NewNS(t, "e2e-duration")
	const d = 700 * time.Millisecond
	tl := startTool(t, nil, "-o", "json", "--netns", ns.Name(), "--duration", d.String())
	tl.waitReady()
	start := time.Now()
	lines := tl.lines()
	tl.wantStatus(0)
	if took := time.Since(start); took < d/2 || took > d+10*time.Second {
		t.Errorf("ended %v after it was ready, want %v", took, d)
	}
	if len(lines) != 1 || lines[0].Type != "header" {
		t.Errorf("%d lines, want a header only", len(lines))
	}
}

func TestCount(t *testing.T) {
	ns := testnet.NewNS(t, "e2e-count")
	addr := refusing(t, ns)
	const n = 7
	tl := startTool(t, nil, "-o", "json", "--netns", ns.Name(), "--count", strconv.Itoa(n))
	tl.waitReady()
	connectRefused(t, ns, addr, prime)
	lines := tl.lines()
	tl.wantStatus(0)
	if got := len(lines) - 1; got != n {
		t.Errorf("%d lines after the header, want %d", got, n)
	}
}

// TestUsageErrors: 2, and the error names the flag and the value.
func TestUsageErrors(t *testing.T) {
	cases := [][]string{
		{"--state", "no_such"},
		{"--port", "70000"},
		{"--port", "9-8"},
		{"--local", "10.0.0.0/99"},
		{"--netns", "no-such-namespace"},
		{"--hooks", "magic"},
		{"--count", "-5"},
		{"--output", "xml"},
	}
	for _, args := range cases {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			t.Parallel()
			tl := startTool(t, nil, args...)
			go io.Copy(io.Discard, tl.stdout)
			tl.wantStatus(2)
			msg := tl.stderr.String()
			if !strings.HasPrefix(msg, "tcptrace: error: ") || !strings.Contains(msg, args[0]) || !strings.Contains(msg, args[1]) {
				t.Errorf("stderr is %q, want an error that names %s", msg, args)
			}
		})
	}
	t.Run("-4 -6", func(t *testing.T) {
		tl := startTool(t, nil, "-4", "-6", "--duration", "1ms")
		go io.Copy(io.Discard, tl.stdout)
		tl.wantStatus(2)
	})
}

// TestUnprivileged: without root the error says what is missing and what to do.
func TestUnprivileged(t *testing.T) {
	// The binary may lie where only root can go.
	exe, err := os.Open(tcptrace)
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	var stdout, stderr bytes.Buffer
	cmd := exec.Command("/proc/self/fd/3", "--duration", "1s")
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	err = cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 1 {
		t.Errorf("ended with %v, want exit status 1", err)
	}
	for _, want := range []string{"tcptrace: error: ", "CAP_", "tcptrace: hint: ", "sudo"} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("stderr lacks %q: %s", want, &stderr)
		}
	}
	if stdout.Len() != 0 {
		t.Errorf("stdout: %s", &stdout)
	}
}
