package main

import (
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"runtime/metrics"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/events"
)

// status is what SIGUSR1 asks for, as of dd(1): one line of how it goes. What it
// tells is from the end of the last batch, of which there is one each second.
type status struct {
	start       time.Time
	limit       int
	events      atomic.Uint64 // from the hooks
	lost        atomic.Uint64
	connections atomic.Uint64
	forgotten   atomic.Uint64
	untracked   atomic.Uint64
}

func newStatus(opt *options) *status { return &status{start: time.Now(), limit: opt.maxConns} }

// add counts the records of a batch.
func (s *status) add(records []events.Record) {
	var n, lost uint64
	for i := range records {
		switch r := &records[i]; r.Kind {
		case events.KindTransition, events.KindConnect, events.KindAccept,
			events.KindTimeWaitAlloc, events.KindTimeWaitSchedule, events.KindTimeWaitDestroy:
			n++
		case events.KindLost:
			lost += uint64(max(r.Count, 0))
		}
	}
	s.events.Add(n)
	s.lost.Add(lost)
}

func (s *status) String() string {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return fmt.Sprintf("up %.1fs: %d events, %d lost; %d connections of at most %d, %d forgotten, %d not tracked; %d goroutines, heap %.1f MiB",
		time.Since(s.start).Seconds(), s.events.Load(), s.lost.Load(), s.connections.Load(), s.limit,
		s.forgotten.Load(), s.untracked.Load(), runtime.NumGoroutine(), float64(sample[0].Value.Uint64())/(1<<20))
}

// onSignal writes the line to w for each SIGUSR1; to nothing where w is nil. A
// command gets the signal instead (handleSignals).
func (s *status) onSignal(w io.Writer) (stop func()) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGUSR1)
	done := make(chan struct{})
	go func() {
		for {
			select {
			case <-done:
				return
			case <-signals:
				if w != nil {
					fmt.Fprintf(w, "tcptrace: %s\n", s)
				}
			}
		}
	}()
	return func() {
		signal.Stop(signals)
		close(done)
	}
}
