package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/cgroup"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/facts"
	"github.com/tcptrace/tcptrace/internal/filter"
	"github.com/tcptrace/tcptrace/internal/hint"
	"github.com/tcptrace/tcptrace/internal/netns"
	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/tracer"
)

// runStream shows transitions as they happen.
func runStream(ctx context.Context, opt *options, std stdio) error {
	g, err := prepare(opt)
	if err != nil {
		return err
	}
	defer g.close()
	cfg := tracerConfig(opt, g.namespaces, std)
	if opt.leaksOnly && opt.write == "" {
		cfg = narrow(cfg, opt.failStates())
	}
	cfg.Walk = opt.judgeInterval()
	// What is there at the end is part of the account, also of one that is made of
	// the recording.
	cfg.LastWalk = opt.summary || opt.write != ""
	tr, err := tracer.Open(cfg)
	if err != nil {
		return err
	}
	defer tr.Close()

	clock, start := monotonic()
	var out render.Stream = silent{}
	var sum *summary
	switch {
	case opt.summary:
		sum = newSummary(opt, std, clock, tr.Hooks(), start)
		out = sum
	case !opt.quiet:
		out = newStream(opt, std, clock)
	}
	s := newSink(opt, out)
	table := aggregate.New(aggregate.Config{Hooks: aggregateHooks(tr.Hooks()), MaxConns: opt.maxConns}, s)

	header := traceHeader(opt, tr.Hooks(), start)
	out.Header(header)
	// A command runs also where nobody reads about it.
	if err := out.Flush(); err != nil && (opt.command == nil || quietly(err) != nil) {
		return quietly(err)
	}

	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	cmd, scope := g.command(opt, std)
	if cmd != nil {
		defer cmd.close()
	}
	rec, lookup, err := g.record(opt, std, header, clock, scope)
	if err != nil {
		return err
	}
	if rec != nil {
		defer rec.Abort()
	}
	s.cgroup = lookup
	judged, err := traceJudging(opt, std, clock, tr.Hooks(), s.cgroup, rec)
	if err != nil {
		return err
	}
	var kernel func(netns uint32) (facts.Kernel, bool)
	if sum != nil || rec != nil {
		kernel = newKernelSpaces(opt.filter.NetNS).of
	}
	if rec != nil {
		kernel = rec.kernel(kernel)
	}
	if sum != nil {
		cfg, _, err := traceWatch(opt, tr.Hooks(), s.cgroup, rec)
		if err != nil {
			return err
		}
		sum.watch(cfg, kernel, &opt.filter)
	}
	// Lines that nobody sees are made only to count them.
	lines := !opt.quiet || s.limited
	stopSignals := handleSignals(cmd, cancel)
	defer stopSignals()
	status := newStatus(opt)
	if cmd == nil {
		defer status.onSignal(std.err)()
	}
	first := true
	err = tr.Run(ctx, func(records []events.Record) error {
		// The first batch holds the snapshot: what comes from now on is seen
		// from its beginning. Nothing is written before: who waits to be told
		// may not read yet.
		if first {
			first = false
			if err := begin(ctx, opt, cmd, cancel); err != nil {
				return err
			}
			watchStdout(ctx, std.out, cancel)
		}
		for i := range records {
			r := &records[i]
			if scope != nil {
				scope.Add(r)
			}
			if rec != nil {
				rec.before(r)
			}
			if lines {
				table.Add(r)
			}
			sum.add(r)
			judged.add(r)
			if rec != nil {
				rec.Record(r)
			}
		}
		status.add(records)
		stats := table.Stats()
		status.connections.Store(uint64(table.Len()))
		status.forgotten.Store(stats.Forgotten)
		status.untracked.Store(stats.Untracked)
		if rec != nil {
			sum.ask()
			if err := rec.EndBatch(); err != nil {
				return rec.explain(err)
			}
		}
		if err := out.Flush(); err != nil {
			return err
		}
		if s.done() {
			return errDone
		}
		return nil
	})
	tr.Close()
	switch {
	case errors.Is(err, errDone):
		err = nil
	case err == nil:
		// What waited for more to come of it.
		table.Flush()
		err = out.Flush()
	}
	judged.end(clockNS(unix.CLOCK_MONOTONIC))
	sum.end(table, s)
	err = quietly(err)
	if rec != nil && sum == nil && err == nil {
		rec.namespaces(kernel, rec.ports(newPortRanges().of))
	}
	if rec != nil {
		err = quietly(rec.finish(err, std.err))
	}
	if showErr := quietly(sum.show()); err == nil {
		err = showErr
	}
	return judged.conclude(err, finishCommand(cmd, err, std))
}

// begin tells who waits for it that everything is traced, and starts the command
// and the clock of --duration.
func begin(ctx context.Context, opt *options, cmd *command, end func()) error {
	if opt.readyFile != "" {
		if err := writeReady(opt.readyFile); err != nil {
			return err
		}
	}
	if cmd != nil && ctx.Err() == nil {
		if err := cmd.start(end); err != nil {
			return err
		}
	}
	if opt.duration > 0 {
		timer := time.AfterFunc(opt.duration, end)
		context.AfterFunc(ctx, func() { timer.Stop() })
	}
	return nil
}

func tracerConfig(opt *options, namespaces []netns.NS, std stdio) tracer.Config {
	cfg := tracer.Config{
		Hooks:       opt.hooks,
		BufferBytes: opt.buffer,
		Family:      opt.filter.Family,
		NetNS:       namespaces,
		Children:    opt.command != nil,
		Self:        uint32(os.Getpid()),
		Warn:        func(text string) { warn(std.err, text) },
	}
	// A nil set in an interface would not be nil.
	for _, p := range []struct {
		from filter.Ports
		to   *tracer.PortSet
	}{{opt.filter.LocalPorts, &cfg.LocalPorts}, {opt.filter.RemotePorts, &cfg.RemotePorts}, {opt.filter.Ports, &cfg.Ports}} {
		if p.from != nil {
			*p.to = p.from
		}
	}
	// States are left to the filter: without its other transitions a
	// connection has no times, owner and closer.
	return cfg
}

// resolveNetNS finds the namespaces of --netns and puts them into the filter.
func resolveNetNS(opt *options, f *filter.Filter) ([]netns.NS, error) {
	var namespaces []netns.NS
	for _, spec := range opt.netns {
		ns, err := netns.Resolve(string(spec))
		switch {
		case errors.Is(err, fs.ErrPermission):
			return nil, hint.Wrap(fmt.Errorf("--netns %s: %w", spec, err), "run it with sudo")
		case err != nil:
			return nil, usageErrorf("invalid argument %q for \"--netns\" flag: %w; want all, self, a name of ip netns, a path, or inode:N", spec, err)
		}
		namespaces = append(namespaces, ns)
		f.NetNS = append(f.NetNS, ns.Inode)
	}
	return namespaces, nil
}

// openCgroups opens the cgroup2 hierarchy; nil: there is none, and none is needed.
func openCgroups(f *filter.Filter) (*cgroup.Paths, error) {
	mount := cgroupMount()
	if mount == "" {
		if f.Cgroup != "" {
			return nil, hint.Wrap(fmt.Errorf("--cgroup %s: %w", f.Cgroup, cgroup.ErrNoCgroup2),
				"mount it with: mount -t cgroup2 none /sys/fs/cgroup")
		}
		return nil, nil
	}
	paths, err := cgroup.OpenPaths(mount)
	if err != nil {
		return nil, fmt.Errorf("open the cgroup hierarchy: %w", err)
	}
	return paths, nil
}

// cgroupMount returns where the cgroup2 hierarchy is, or an empty text.
func cgroupMount() string {
	mount, err := cgroup.Mount()
	if err != nil {
		return ""
	}
	return mount
}

// monotonic measures the distance of the clocks, and returns the time of now.
func monotonic() (events.Clock, int64) {
	var clock events.Clock
	best := int64(1<<63 - 1)
	var at int64
	for range 5 {
		before := clockNS(unix.CLOCK_MONOTONIC)
		wall := clockNS(unix.CLOCK_REALTIME)
		after := clockNS(unix.CLOCK_MONOTONIC)
		// The shortest reading was interrupted least.
		if after-before < best {
			best, at = after-before, before+(after-before)/2
			clock.OffsetNS = wall - at
		}
	}
	return clock, at
}

func clockNS(id int32) int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(id, &ts); err != nil {
		panic(fmt.Sprintf("clock_gettime(%d): %v", id, err)) // cannot fail on Linux
	}
	return ts.Nano()
}

func removeReady(path string) error {
	st, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return fmt.Errorf("--ready-file: %w", err)
	case !st.Mode().IsRegular():
		return fmt.Errorf("--ready-file %s: it exists and is no regular file", path)
	}
	if err := os.Remove(path); err != nil {
		return fmt.Errorf("--ready-file: %w", err)
	}
	return nil
}

// writeReady writes the file whole or not at all: someone waits for it.
func writeReady(path string) error {
	temporary := path + ".tmp"
	if err := os.WriteFile(temporary, fmt.Appendf(nil, "%d\n", os.Getpid()), 0o644); err != nil {
		return fmt.Errorf("--ready-file: %w", err)
	}
	if err := os.Rename(temporary, path); err != nil {
		os.Remove(temporary)
		return fmt.Errorf("--ready-file: %w", err)
	}
	return nil
}
