package main

import (
	"errors"

	"github.com/tcptrace/tcptrace/internal/aggregate"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/render"
)

// errDone ends a stream that has shown what was asked for.
var errDone = errors.New("done")

func aggregateHooks(hooks string) aggregate.Hooks {
	switch hooks {
	case "poll":
		return aggregate.HooksPoll
	case "kprobe":
		return aggregate.HooksKprobe
	}
	return aggregate.HooksFull
}

func newStream(opt *options, std stdio, clock events.Clock) render.Stream {
	if opt.json {
		return render.NewJSON(std.out, clock)
	}
	columns, isTerminal := terminal(std.out)
	return render.NewText(std.out, render.TextConfig{
		Width:    columns,
		Terminal: isTerminal && columns > 0,
		Wide:     opt.wide,
		Color:    wantColor(opt.color, isTerminal),
		WallTime: opt.wallTime,
		Elapsed:  opt.elapsed,
		Clock:    clock,
		Notes:    std.err,
	})
}
