//go:build linux

package main

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/tcptrace/tcptrace/internal/tracer"
)

// throughput runs the load with each tool and without one, in turn: the ratio of the
// connection rates, what of the transitions came out, and the tool's CPU and memory.
func (b *bench) throughput() error {
	type results struct{ ratio, missing, user, system, rss sample }
	tools := b.choose(append(b.ourTools(), b.peerTools()...))
	all := make([]results, len(tools))
	var bare sample
	for pair := range b.pairs {
		for i, t := range tools {
			r := &all[i]
			var without, with *loadResult
			steps := []func() error{
				func() (err error) { without, err = load(b.spell); return err },
				func() error {
					p, err := startTool(t, b.dir)
					if err != nil {
						return err
					}
					if with, err = load(b.spell); err != nil {
						return err
					}
					used, rss, err := p.stop()
					if err != nil {
						return err
					}
					r.rss = append(r.rss, float64(rss)/(1<<20))
					events := float64(with.Transitions)
					r.user = append(r.user, float64(used.user.Nanoseconds())/1e3/events)
					r.system = append(r.system, float64(used.system.Nanoseconds())/1e3/events)
					if t.delivered == nil {
						return nil
					}
					delivered, lost, err := t.delivered(b)
					if err != nil {
						return fmt.Errorf("%s: %w", t.name, err)
					}
					if t.ours && delivered+lost != with.Transitions {
						b.note("%s: %d transitions happened, %d came out and %d are reported as lost",
							t.name, with.Transitions, delivered, lost)
					}
					r.missing = append(r.missing, 100*float64(with.Transitions-delivered)/events)
					return nil
				},
			}
			// Which of the two goes first changes, so that drift cancels out.
			if pair%2 == 1 {
				steps[0], steps[1] = steps[1], steps[0]
			}
			for _, step := range steps {
				if err := step(); err != nil {
					return err
				}
			}
			r.ratio = append(r.ratio, with.rate()/without.rate())
			bare = append(bare, without.rate())
		}
		b.say("pair %d of %d", pair+1, b.pairs)
	}
	const part = "throughput"
	b.add(part, "load alone", "no tracer", "connections/s", 0, bare, none, true)
	rows := []struct {
		what, unit string
		digits     int
		of         func(*results) sample
		target     func(*tool) float64
		atLeast    bool
	}{
		{"connection rate, against untraced", "ratio", 3, func(r *results) sample { return r.ratio },
			func(t *tool) float64 { return t.target }, true},
		{"transitions that did not come out", "%", 3, func(r *results) sample { return r.missing },
			func(t *tool) float64 {
				if t.ours {
					return 0
				}
				return none
			}, false},
		{"user CPU for each transition", "us", 2, func(r *results) sample { return r.user },
			func(t *tool) float64 { return t.perEvent }, false},
		{"system CPU for each transition", "us", 2, func(r *results) sample { return r.system }, nil, false},
		{"memory (greatest RSS)", "MiB", 1, func(r *results) sample { return r.rss }, nil, false},
	}
	for _, row := range rows {
		for i, t := range tools {
			target := none
			if row.target != nil {
				target = row.target(t)
			}
			if target == 0 && row.unit != "%" {
				target = none
			}
			if s := row.of(&all[i]); len(s) > 0 {
				b.add(part, row.what, t.name, row.unit, row.digits, s, target, row.atLeast)
			}
		}
	}
	return nil
}

// kernelTime reads the kernel's own account of the programs (bpf_stats) under the
// load. The load knows the number of transitions; walks, which no transition
// causes, are accounted for themselves.
func (b *bench) kernelTime() error {
	stats, err := tracer.EnableStats()
	if err != nil {
		return err
	}
	defer stats.Close()
	const name = "tcptrace, every field"
	tools := []*tool{
		{name: name, args: []string{"--netns", "self", "-w", filepath.Join(b.dir, "run.rec")}},
		{name: "tcptrace --watch close_wait", args: []string{"--netns", "self", "--watch", "close_wait"}},
		{name: "tcptrace, all filtered out", args: []string{"--netns", "self", "-6", "-w", os.DevNull}},
	}
	for _, t := range tools {
		t.path, t.ours = b.tcptrace, true
	}
	if b.tcpstates != "" {
		tools = append(tools, &tool{name: "tcpstates", path: b.tcpstates, args: []string{"-4", "-L", loadPorts()}})
	}
	if b.bpftrace != "" {
		tools = append(tools, b.bpftraceCount())
	}
	tools = b.choose(tools)
	each := make([]sample, len(tools))
	programs := map[string]sample{}
	var names []string
	for run := range b.pairs {
		for i, t := range tools {
			p, err := startTool(t, b.dir)
			if err != nil {
				return err
			}
			before, err := tracer.StatsOf(p.cmd.Process.Pid)
			if err != nil {
				return err
			}
			r, err := load(b.spell)
			if err != nil {
				return err
			}
			after, err := tracer.StatsOf(p.cmd.Process.Pid)
			if err != nil {
				return err
			}
			if _, _, err := p.stop(); err != nil {
				return err
			}
			var sum float64
			for k := range after {
				if k >= len(before) || after[k].ID != before[k].ID {
					return fmt.Errorf("%s: other programs than before", t.name)
				}
				runs := after[k].Runs - before[k].Runs
				if after[k].Name == "dump_tcp" || after[k].Name == "dump_task_file" || runs == 0 {
					continue
				}
				ns := float64((after[k].Runtime - before[k].Runtime).Nanoseconds())
				sum += ns
				if t.name == name {
					if _, ok := programs[after[k].Name]; !ok {
						names = append(names, after[k].Name)
					}
					programs[after[k].Name] = append(programs[after[k].Name], ns/float64(runs))
				}
			}
			each[i] = append(each[i], sum/float64(r.Transitions))
		}
		b.say("run %d of %d", run+1, b.pairs)
	}
	const part = "kernel-time"
	for i, t := range tools {
		target := none
		if t.name == name {
			target = 250
		}
		b.add(part, "all programs, for each transition", t.name, "ns", 0, each[i], target, false)
	}
	for _, n := range names {
		b.add(part, "one program of tcptrace, for each of its runs", n, "ns", 0, programs[n], none, false)
	}
	return nil
}
