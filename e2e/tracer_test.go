package e2e

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Output is what one tracer said.
type Output struct {
	Tier string
	// Started is before the tracer ran at all, Ready when it had attached and
	// taken its snapshot.
	Started, Ready int64
	Lines          []*Line
	// MayMiss: the kernel may run no program for an event (mayMiss).
	MayMiss bool
}

// Tracer is a running tcptrace.
type Tracer struct {
	Output
	cmd      *exec.Cmd
	file     *os.File
	stderr   *bytes.Buffer
	exited   chan struct{}
	err      error // of Wait, when exited is closed
	rest     []byte
	consumed int64 // bytes of the file that were read
	bad      []error
}

// tracerPIDs are the process ids of the tracers of this run.
var tracerPIDs sync.Map

func isTracer(pid int) bool {
	_, ok := tracerPIDs.Load(pid)
	return ok
}

// startTracer runs tcptrace with --hooks tier and waits until it is ready. Its
// output goes to a file in dir.
func startTracer(bin, dir, tier string, args ...string) (*Tracer, error) {
	out := filepath.Join(dir, "out-"+tier)
	ready := filepath.Join(dir, "ready-"+tier)
	file, err := os.OpenFile(out, os.O_RDWR|os.O_CREATE|os.O_EXCL|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	tr := &Tracer{file: file, stderr: &bytes.Buffer{}, exited: make(chan struct{})}
	tr.Tier, tr.Started = tier, now()
	tr.cmd = exec.Command(bin, append([]string{"-o", "json", "--hooks", tier, "--ready-file", ready}, args...)...)
	tr.cmd.Stdout, tr.cmd.Stderr = file, tr.stderr
	if err := tr.cmd.Start(); err != nil {
		file.Close()
		return nil, err
	}
	tracerPIDs.Store(tr.cmd.Process.Pid, true)
	go func() {
		tr.err = tr.cmd.Wait()
		close(tr.exited)
	}()
	if err := waitFile(ready, tr.exited); err != nil {
		tr.cmd.Process.Kill()
		<-tr.exited
		file.Close()
		return nil, fmt.Errorf("tcptrace --hooks %s: %w: %v\n%s", tier, err, tr.err, tr.stderr)
	}
	tr.Ready = now()
	return tr, nil
}

const readyTimeout = 60 * time.Second

// waitFile waits until path exists, or the process has exited.
func waitFile(path string, exited <-chan struct{}) error {
	deadline := time.After(readyTimeout)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for {
		if _, err := os.Stat(path); err == nil {
			return nil
		}
		select {
		case <-exited:
			return errors.New("exited before it was ready")
		case <-deadline:
			return errors.New("not ready in time")
		case <-tick.C:
		}
	}
}

// read takes in the lines that the tracer has written since the last time.
func (tr *Tracer) read() {
	buf := make([]byte, 1<<20)
	for {
		n, err := tr.file.ReadAt(buf, tr.consumed)
		tr.consumed += int64(n)
		tr.take(buf[:n])
		if err == io.EOF {
			return
		}
		if err != nil {
			tr.bad = append(tr.bad, err)
			return
		}
	}
}

// take takes in the part of the file that ends at consumed.
func (tr *Tracer) take(part []byte) {
	part = append(tr.rest, part...)
	for {
		text, rest, whole := bytes.Cut(part, []byte("\n"))
		if !whole {
			tr.rest = bytes.Clone(part)
			return
		}
		l, err := parseLine(text)
		if err != nil {
			tr.bad = append(tr.bad, err)
		} else {
			l.text, l.file, l.off, l.size = nil, tr.file, tr.consumed-int64(len(part)), len(text)
			tr.Lines = append(tr.Lines, l)
		}
		part = rest
	}
}

// stop interrupts the tracer as Ctrl-C does and takes in the rest of its output:
// it must flush and exit with 0.
func (tr *Tracer) stop() error {
	select {
	case <-tr.exited:
		return fmt.Errorf("tcptrace --hooks %s ended early: %v\n%s", tr.Tier, tr.err, tr.stderr)
	default:
	}
	tr.cmd.Process.Signal(syscall.SIGINT)
	select {
	case <-tr.exited:
	case <-time.After(readyTimeout):
		tr.cmd.Process.Kill()
		<-tr.exited
		return fmt.Errorf("tcptrace --hooks %s: no end after SIGINT", tr.Tier)
	}
	tr.read()
	if len(tr.rest) > 0 {
		tr.bad = append(tr.bad, fmt.Errorf("last line is cut: %q", tr.rest))
	}
	if tr.err != nil {
		return fmt.Errorf("tcptrace --hooks %s: %w\n%s", tr.Tier, tr.err, tr.stderr)
	}
	return errors.Join(tr.bad...)
}
