package main

import (
	"context"
	"errors"
	"io/fs"
	"maps"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/netns"
	"github.com/tcptrace/tcptrace/internal/owner"
	"github.com/tcptrace/tcptrace/internal/screen"
	"github.com/tcptrace/tcptrace/internal/tracer"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// runWatch shows the sockets in the watched states, again and again.
func runWatch(ctx context.Context, opt *options, std stdio) error {
	if err := checkPIDs(opt.filter.PIDs); err != nil {
		return err
	}
	g, err := prepare(opt)
	if err != nil {
		return err
	}
	defer g.close()
	cfg := watchConfig(tracerConfig(opt, g.namespaces, std), opt)
	if opt.once {
		cfg.Snapshot = opt.failOn == nil && opt.write == ""
		defer collectLate()()
	}
	_, isTerminal := terminal(std.out)
	onScreen := isTerminal && !opt.once && !opt.json && opt.command == nil
	notes := &noteList{}
	if onScreen {
		cfg.Warn = notes.add
	}
	tr, err := tracer.Open(cfg)
	if err != nil {
		return err
	}
	defer tr.Close()

	clock, start := monotonic()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd, scope := g.command(opt, std)
	if cmd != nil {
		defer cmd.close()
	}
	if !onScreen { // which sees to them itself
		stopSignals := handleSignals(cmd, cancel)
		defer stopSignals()
	}
	if opt.duration > 0 {
		timer := time.AfterFunc(opt.duration, cancel)
		defer timer.Stop()
	}
	watchStdout(ctx, std.out, cancel)

	header := traceHeader(opt, tr.Hooks(), start)
	rec, lookup, err := g.record(opt, std, header, clock, scope)
	if err != nil {
		return err
	}
	if rec != nil {
		defer rec.Abort()
	}
	storeConfig, processes, err := traceWatch(opt, tr.Hooks(), lookup, rec)
	if err != nil {
		return err
	}
	storeConfig.States, storeConfig.Walked = opt.watch, walkedStates(opt.watch)
	w := &watcher{opt: opt, processes: processes, rec: rec, warn: cfg.Warn, status: newStatus(opt)}
	switch {
	case onScreen:
		defer w.status.onSignal(nil)()
	case cmd == nil:
		defer w.status.onSignal(std.err)()
	}
	w.store = watch.NewStore(storeConfig)
	judged, err := traceJudging(opt, std, clock, tr.Hooks(), lookup, rec)
	if err != nil {
		return err
	}
	if judged != nil {
		w.judged = judged
		judged.notes = nil // the answers have them
	}
	first := true
	trace := func(ctx context.Context) error {
		err := tr.Run(ctx, func(records []events.Record) error {
			if first {
				first = false
				if err := begin(ctx, opt, cmd, cancel); err != nil {
					return err
				}
			}
			if scope != nil {
				for i := range records {
					scope.Add(&records[i])
				}
			}
			return w.add(ctx, records)
		})
		if errors.Is(err, errDone) {
			return nil
		}
		return err
	}
	if onScreen {
		err = w.onScreen(ctx, trace, clock, notes)
	} else {
		out := newWatch(opt, std, clock)
		out.Header(header)
		w.show = out.Snapshot
		err = trace(ctx)
	}
	judged.end(clockNS(unix.CLOCK_MONOTONIC))
	err = quietly(err)
	if w.rec != nil {
		err = quietly(w.rec.finish(err, std.err))
	}
	tr.Close()
	return judged.conclude(err, finishCommand(cmd, err, std))
}

// collectLate puts garbage collection off while the heap is small, until the function
// that it returns is called: what looks once is over before it pays.
func collectLate() (undo func()) {
	percent, limit := debug.SetGCPercent(-1), debug.SetMemoryLimit(256<<20)
	return func() {
		debug.SetMemoryLimit(limit)
		debug.SetGCPercent(percent)
	}
}

// watcher turns the records of walks into answers.
type watcher struct {
	opt       *options
	store     *watch.Store
	processes *owner.Processes
	rec       *recording // nil: none
	judged    *judging   // nil: none
	warn      func(string)
	status    *status
	show      func(*watch.Snapshot) error
	shown     uint64
	last      int64 // time of the last answer
}

func (w *watcher) add(ctx context.Context, records []events.Record) error {
	walked := false
	for i := range records {
		if w.rec != nil {
			w.rec.before(&records[i])
			w.rec.Record(&records[i])
		}
		w.store.Add(&records[i])
		w.judged.add(&records[i])
		walked = walked || records[i].Kind == events.KindHoldersEnd
	}
	w.status.add(records)
	w.status.connections.Store(uint64(w.store.Len()))
	w.status.forgotten.Store(w.store.Refused())
	// An answer follows a walk, when it is whole; the one of the end is not asked
	// for.
	if !walked || (ctx.Err() != nil && w.shown > 0) {
		return w.endBatch()
	}
	at := clockNS(unix.CLOCK_MONOTONIC)
	// The judge may want more walks than answers are asked for.
	if w.shown > 0 && at-w.last < int64(interval(w.opt)-watchInterval(w.opt)/2) {
		return w.endBatch()
	}
	w.last = at
	snap := w.store.Snapshot(at)
	w.status.untracked.Store(snap.Untracked)
	if w.rec != nil {
		w.rec.look(at)
	}
	if err := w.endBatch(); err != nil {
		return err
	}
	for _, note := range w.processes.Notes() {
		w.warn(note)
	}
	if err := w.show(snap); err != nil {
		return err
	}
	w.shown++
	if w.opt.once || (w.opt.count > 0 && w.shown >= w.opt.count) {
		return errDone
	}
	return nil
}

func (w *watcher) endBatch() error {
	if w.rec == nil {
		return nil
	}
	return w.rec.explain(w.rec.EndBatch())
}

// onScreen shows the answers on the live screen, until its reader quits or the
// trace ends.
func (w *watcher) onScreen(ctx context.Context, trace func(context.Context) error, clock events.Clock, notes *noteList) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	updates := make(chan *watch.Snapshot)
	w.show = func(snap *watch.Snapshot) error {
		snap.Notes = notes.list()
		select {
		case updates <- snap:
		case <-ctx.Done():
		}
		return nil
	}
	traced := make(chan error, 1)
	go func() {
		defer cancel()
		traced <- trace(ctx)
	}()
	err := screen.Run(ctx, screen.Options{
		Updates: updates,
		Filters: filterText(w.opt.filters),
		NoColor: w.opt.color == "never",
		Refresh: interval(w.opt),
		Clock:   clock,
	})
	cancel()
	return errors.Join(err, <-traced)
}

// maxNotes bounds a noteList: the first ones tell what is the matter.
const maxNotes = 100

// noteList collects what cannot be said while the screen is up.
type noteList struct {
	mu    sync.Mutex
	texts []string
}

func (n *noteList) add(text string) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if len(n.texts) < maxNotes {
		n.texts = append(n.texts, text)
	}
}

func (n *noteList) list() []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	return slices.Clone(n.texts)
}

// filterText writes the filters as they may be given again.
func filterText(filters map[string]string) string {
	var words []string
	for _, name := range slices.Sorted(maps.Keys(filters)) {
		switch name {
		case "watch":
		case "ipv4", "ipv6":
			words = append(words, "--"+name)
		default:
			words = append(words, "--"+name+" "+filters[name])
		}
	}
	return strings.Join(words, " ")
}

// watchConfig narrows what the kernel side hands over to what a watch needs.
func watchConfig(cfg tracer.Config, opt *options) tracer.Config {
	cfg = narrow(cfg, opt.watch|opt.failStates())
	cfg.Walk = watchInterval(opt)
	return cfg
}

// watchInterval returns the time between two walks.
func watchInterval(opt *options) time.Duration {
	if opt.failOn == nil {
		return interval(opt)
	}
	return min(interval(opt), opt.judgeInterval())
}

// narrow restricts what the kernel side hands over to what is to be known of the
// sockets in some states.
func narrow(cfg tracer.Config, states events.StateSet) tracer.Config {
	cfg.States = states
	cfg.WalkStates = walkedStates(states)
	if states.Has(events.TimeWait) {
		cfg.States |= events.Set(events.FinWait1) // which tells who closed
	}
	return cfg
}

// checkPIDs refuses processes that are not there: a watch is about what is now.
func checkPIDs(pids []uint32) error {
	for _, pid := range pids {
		if _, err := os.Stat("/proc/" + strconv.FormatUint(uint64(pid), 10)); errors.Is(err, fs.ErrNotExist) {
			return usageErrorf("invalid argument \"%d\" for \"--pid\" flag: no such process; want one that runs now", pid)
		}
	}
	return nil
}

// portRanges remembers the port ranges of network namespaces for a while.
type portRanges struct {
	known map[uint32]knownRange
	all   map[uint32]netns.NS
	read  time.Time // of all
}

type knownRange struct {
	watch.PortRange
	ok bool
	at time.Time
}

// rangeLasts is how long a range is taken to be as it was read.
const rangeLasts = 10 * time.Second

func newPortRanges() *portRanges { return &portRanges{known: make(map[uint32]knownRange)} }

// of returns the range of the namespace, false where it cannot be read.
func (p *portRanges) of(inode uint32) (watch.PortRange, bool) {
	at := time.Now()
	if k, ok := p.known[inode]; ok && at.Sub(k.at) < rangeLasts {
		return k.PortRange, k.ok
	}
	if at.Sub(p.read) >= rangeLasts {
		clear(p.known)
		p.read = at
		// Without the list every range is unknown.
		if p.all, _ = netns.List(); p.all != nil {
			_ = netns.Threads(p.all)
		}
	}
	k := knownRange{at: at}
	if ns, ok := p.all[inode]; ok {
		err := netns.Do(ns, func() (err error) {
			// The files are those of the namespace of the thread that opens them.
			k.PortRange, err = owner.PortRange("/proc")
			return err
		})
		k.ok = err == nil
	}
	p.known[inode] = k
	return k.PortRange, k.ok
}
