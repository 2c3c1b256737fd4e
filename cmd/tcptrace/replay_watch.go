package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/record"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// watch shows what the recording tells about the watched states: what was recorded
// with --watch at the times of its answers, else at the intervals of this one.
func (p *replay) watch(ctx context.Context, opt *options, std stdio) error {
	meta := p.Meta()
	asked := &replayedProcesses{p: p}
	cfg := watch.Config{
		States: opt.watch, Hooks: meta.Header.Hooks, Processes: asked, Ports: asked.ports, Cgroup: p.cgroup,
		MaxSockets: opt.maxConns,
	}
	watched, looked := meta.Attrs[attrWatch]
	if looked {
		set, err := events.ParseStates(watched)
		if err != nil {
			return p.explain(fmt.Errorf("the watched states of the recording: %w", err))
		}
		cfg.Walked = walkedStates(set)
		if opt.watch&^set != 0 {
			warn(std.err, p.name+": it was recorded with --watch "+watched+": of other states only a part is in it")
		}
	}
	cfg.Match = p.match(opt)
	out := newWatch(opt, std, meta.Clock)
	out.Header(p.header(opt))
	r := replayedWatch{replay: p, opt: opt, store: watch.NewStore(cfg), show: out.Snapshot, looked: looked}
	r.judged = p.judging(opt, std, asked)
	err := r.run(ctx)
	if errors.Is(err, errDone) {
		err = nil
	}
	r.judged.end(r.ts)
	err = quietly(errors.Join(err, p.explain(asked.err)))
	return r.judged.conclude(err, err)
}

// filtersSockets reports whether the trace left out some sockets of the namespaces
// that it walked.
func (p *replay) filtersSockets() bool {
	for key := range p.Meta().Attrs {
		name, ok := strings.CutPrefix(key, attrFilter)
		if key == attrCommand || (ok && name != "netns") {
			return true
		}
	}
	return false
}

// replayedWatch turns a recording into answers.
type replayedWatch struct {
	*replay
	opt    *options
	store  *watch.Store
	show   func(*watch.Snapshot) error
	judged *judging
	looked bool  // the recording has the times of the answers
	next   int64 // the time of the next one; without looked
	shown  uint64

	ts     int64 // of the last record
	walked bool  // the batch ended a walk over the descriptors
	due    int64 // the time of the answer that the batch asks for, 0: none
}

func (r *replayedWatch) run(ctx context.Context) error {
	for {
		item, err := r.Next()
		switch {
		case err != nil:
			if !errors.Is(err, io.EOF) {
				err = r.explain(err)
			} else {
				err = nil
			}
			// What came after the last answer is shown as well.
			if !r.looked && r.ts > 0 && r.next-int64(interval(r.opt)) < r.ts {
				return errors.Join(r.look(r.ts), err)
			}
			return err
		case item.Record != nil:
			r.add(item.Record)
		case item.Fact != nil:
			if err := r.fact(item.Fact); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return nil
		default:
			if err := r.endBatch(); err != nil {
				return err
			}
		}
	}
}

func (r *replayedWatch) add(rec *events.Record) {
	r.before(rec)
	r.store.Add(rec)
	r.judged.add(rec)
	r.ts = max(r.ts, rec.TS)
	r.walked = r.walked || rec.Kind == events.KindHoldersEnd
}

func (r *replayedWatch) fact(f *record.Fact) error {
	if f.Topic != topicLook {
		return nil
	}
	ts, err := strconv.ParseInt(f.Value, 10, 64)
	if err != nil {
		return r.explain(fmt.Errorf("the time of an answer: %q is not a number", f.Value))
	}
	r.due = ts
	return nil
}

func (r *replayedWatch) endBatch() error {
	walked := r.walked
	r.walked = false
	switch {
	case r.looked:
		ts := r.due
		r.due = 0
		if ts == 0 {
			return nil
		}
		return r.look(ts)
	case r.next == 0 && !walked, r.ts < r.next:
		return nil
	}
	return r.look(r.ts)
}

func (r *replayedWatch) look(ts int64) error {
	r.next = ts + int64(interval(r.opt))
	if err := r.show(r.store.Snapshot(ts)); err != nil {
		return err
	}
	r.shown++
	if r.opt.once || (r.opt.count > 0 && r.shown >= r.opt.count) {
		return errDone
	}
	return nil
}
