package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"reflect"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/screen"
	watched "github.com/tcptrace/tcptrace/internal/watch"
)

// screenPanic as exit status makes this binary a program whose screen panics.
const screenPanic = "screen-panic"

// panickingScreen shows the screen; SIGUSR1 makes it panic.
func panickingScreen() int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, syscall.SIGUSR1)
	updates := make(chan *watched.Snapshot)
	go func() {
		updates <- &watched.Snapshot{States: events.Set(events.CloseWait), Hooks: "poll"}
		<-asked
		updates <- &watched.Snapshot{States: events.Set(events.CloseWait), Groups: []*watched.Group{nil}}
	}()
	err := screen.Run(ctx, screen.Options{Updates: updates})
	var bug *screen.PanicError
	if !errors.As(err, &bug) {
		fmt.Fprintln(os.Stderr, "ended without a panic:", err)
		return 98
	}
	fmt.Fprintln(os.Stderr, "panicked:", bug.Value)
	return 1
}

// pty is a pseudo-terminal with a program on it.
type pty struct {
	t      *testing.T
	master *os.File
	slave  *os.File
	cmd    *exec.Cmd
	exited chan struct{}

	mu   sync.Mutex
	out  strings.Builder
	seen int // what was waited for ends here
}

// onPTY starts a program on a terminal of 80x24.
func onPTY(t *testing.T, env []string, args ...string) *pty {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	n, err := unix.IoctlGetInt(int(master.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(master.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	slave, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &pty{t: t, master: master, slave: slave, exited: make(chan struct{})}
	p.resize(80, 24)
	p.cmd = exec.Command(args[0], args[1:]...)
	p.cmd.Env = append(append(os.Environ(), "TERM=xterm-256color"), env...)
	p.cmd.Stdin, p.cmd.Stdout, p.cmd.Stderr = slave, slave, slave
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.exited)
	}()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, err := master.Read(buf)
			p.mu.Lock()
			p.out.Write(buf[:n])
			p.mu.Unlock()
			if err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		select {
		case <-p.exited:
		default:
			p.cmd.Process.Kill()
			<-p.exited
		}
		slave.Close()
		master.Close()
	})
	return p
}

func (p *pty) resize(columns, rows uint16) {
	p.t.Helper()
	if err := unix.IoctlSetWinsize(int(p.master.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Col: columns, Row: rows}); err != nil {
		p.t.Fatal(err)
	}
}

// mode is the terminal's settings.
func (p *pty) mode() unix.Termios {
	p.t.Helper()
	mode, err := unix.IoctlGetTermios(int(p.slave.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return *mode
}

func (p *pty) text() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.out.String()
}

// until waits for a text that stands nowhere else, behind what was waited for
// before.
func (p *pty) until(text string) {
	p.t.Helper()
	deadline := time.Now().Add(callTimeout)
	ended := p.exited
	for {
		all := p.text()
		if i := strings.Index(all[p.seen:], text); i >= 0 {
			p.seen += i + len(text)
			return
		}
		select {
		case <-ended:
			// What it wrote last is still on its way to us.
			ended = nil
			deadline = time.Now().Add(2 * time.Second)
		case <-time.After(10 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			p.t.Fatalf("no %q in %q (%v)", text, all, p.cmd.ProcessState)
		}
	}
}

func (p *pty) press(keys string) {
	p.t.Helper()
	if _, err := p.master.WriteString(keys); err != nil {
		p.t.Fatal(err)
	}
}

// wantLeft demands the end with a status, and the terminal as it was.
func (p *pty) wantLeft(before unix.Termios, status int) {
	p.t.Helper()
	select {
	case <-p.exited:
	case <-time.After(callTimeout):
		p.t.Fatalf("does not end: %q", p.text())
	}
	if code := p.cmd.ProcessState.ExitCode(); code != status {
		p.t.Errorf("ended with %v, want status %d: %q", p.cmd.ProcessState, status, p.text())
	}
	if after := p.mode(); !reflect.DeepEqual(after, before) {
		p.t.Errorf("the terminal's mode was %+v, is %+v", before, after)
	}
	p.until("\x1b[?1049l")
	out := p.text()
	for _, mode := range []struct{ name, set, reset string }{
		{"the other screen", "\x1b[?1049h", "\x1b[?1049l"},
		{"bracketed paste", "\x1b[?2004h", "\x1b[?2004l"},
		{"the hidden cursor", "\x1b[?25l", "\x1b[?25h"},
	} {
		set, reset := strings.LastIndex(out, mode.set), strings.LastIndex(out, mode.reset)
		if set < 0 || reset < set {
			p.t.Errorf("%s: set at %d, reset at %d of %q", mode.name, set, reset, out)
		}
	}
}

// TestScreen: the screen of the built program on a terminal, and the terminal after
// it.
func TestScreen(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(p *pty)
	}{
		{"q", func(p *pty) { p.press("q") }},
		{"Ctrl-C", func(p *pty) { p.press("\x03") }},
		{"SIGTERM", func(p *pty) { p.cmd.Process.Signal(unix.SIGTERM) }},
		{"SIGHUP", func(p *pty) { p.cmd.Process.Signal(unix.SIGHUP) }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			leaking(t, "screen", func(t *testing.T, c *C) {
				srv := c.Proc("srv")
				list := c.drained(c.Proc("cli"), c.Listen(srv), c.N)
				c.arrive(t, c.N, list)
				p := onPTY(t, nil, tcptrace, "--watch", "close_wait", "--netns", c.NS.Name())
				before := p.mode()
				p.until(srv.id.Comm)
				p.until(fmt.Sprintf("%d sockets drained", c.N))
				if during := p.mode(); reflect.DeepEqual(during, before) {
					t.Errorf("the screen leaves the terminal's mode as it was: %+v", during)
				}
				p.press("\r") // into the process
				p.until("held by " + srv.id.Comm)
				p.resize(100, 30)
				p.until(list[0].conn.Remote.Addr().String())
				tc.end(p)
				p.wantLeft(before, 0)
			})
		})
	}
	t.Run("panic", func(t *testing.T) {
		t.Parallel()
		p := onPTY(t, []string{envExit + "=" + screenPanic}, "/proc/self/exe")
		before := p.mode()
		p.until("CLOSE_WAIT")
		p.cmd.Process.Signal(unix.SIGUSR1)
		p.wantLeft(before, 1)
		p.until("panicked: runtime error: invalid memory address")
	})
}
