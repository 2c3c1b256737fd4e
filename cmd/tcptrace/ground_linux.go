package main

import (
	"github.com/tcptrace/tcptrace/internal/cgroup"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/netns"
	"github.com/tcptrace/tcptrace/internal/tracer"
)

// ground is what a trace stands on, whatever is made of it.
type ground struct {
	program    string // of the command; empty: there is none
	namespaces []netns.NS
	paths      *cgroup.Paths // nil: there is no cgroup2 hierarchy
}

// prepare finds what the options name, before anything is traced.
func prepare(opt *options) (g *ground, err error) {
	g = &ground{}
	if opt.command != nil {
		if g.program, err = findCommand(opt.command[0]); err != nil {
			return nil, err
		}
	}
	if g.namespaces, err = resolveNetNS(opt, &opt.filter); err != nil {
		return nil, err
	}
	// A file of an earlier run must not announce this one.
	if opt.readyFile != "" {
		if err := removeReady(opt.readyFile); err != nil {
			return nil, err
		}
	}
	if g.paths, err = openCgroups(&opt.filter); err != nil {
		return nil, err
	}
	return g, nil
}

func (g *ground) close() {
	if g.paths != nil {
		g.paths.Close()
	}
}

// cgroup returns what finds the path of a cgroup; nil: none is known.
func (g *ground) cgroup() func(id uint64) string {
	if g.paths == nil {
		return nil
	}
	return g.paths.Path
}

// command makes the command, not started yet; both nil without one.
func (g *ground) command(opt *options, std stdio) (*command, *commandScope) {
	if opt.command == nil {
		return nil, nil
	}
	cmd := newCommand(g.program, opt.command, std)
	opt.filter.Command = &cmd.scope
	return cmd, &cmd.scope
}

// record begins the recording that is asked for, and returns what finds a cgroup as
// its replay will; nil without one, and then as it is.
func (g *ground) record(opt *options, std stdio, header *events.Header, clock events.Clock, scope *commandScope) (*recording, func(uint64) string, error) {
	lookup := g.cgroup()
	if opt.write == "" {
		return nil, lookup, nil
	}
	rec, err := newRecording(opt, std, header, clock, scope)
	if err != nil {
		return nil, nil, err
	}
	if lookup != nil {
		rec.lookup, lookup = lookup, rec.cgroup
	}
	return rec, lookup, nil
}

func traceHeader(opt *options, hooks string, start int64) *events.Header {
	return &events.Header{
		Schema: events.Schema, Version: versionText(), Kernel: tracer.KernelRelease(), Hooks: hooks, TS: start,
		Filters: opt.filters,
	}
}
