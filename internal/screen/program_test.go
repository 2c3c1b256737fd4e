package screen

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"go.uber.org/goleak"

	"github.com/tcptrace/tcptrace/internal/watch"
)

// terminal is what a program writes to; it can be waited for.
type terminal struct {
	mu   sync.Mutex
	buf  bytes.Buffer
	seen int // what was waited for ends here
	new  chan struct{}
}

func (t *terminal) Write(p []byte) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	select {
	case t.new <- struct{}{}:
	default:
	}
	return t.buf.Write(p)
}

func (t *terminal) String() string {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.buf.String()
}

// wait blocks until the text comes, after what was waited for before. Only cells
// that change are written: it must be a text of which nothing stood there.
func (t *terminal) wait(tb testing.TB, text string) {
	tb.Helper()
	deadline := time.After(20 * time.Second)
	for {
		if i := strings.Index(t.String()[t.seen:], text); i >= 0 {
			t.seen += i + len(text)
			return
		}
		select {
		case <-t.new:
		case <-deadline:
			tb.Fatalf("%q did not come in %q", text, t.String())
		}
	}
}

// program is a running screen without a terminal device.
type program struct {
	out     *terminal
	keys    *io.PipeWriter
	updates chan *watch.Snapshot
	cancel  func()
	ended   chan error
}

func startProgram(t *testing.T, opt Options) *program {
	t.Setenv("TERM", "xterm-256color")
	ctx, cancel := context.WithCancel(t.Context())
	in, keys := io.Pipe()
	p := &program{
		out: &terminal{new: make(chan struct{}, 1)}, keys: keys, cancel: cancel,
		updates: make(chan *watch.Snapshot), ended: make(chan error, 1),
	}
	opt.Updates = p.updates
	go func() {
		p.ended <- run(ctx, opt, in, p.out, tea.WithWindowSize(80, 24), tea.WithFilter(sabotage(cancel)))
		in.Close()
	}()
	t.Cleanup(func() {
		cancel()
		goleak.VerifyNone(t, goleak.IgnoreCurrent())
	})
	return p
}

func (p *program) press(t *testing.T, keys string) {
	t.Helper()
	if _, err := io.WriteString(p.keys, keys); err != nil {
		t.Fatal(err)
	}
}

func (p *program) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		return err
	case <-time.After(20 * time.Second):
		buf := make([]byte, 1<<16)
		t.Fatalf("the program does not end:\n%s", buf[:runtime.Stack(buf, true)])
		return nil
	}
}

// checkLeft fails unless what was set on the terminal was taken back.
func checkLeft(t *testing.T, out string) {
	t.Helper()
	for _, mode := range []string{"?1049", "?2004"} {
		on, off := strings.LastIndex(out, "\x1b["+mode+"h"), strings.LastIndex(out, "\x1b["+mode+"l")
		if on < 0 || off < on {
			t.Errorf("mode %s: set at %d, reset at %d in %q", mode, on, off, out)
		}
	}
	if hide, show := strings.LastIndex(out, "\x1b[?25l"), strings.LastIndex(out, "\x1b[?25h"); hide < 0 || show < hide {
		t.Errorf("cursor: hidden at %d, shown at %d in %q", hide, show, out)
	}
}

func TestProgram(t *testing.T) {
	t.Run("quit", func(t *testing.T) {
		p := startProgram(t, fakeOptions())
		p.updates <- fakeSnapshot()
		p.out.wait(t, "nginx")
		p.press(t, "\x1b[B\r") // down, enter
		p.out.wait(t, "held by java[4321]")
		// A lone escape: what follows within 50 ms would make another key
		// of it.
		p.press(t, "\x1b")
		p.out.wait(t, "java[4321]")
		p.updates <- fakeTimeWait()
		p.out.wait(t, "LOST 1,234 EVENTS")
		p.press(t, "q")
		if err := p.wait(t); err != nil {
			t.Error(err)
		}
		checkLeft(t, p.out.String())
	})
	t.Run("ctrl-c", func(t *testing.T) {
		p := startProgram(t, fakeOptions())
		p.out.wait(t, "Waiting for the first look")
		p.press(t, "\x03")
		if err := p.wait(t); err != nil {
			t.Error(err)
		}
		checkLeft(t, p.out.String())
	})
	t.Run("context", func(t *testing.T) {
		p := startProgram(t, fakeOptions())
		p.updates <- fakeSnapshot()
		p.out.wait(t, "nginx")
		p.cancel()
		if err := p.wait(t); err != nil {
			t.Error(err)
		}
		checkLeft(t, p.out.String())
	})
	t.Run("updates end", func(t *testing.T) {
		p := startProgram(t, fakeOptions())
		p.updates <- fakeSnapshot()
		close(p.updates)
		p.out.wait(t, "ENDED")
		p.press(t, "q")
		if err := p.wait(t); err != nil {
			t.Error(err)
		}
	})
	for key, want := range map[string]string{"U": "nil pointer", "V": "no such cell"} {
		t.Run("panic by "+key, func(t *testing.T) {
			p := startProgram(t, fakeOptions())
			p.updates <- fakeSnapshot()
			p.out.wait(t, "nginx")
			p.press(t, key)
			err := p.wait(t)
			var bug *PanicError
			if !errors.As(err, &bug) || !strings.Contains(err.Error(), want) || !bytes.Contains(bug.Stack, []byte("screen.(*")) {
				t.Errorf("got %v, want a panic about %q", err, want)
			}
			checkLeft(t, p.out.String())
		})
	}
}

// TestColours: with NO_COLOR, on a terminal without colours and by Options no
// colour is sent; reverse still is.
func TestColours(t *testing.T) {
	colours := func(t *testing.T, opt Options) bool {
		p := startProgram(t, opt)
		p.updates <- fakeTimeWait()
		p.out.wait(t, "28232")
		p.press(t, "q")
		if err := p.wait(t); err != nil {
			t.Fatal(err)
		}
		out := p.out.String()
		reverse, coloured := false, false
		for _, seq := range strings.Split(out, "\x1b[")[1:] {
			params, _, isSGR := strings.Cut(seq, "m")
			if !isSGR || strings.Trim(params, "0123456789;") != "" {
				continue
			}
			for n := range strings.SplitSeq(params, ";") {
				reverse = reverse || n == "7"
				coloured = coloured || len(n) == 2 && strings.ContainsAny(n[:1], "349")
			}
		}
		if !reverse {
			t.Errorf("no reverse in %q", out)
		}
		return coloured
	}
	t.Setenv("NO_COLOR", "")
	if !colours(t, fakeOptions()) {
		t.Error("there are no colours at all")
	}
	opt := fakeOptions()
	opt.NoColor = true
	if colours(t, opt) {
		t.Error("colours in spite of the option")
	}
	t.Setenv("NO_COLOR", "1")
	if colours(t, fakeOptions()) {
		t.Error("colours in spite of NO_COLOR")
	}
}

func TestRunWithoutTerminal(t *testing.T) {
	file, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if err := Run(t.Context(), Options{In: file, Out: file}); !errors.Is(err, ErrNoTerminal) {
		t.Errorf("got %v, want %v", err, ErrNoTerminal)
	}
	if info, err := file.Stat(); err != nil || info.Size() != 0 {
		t.Errorf("wrote %d bytes, %v", info.Size(), err)
	}
}

// TestRefreshIsSmall: over a slow line only what changed is sent.
func TestRefreshIsSmall(t *testing.T) {
	p := startProgram(t, fakeOptions())
	s := fakeMany(10000)
	p.updates <- s
	p.out.wait(t, "leaky")
	p.press(t, "\r")
	p.out.wait(t, "held by leaky[4242]")
	first := len(p.out.String())
	const rounds = 5
	for i := range rounds {
		next := *s
		next.TS += int64(i+1) * second
		p.updates <- &next
		// The time of day ends in another digit.
		p.out.wait(t, string(rune('2'+i)))
	}
	p.press(t, "q")
	if err := p.wait(t); err != nil {
		t.Fatal(err)
	}
	if sent := len(p.out.String()) - first; sent > rounds*80 {
		t.Errorf("%d refreshes without a change sent %d bytes: %q", rounds, sent, p.out.String()[first:])
	}
}
