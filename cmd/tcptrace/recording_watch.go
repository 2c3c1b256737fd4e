package main

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// Topics of facts in a recording that was made with --watch.
const (
	topicProcess = "process" // by number: what was known of it, empty: nothing
	topicPorts   = "ports"   // by network namespace: its port range, empty: unknown
	topicLook    = "look"    // by 0: the time of an answer to the records so far, ns
)

// recordedProcesses records what it is told of processes.
type recordedProcesses struct {
	watch.Processes
	rec *recording
}

// Process asks, and remembers the answer for the replay.
func (p *recordedProcesses) Process(pid uint32) (watch.Process, bool) {
	process, ok := p.Processes.Process(pid)
	text := ""
	if ok {
		text = encodeProcess(&process)
	}
	p.rec.Fact(topicProcess, uint64(pid), text)
	return process, ok
}

// ports records what of tells.
func (rec *recording) ports(of func(netns uint32) (watch.PortRange, bool)) func(netns uint32) (watch.PortRange, bool) {
	return func(netns uint32) (watch.PortRange, bool) {
		r, ok := of(netns)
		text := ""
		if ok {
			text = encodePorts(r)
		}
		rec.Fact(topicPorts, uint64(netns), text)
		return r, ok
	}
}

// look records that an answer was given after the records so far.
func (rec *recording) look(ts int64) {
	rec.Fact(topicLook, 0, strconv.FormatInt(ts, 10))
}

// encodeProcess joins the fields with NUL, which none of them can have in it.
func encodeProcess(p *watch.Process) string {
	number := func(n int64) string { return strconv.FormatInt(n, 10) }
	fields := []string{
		p.Comm, number(int64(p.PPID)), number(p.UID), number(p.NofileSoft), number(p.OpenFDs), number(p.StartTS),
		p.Unit.Kind, p.Unit.Name, p.Unit.Path,
	}
	return strings.Join(append(fields, p.Cmdline...), "\x00")
}

// processFields is the number of fields before the command line.
const processFields = 9

func decodeProcess(text string) (p watch.Process, err error) {
	fields := strings.Split(text, "\x00")
	if len(fields) < processFields {
		return p, fmt.Errorf("a process of %d fields: want %d", len(fields), processFields)
	}
	number := func(s string, most int64) int64 {
		n, parseErr := strconv.ParseInt(s, 10, 64)
		if parseErr != nil || n > most {
			err = fmt.Errorf("%q is not a number of a process", s)
			return 0
		}
		return n
	}
	p = watch.Process{
		Comm: fields[0], PPID: uint32(number(fields[1], math.MaxUint32)), UID: number(fields[2], math.MaxUint32),
		NofileSoft: number(fields[3], math.MaxInt64), OpenFDs: number(fields[4], math.MaxInt64),
		StartTS: number(fields[5], math.MaxInt64),
		Unit:    watch.Unit{Kind: fields[6], Name: fields[7], Path: fields[8]},
	}
	if len(fields) > processFields {
		p.Cmdline = fields[processFields:]
	}
	return p, err
}

// encodePorts writes a range as the sysctls do: 32768-60999, then what is
// reserved.
func encodePorts(r watch.PortRange) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d-%d", r.Low, r.High)
	for _, s := range r.Reserved {
		fmt.Fprintf(&b, ",%d-%d", s.Low, s.High)
	}
	return b.String()
}

func decodePorts(text string) (watch.PortRange, error) {
	var r watch.PortRange
	for i, item := range strings.Split(text, ",") {
		low, high, ok := strings.Cut(item, "-")
		a, errLow := strconv.ParseUint(low, 10, 16)
		b, errHigh := strconv.ParseUint(high, 10, 16)
		if err := errors.Join(errLow, errHigh); err != nil || !ok {
			return r, fmt.Errorf("%q is not a range of ports", item)
		}
		s := watch.PortSpan{Low: uint16(a), High: uint16(b)}
		if i == 0 {
			r.PortSpan = s
		} else {
			r.Reserved = append(r.Reserved, s)
		}
	}
	return r, nil
}

// replayedProcesses answers from a recording.
type replayedProcesses struct {
	p   *replay
	err error // the first answer that makes no sense
}

// Refresh does nothing: the answers change with the recording.
func (r *replayedProcesses) Refresh() {}

// Process returns what the trace was told.
func (r *replayedProcesses) Process(pid uint32) (watch.Process, bool) {
	text, ok := r.p.Facts().Get(topicProcess, uint64(pid))
	if !ok || text == "" {
		return watch.Process{}, false
	}
	process, err := decodeProcess(text)
	if err != nil {
		r.err = err
		return watch.Process{}, false
	}
	return process, true
}

func (r *replayedProcesses) ports(netns uint32) (watch.PortRange, bool) {
	text, ok := r.p.Facts().Get(topicPorts, uint64(netns))
	if !ok || text == "" {
		return watch.PortRange{}, false
	}
	ports, err := decodePorts(text)
	if err != nil {
		r.err = err
		return watch.PortRange{}, false
	}
	return ports, true
}

// walkedStates returns the states that the walks of a trace with --watch report;
// 0: all.
func walkedStates(watched events.StateSet) events.StateSet {
	// Who closed is told by the transition to FIN_WAIT1 alone, and local ports
	// are in use in every state.
	if watched.Has(events.TimeWait) {
		return 0
	}
	// Listeners tell whose a backlog is.
	return watched | events.Set(events.Listen)
}
