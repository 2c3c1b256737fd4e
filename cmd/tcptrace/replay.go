package main

import (
	"cmp"
	"context"
	"errors"
	"io"
	"os"
	"os/signal"

	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// runReplay shows what a recording holds as the trace would have.
func runReplay(ctx context.Context, opt *options, std stdio) error {
	p, err := openReplay(opt, std)
	if err != nil {
		return err
	}
	defer p.close()
	if err := opt.limitConns(p.Meta().Attrs[attrLimit]); err != nil {
		return p.explain(err)
	}
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	if opt.watch != 0 {
		return p.watch(ctx, opt, std)
	}
	meta := p.Meta()
	if states, ok := meta.Attrs[attrWatch]; ok {
		warn(std.err, p.name+": it was recorded with --watch "+states+": of other states only a part is in it")
	}
	asked := &replayedProcesses{p: p}
	var out render.Stream
	var sum *summary
	if opt.summary {
		sum = p.summary(opt, std, asked)
		out = sum
	} else {
		out = newStream(opt, std, meta.Clock)
	}
	s := newSink(opt, out)
	s.recorded, s.cgroup = &p.filter, p.cgroup
	table := aggregate.New(aggregate.Config{Hooks: aggregateHooks(meta.Header.Hooks), MaxConns: opt.maxConns}, s)
	out.Header(p.header(opt))
	judged := p.judging(opt, std, asked)
	var last int64
	for {
		item, err := p.Next()
		if sum != nil && ctx.Err() != nil {
			err = io.EOF // the account of what was read
		}
		switch {
		case errors.Is(err, io.EOF):
			table.Flush()
			judged.end(last)
			sum.end(table, s)
			err := cmp.Or(quietly(out.Flush()), quietly(sum.show()), p.explain(asked.err))
			return judged.conclude(err, err)
		case err != nil:
			table.Flush()
			sum.end(table, s)
			if err := errors.Join(out.Flush(), sum.show()); err != nil {
				return quietly(err)
			}
			return p.explain(err)
		case item.Record != nil:
			p.before(item.Record)
			table.Add(item.Record)
			sum.add(item.Record)
			judged.add(item.Record)
			last = max(last, item.Record.TS)
		case item.Fact == nil:
			if err := out.Flush(); err != nil || s.done() || ctx.Err() != nil {
				return quietly(err)
			}
		}
	}
}

// match returns what says which sockets are wanted; nil: all.
func (p *replay) match(opt *options) func(*watch.Socket) bool {
	if !filtersSockets(opt) && !p.filtersSockets() {
		return nil
	}
	return func(s *watch.Socket) bool {
		processes := processesOf(s)
		return p.filter.Socket(&s.Conn, processes, s.Age) && opt.filter.Socket(&s.Conn, processes, s.Age)
	}
}

// judging returns the judging of what is recorded; nil without --fail-on.
func (p *replay) judging(opt *options, std stdio, asked *replayedProcesses) *judging {
	if opt.failOn == nil {
		return nil
	}
	return newJudging(opt, std, p.Meta().Clock, watch.Config{
		Hooks: p.Meta().Header.Hooks, Processes: asked, Cgroup: p.cgroup, Match: p.match(opt),
		MaxSockets: opt.maxConns,
	})
}

// silent is a Stream of which nothing is shown.
type silent struct{}

func (silent) Header(*events.Header)         {}
func (silent) Transition(*events.Transition) {}
func (silent) Closed(*events.Closed)         {}
func (silent) Lost(*events.Lost)             {}
func (silent) Resync(*events.Resync)         {}
func (silent) Limit(*events.Limit)           {}
func (silent) Flush() error                  { return nil }
