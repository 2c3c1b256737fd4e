package screen

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"sync"
	"syscall"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/colorprofile"
	"golang.org/x/term"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// Options says what the screen shows, and where.
type Options struct {
	// Updates brings the snapshots, which belong to the screen from then on
	// and must not change. When it is closed the last one stays, marked as
	// ENDED, until the reader quits or the context ends.
	Updates <-chan *watch.Snapshot
	// Title is the first line's text; empty: "tcptrace --watch" and the states.
	Title string
	// Filters tells the filters in force, as they were given.
	Filters string
	// In and Out are the terminal; nil stands for stdin and stdout. Where In
	// is none, keys are read from the controlling terminal.
	In, Out *os.File
	// NoColor forbids colours; so does the environment's NO_COLOR.
	NoColor bool
	// Refresh is the time between two snapshots. 0: not known; then nothing
	// says that a snapshot is overdue.
	Refresh time.Duration
	// Clock turns the snapshot's time into the time of day, shown in Location
	// (nil: local).
	Clock    events.Clock
	Location *time.Location
}

// PanicError is a panic in the screen's own code. The terminal has been restored.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string {
	return fmt.Sprintf("panic in the screen: %v\n%s", e.Value, e.Stack)
}

// ErrNoTerminal is returned where the output is no terminal.
var ErrNoTerminal = errors.New("output is not a terminal")

// Run shows the screen until its reader quits (q, Ctrl-C), the context ends, or
// SIGINT, SIGTERM or SIGHUP arrives; all of these return nil. The terminal is then
// as it was before, and so it is when an error is returned, a *PanicError
// included.
func Run(ctx context.Context, opt Options) error {
	return start(ctx, opt)
}

func start(ctx context.Context, opt Options, more ...tea.ProgramOption) error {
	if opt.In == nil {
		opt.In = os.Stdin
	}
	if opt.Out == nil {
		opt.Out = os.Stdout
	}
	if !term.IsTerminal(int(opt.Out.Fd())) {
		return fmt.Errorf("screen: %w", ErrNoTerminal)
	}
	var in io.Reader = opt.In
	if !term.IsTerminal(int(opt.In.Fd())) {
		tty, err := openKeyboard()
		if err != nil {
			return fmt.Errorf("screen: %w", err)
		}
		defer tty.Close()
		in = tty
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM, syscall.SIGHUP)
	defer stop()
	return run(ctx, opt, in, opt.Out, more...)
}

func openKeyboard() (*os.File, error) {
	tty, err := os.OpenFile("/dev/tty", os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("input is not a terminal: %w", err)
	}
	return tty, nil
}

// profile chooses the colours: few, since the reader chose the terminal's.
func profile(noColor bool) colorprofile.Profile {
	if t := os.Getenv("TERM"); noColor || os.Getenv("NO_COLOR") != "" || t == "" || t == "dumb" {
		return colorprofile.ASCII
	}
	return colorprofile.ANSI
}

// run shows the screen until its reader quits or ctx ends.
func run(ctx context.Context, opt Options, in io.Reader, out io.Writer, more ...tea.ProgramOption) error {
	g := &guard{model: newModel(opt), failed: make(chan struct{})}
	p := tea.NewProgram(g, append([]tea.ProgramOption{
		tea.WithInput(in),
		tea.WithOutput(out),
		tea.WithoutSignalHandler(),
		tea.WithColorProfile(profile(opt.NoColor)),
		tea.WithFPS(30),
	}, more...)...)

	done := make(chan struct{})
	var feeding sync.WaitGroup
	feeding.Go(func() { feed(ctx, p, opt, g.failed, done) })
	_, err := p.Run()
	close(done)
	feeding.Wait()
	if g.err != nil {
		return g.err
	}
	if err != nil {
		return fmt.Errorf("screen: %w", err)
	}
	return nil
}

// feed sends the program what comes from outside, until it is done.
func feed(ctx context.Context, p *tea.Program, opt Options, failed, done <-chan struct{}) {
	var ticks <-chan time.Time
	if opt.Refresh > 0 {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		ticks = t.C
	}
	updates := opt.Updates
	for {
		select {
		case <-done:
			return
		case <-failed:
			p.Quit()
			return
		case <-ctx.Done():
			p.Quit()
			return
		case now := <-ticks:
			p.Send(tickMsg(now))
		case snap, ok := <-updates:
			if !ok {
				updates = nil
				p.Send(endMsg{})
				continue
			}
			if snap != nil {
				p.Send(snapshotMsg{snap, time.Now()})
			}
		}
	}
}

// guard ends the program when the model panics, the terminal being restored on
// the way, and keeps the panic for the caller.
type guard struct {
	*model
	err    *PanicError
	failed chan struct{}
}

func (g *guard) recover() {
	if v := recover(); v != nil {
		g.fail(v)
	}
}

func (g *guard) fail(v any) {
	if g.err == nil {
		g.err = &PanicError{Value: v, Stack: debug.Stack()}
		close(g.failed)
	}
}

// Update implements tea.Model.
func (g *guard) Update(msg tea.Msg) (m tea.Model, cmd tea.Cmd) {
	m = g
	if g.err != nil {
		return g, tea.Quit
	}
	defer g.recover()
	_, cmd = g.model.Update(msg)
	return g, cmd
}

// View implements tea.Model.
func (g *guard) View() (v tea.View) {
	v.AltScreen = true
	if g.err != nil {
		return v
	}
	defer g.recover()
	return g.model.View()
}
