package main

import (
	"time"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// refreshRows bounds a table that the next one follows soon; a single look shows
// all.
const refreshRows = 20

// interval returns the time between two looks.
func interval(opt *options) time.Duration {
	if opt.interval == 0 {
		return defaultInterval
	}
	return opt.interval
}

func newWatch(opt *options, std stdio, clock events.Clock) render.Watch {
	if opt.json {
		return render.NewWatchJSON(std.out, clock)
	}
	columns, isTerminal := terminal(std.out)
	cfg := render.WatchTextConfig{Width: columns, Color: wantColor(opt.color, isTerminal), Clock: clock}
	if !opt.once {
		cfg.Groups = refreshRows
	}
	return render.NewWatchText(std.out, cfg)
}

// filtersSockets reports whether some sockets of the walked namespaces are not
// wanted.
func filtersSockets(opt *options) bool {
	for name := range opt.filters {
		if name != "watch" && name != "netns" {
			return true
		}
	}
	return opt.command != nil
}

// processesOf returns every process that has to do with a socket.
func processesOf(s *watch.Socket) []events.Process {
	var list []events.Process
	for _, h := range s.Holders {
		list = append(list, events.Process{PID: h.PID, Comm: h.Comm})
	}
	for _, h := range s.Listeners {
		list = append(list, events.Process{PID: h.PID, Comm: h.Comm})
	}
	if s.Owner.PID != 0 && s.Holders == nil {
		list = append(list, s.Owner)
	}
	return list
}
