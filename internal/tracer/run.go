//go:build linux

package tracer

import (
	"context"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/tcptrace/tcptrace/bpf"
	"github.com/tcptrace/tcptrace/internal/events"
)

// tick is the interval of KindTick.
const tick = time.Second

// batchPart is how many records are handed over between two looks at the ring: some
// milliseconds of work.
const batchPart = 4096

// maxPending bounds the records that wait for the end of a walk, some 180 MiB of
// them: beyond it they stay in the ring, which counts what it has no room for.
const maxPending = 1 << 20

// maxSpare bounds the room that is kept for the next batch: what one storm took is
// not kept for good.
const maxSpare = 1 << 16

// walked is the result of one walk.
type walked struct {
	records []events.Record
	err     error
}

// Run hands the records over in batches until ctx ends or handle fails; it then
// detaches, hands over what is in the ring still, and returns nil or the error of
// handle. The first batch holds the snapshot of what was there before.
//
// Within a batch and over all batches, records of the ring come in the order of
// the ring, which for one socket is the order in which things happened. A walk is
// merged in by time: its result follows the records that are older and precedes
// those that are younger.
func (t *Tracer) Run(ctx context.Context, handle func([]events.Record) error) error {
	r := run{t: t, handle: handle, walks: make(chan walked, 1), maxPending: maxPending}
	woken := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		t.ring.wake()
		close(woken)
	})
	defer func() {
		if !stop() {
			<-woken // the ring must outlive it
		}
	}()
	defer r.wait()
	err := r.loop(ctx)
	if err != nil {
		return err
	}
	return r.finish()
}

// run is the state of one Run.
type run struct {
	t       *Tracer
	handle  func([]events.Record) error
	pending []events.Record // from the ring, not handed over yet
	spare   []events.Record // empty, for the room behind it
	begun   bool            // the first batch was handed over
	walks   chan walked
	walkers sync.WaitGroup // which use the ring to wake the reader
	walking bool
	rewalk  bool          // something was lost: walk again as soon as may be
	ticked  int64         // the time of the KindTick that is due; 0: none is
	owners  bool          // a connection was accepted since the last walk over descriptors
	quiet   int           // walks, one after the other, since which nothing happened
	behind  uint64        // position in the ring when the last walk began
	pause   time.Duration // for records to gather, 0: not known yet

	maxPending int
}

func (r *run) loop(ctx context.Context) error {
	r.startWalk(true)
	nextTick := time.Now().Add(tick)
	interval, holders := r.t.walkInterval()
	nextWalk := time.Now().Add(interval)
	for ctx.Err() == nil {
		deadline := nextTick
		if interval > 0 && nextWalk.Before(deadline) {
			deadline = nextWalk
		}
		if err := r.receive(ctx, deadline); err != nil {
			return err
		}
		if err := r.collectWalk(false); err != nil {
			return err
		}
		at := time.Now()
		if !r.walking && (r.rewalk || (interval > 0 && !at.Before(nextWalk))) {
			if r.rewalk || !r.idle() {
				r.startWalk(r.rewalk || r.owners || holders)
			}
			nextWalk = at.Add(interval)
		}
		if !at.Before(nextTick) && !r.full() {
			nextTick = at.Add(tick)
			r.ticked = now() // before the ring is read: nothing older follows
			if err := r.passedOver(); err != nil {
				return err
			}
		}
		if !r.walking {
			if r.ticked != 0 {
				r.pending = append(r.pending, events.Record{Kind: events.KindTick, TS: r.ticked})
				r.ticked = 0
			}
			if err := r.deliver(); err != nil {
				return err
			}
		}
	}
	return nil
}

// checkKprobes is how often a walk looks for what kprobes were passed over: while one is
// at work its CPU runs no other, and the timers and segments that a softirq handles then,
// all that have come since the last tick, are not seen.
const checkKprobes = 5 * time.Second

// walkInterval returns how often to walk (0: only when something demands it), and
// whether over the descriptors too.
func (t *Tracer) walkInterval() (interval time.Duration, holders bool) {
	switch {
	case t.cfg.Walk > 0:
		return t.cfg.Walk, true
	case t.tier == HooksPoll:
		return t.cfg.Scan, false
	case t.tier == HooksKprobe:
		return checkKprobes, false
	default:
		return 0, false
	}
}

// full says that enough records wait for the end of a walk.
func (r *run) full() bool { return r.walking && len(r.pending) >= r.maxPending }

// idle reports whether a walk would find what the last ones found: nothing was told
// since, and no timewait or request socket was there, which alone come and go
// untold. Passing the kernel's table of sockets takes milliseconds also if it is
// empty, and tier poll does it each second.
func (r *run) idle() bool {
	return r.t.cfg.Walk == 0 && r.quiet >= 2 && r.t.ring.produced() == r.behind
}

// receive waits for records, at most until the deadline, lets them gather and
// drains the ring.
func (r *run) receive(ctx context.Context, deadline time.Time) error {
	if len(r.pending) > 0 && !r.walking {
		return r.drain() // came while a batch was handed over
	}
	if r.full() {
		time.Sleep(gather)
		return nil // what is lost is told behind what is in the ring
	}
	if err := r.t.ring.wait(deadline); err != nil {
		return err
	}
	if !r.t.ring.readable() {
		return r.lost()
	}
	pause, from := max(r.pause, gather), r.t.ring.consumed()
	gathered := time.NewTimer(pause)
	select {
	case <-gathered.C:
	case <-ctx.Done():
		gathered.Stop()
	}
	if err := r.drainParts(); err != nil {
		return err
	}
	r.pause = nextPause(pause, r.t.ring.consumed()-from, r.t.ring.mask+1)
	return nil
}

// A storm, in bytes of the ring within gather, and the longest pause in it. Each
// wakeup costs the runtime's threads more than the records of a short pause.
const (
	storm       = 32 << 10
	gatherStorm = 40 * time.Millisecond
)

// nextPause returns how long records may gather after so many bytes came in the last
// pause: in a storm longer, as long as an eighth of the ring will do.
func nextPause(last time.Duration, bytes, ring uint64) time.Duration {
	if bytes*uint64(gather) < storm*uint64(last) {
		return gather
	}
	return min(max(time.Duration(ring/8*uint64(last)/bytes), gather), gatherStorm)
}

// drain reads what is in the ring now.
func (r *run) drain() error {
	if err := r.t.ring.drain(math.MaxInt64, r.decode); err != nil {
		return err
	}
	return r.lost()
}

// cachedPart is how many bytes of the ring are decoded before they are worked on, so that
// the records are still in the near caches then.
const cachedPart = 64 << 10

// drainParts reads what is in the ring now, and hands it over meanwhile if no walk is
// under way.
func (r *run) drainParts() error {
	for end := r.t.ring.produced(); r.begun && !r.walking && r.t.ring.consumed()+cachedPart < end; {
		from := r.t.ring.consumed()
		if err := r.t.ring.drain(cachedPart, r.decode); err != nil {
			return err
		}
		if r.t.ring.consumed() == from {
			break // a record that is being written
		}
		if err := r.deliver(); err != nil {
			return err
		}
	}
	return r.drain()
}

// unfinished is how long to wait for a record that is being written.
const unfinished = 100 * time.Microsecond

// drainAll reads everything that was reserved up to now. A softirq, or on a virtual
// machine its host, may stop a program between the reservation and the end of its
// record for tens of ms, and nothing behind that record can be read before: to go on
// without it would put what happened before a walk behind the walk.
func (r *run) drainAll() error {
	for end := r.t.ring.produced(); ; time.Sleep(unfinished) {
		if err := r.t.ring.drain(math.MaxInt64, r.decode); err != nil {
			return err
		}
		if r.t.ring.consumed() >= end {
			return r.lost()
		}
	}
}

func (r *run) decode(raw []byte) error {
	r.pending = append(r.pending, events.Record{})
	rec := &r.pending[len(r.pending)-1]
	if err := r.t.decoder.decode(raw, rec); err != nil {
		return err
	}
	if !r.t.isNews(rec) {
		r.pending = r.pending[:len(r.pending)-1]
		return nil
	}
	if rec.Old == events.SynRecv && rec.New == events.Established && r.t.tier == HooksPoll {
		r.owners = true
	}
	return nil
}

// lost adds a KindLost where the kernel side found no room since the last call.
func (r *run) lost() error {
	total, err := r.t.count(bpf.TcptraceVarLostRecords)
	if err != nil {
		return err
	}
	if n := total - r.t.lostSeen; n > 0 {
		r.t.lostSeen = total
		r.addLost(int64(n), 0)
	}
	return nil
}

func (r *run) addLost(n int64, flags events.Flags) {
	r.pending = append(r.pending, events.Record{Kind: events.KindLost, TS: now(), Count: n, Flags: flags})
	r.rewalk = true
}

// passedOver adds a KindLost for runs of a program that the kernel left out since the
// last call.
func (r *run) passedOver() error {
	missed, err := r.t.countMissed()
	if err != nil {
		return err
	}
	// What a second program told of these is in the ring by now.
	if err := r.drainAll(); err != nil {
		return err
	}
	stoodIn, err := r.t.countStoodIn()
	if err != nil {
		return err
	}
	if lost := r.t.passed.reckon(missed, stoodIn); lost > 0 {
		r.addLost(int64(lost), events.FlagNested)
	}
	return nil
}

// startWalk begins a walk beside the reading.
func (r *run) startWalk(holders bool) {
	r.walking, r.rewalk, r.owners = true, false, false
	if at := r.t.ring.produced(); at != r.behind {
		r.quiet, r.behind = 0, at
	}
	r.walkers.Go(func() {
		records, err := r.t.walker.walk(holders)
		r.walks <- walked{records, err}
		r.t.ring.wake()
	})
}

// collectWalk merges a finished walk with the pending records and hands all over.
// With wait it waits for the one that is under way.
func (r *run) collectWalk(wait bool) error {
	if !r.walking {
		return nil
	}
	var w walked
	if wait {
		w = <-r.walks
	} else {
		select {
		case w = <-r.walks:
		default:
			return nil
		}
	}
	r.walking = false
	if w.err != nil {
		return w.err
	}
	r.quiet++
	if slices.ContainsFunc(w.records, untold) {
		r.quiet = 0
	}
	// Everything that happened before the walk's end is in the ring by now.
	if err := r.drainAll(); err != nil {
		return err
	}
	r.pending = merge(r.pending, w.records)
	return r.deliver()
}

// untold reports whether a walk found a socket that can come or go without a record.
func untold(r events.Record) bool {
	return r.Kind == events.KindSocket && (r.New == events.TimeWait || r.New == events.FinWait2 || r.New == events.NewSynRecv)
}

// merge merges b into a by time; both keep their own order.
func merge(a, b []events.Record) []events.Record {
	switch {
	case len(b) == 0:
		return a
	case len(a) == 0:
		return b
	}
	out := make([]events.Record, 0, len(a)+len(b))
	for len(a) > 0 && len(b) > 0 {
		if a[0].TS <= b[0].TS {
			out, a = append(out, a[0]), a[1:]
		} else {
			out, b = append(out, b[0]), b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// deliver hands over what is pending. The ring is drained between the parts of a
// long batch, into the next one: in a storm the ring would overflow while the
// records of a walk's time are worked on. The first batch, with the snapshot, is
// handed over whole.
func (r *run) deliver() error {
	batch := r.pending
	r.pending = r.spare[:0]
	defer func(all []events.Record) {
		if cap(all) > maxSpare {
			all = nil
		}
		r.spare = all
	}(batch)
	for len(batch) > 0 {
		n := len(batch)
		if r.begun {
			n = min(n, batchPart)
		}
		r.begun = true
		for i := range batch[:n] {
			r.t.walker.saw(batch[i].NetNS)
		}
		if err := r.handle(batch[:n]); err != nil {
			return err
		}
		if batch = batch[n:]; len(batch) > 0 {
			if err := r.drain(); err != nil {
				return err
			}
		}
	}
	return nil
}

// finish detaches, walks once more where the caller wants it or the tier needs it,
// and hands the rest over.
func (r *run) finish() error {
	if err := r.collectWalk(true); err != nil {
		return err
	}
	if r.t.cfg.LastWalk {
		// Before the hooks are gone: what closes meanwhile is seen to close.
		r.startWalk(true)
		if err := r.walkThrough(); err != nil {
			return err
		}
	}
	// The kprobes' counts go with them.
	if err := r.passedOver(); err != nil {
		return err
	}
	closeLinks(r.t.links)
	r.t.links = nil
	if err := r.drainAll(); err != nil {
		return err
	}
	if err := r.passedOver(); err != nil {
		return err
	}
	if r.t.tier == HooksPoll && !r.t.cfg.LastWalk || r.rewalk {
		r.startWalk(true)
		if err := r.collectWalk(true); err != nil {
			return err
		}
	}
	return r.deliver()
}

// walkThrough waits for the walk that is under way, and reads meanwhile.
func (r *run) walkThrough() error {
	for {
		if err := r.drain(); err != nil {
			return err
		}
		if err := r.collectWalk(false); err != nil || !r.walking {
			return err
		}
		time.Sleep(gather)
	}
}

// wait lets a walk that is under way end before Run returns.
func (r *run) wait() { r.walkers.Wait() }
