package main

import (
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/owner"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// traceJudging returns the judging of a trace; nil without --fail-on. cgroup may be
// nil, and rec is nil where nothing is recorded.
func traceJudging(opt *options, std stdio, clock events.Clock, hooks string, cgroup func(uint64) string, rec *recording) (*judging, error) {
	if opt.failOn == nil {
		return nil, nil
	}
	cfg, processes, err := traceWatch(opt, hooks, cgroup, rec)
	if err != nil {
		return nil, err
	}
	j := newJudging(opt, std, clock, cfg)
	j.notes = processes.Notes
	return j, nil
}

// traceWatch returns what a watch beside a trace asks; cgroup may be nil, and rec is
// nil where nothing is recorded.
func traceWatch(opt *options, hooks string, cgroup func(uint64) string, rec *recording) (watch.Config, *owner.Processes, error) {
	slept, err := owner.BootOffset()
	if err != nil {
		return watch.Config{}, nil, err
	}
	processes := owner.NewProcesses("/proc", slept)
	cfg := watch.Config{Hooks: hooks, Processes: processes, Ports: newPortRanges().of, Cgroup: cgroup, MaxSockets: opt.maxConns}
	if rec != nil {
		cfg.Processes = &recordedProcesses{Processes: processes, rec: rec}
		cfg.Ports = rec.ports(cfg.Ports)
	}
	if filtersSockets(opt) {
		cfg.Match = func(s *watch.Socket) bool { return opt.filter.Socket(&s.Conn, processesOf(s), s.Age) }
	}
	return cfg, processes, nil
}
