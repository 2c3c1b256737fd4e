package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// failOnFlag defines --fail-on.
func (opt *options) failOnFlag(flags *pflag.FlagSet) {
	given := &flagValue{set: func(v string) error {
		rule, err := parseRule(v)
		opt.failOn = append(opt.failOn, rule)
		return err
	}}
	flags.Var(given, "fail-on", "")
}

// parseRule reads STATE[,STATE...]:AGE.
func parseRule(text string) (watch.Rule, error) {
	states, age, ok := strings.Cut(text, ":")
	if !ok || age == "" {
		return watch.Rule{}, errors.New("want STATE:AGE, such as close_wait:5s")
	}
	set, err := events.ParseStates(states)
	if err != nil {
		return watch.Rule{}, err
	}
	d, err := parseDuration(age)
	if err != nil {
		return watch.Rule{}, fmt.Errorf("the age %q: %w", age, err)
	}
	return watch.Rule{States: set, Age: int64(d)}, nil
}

// checkFailOn settles what is shown beside the leaks.
func (opt *options) checkFailOn(flags *pflag.FlagSet) {
	if opt.failOn == nil {
		return
	}
	opt.failText = "--fail-on " + strings.ReplaceAll(strings.Join(flags.Lookup("fail-on").Value.(*flagValue).given, "\x00"), "\x00", " --fail-on ")
	// A test has output of its own: lines come between only if they are asked for.
	if opt.command == nil || opt.watch != 0 || opt.summary {
		return
	}
	for _, name := range []string{"output", "time", "timestamp", "wide", "state", "count"} {
		if flags.Changed(name) {
			return
		}
	}
	opt.leaksOnly, opt.quiet = true, true
}

// failStates returns the states of --fail-on.
func (opt *options) failStates() events.StateSet {
	var set events.StateSet
	for _, r := range opt.failOn {
		set |= r.States
	}
	return set
}

// judgeInterval returns how often the holders of sockets are looked for, so that
// those of one that stays too long are known; 0 without --fail-on.
func (opt *options) judgeInterval() time.Duration {
	if opt.failOn == nil {
		return 0
	}
	d := time.Second
	for _, r := range opt.failOn {
		d = min(d, time.Duration(r.Age)/2)
	}
	return max(d, minInterval)
}

// judging is what --fail-on asks for; nil without it.
type judging struct {
	*watch.Judge
	opt   *options
	std   stdio
	clock events.Clock
	notes func() []string // what the user should know of processes; may be nil

	leaks []*watch.Leak
	total int
}

// newJudging returns a judging of what cfg has.
func newJudging(opt *options, std stdio, clock events.Clock, cfg watch.Config) *judging {
	return &judging{Judge: watch.NewJudge(cfg, opt.failOn), opt: opt, std: std, clock: clock}
}

// add takes the next record.
func (j *judging) add(r *events.Record) {
	if j != nil {
		j.Add(r)
	}
}

// end judges what is there at the end of the trace, before the recording ends: it
// is told what is asked about processes.
func (j *judging) end(now int64) {
	if j != nil {
		j.leaks, j.total = j.Leaks(now)
	}
}

// report writes the list of what stayed too long.
func (j *judging) report() error {
	if j.notes != nil {
		for _, note := range j.notes() {
			warn(j.std.err, note)
		}
	}
	if n := j.Unjudged(); n > 0 {
		warn(j.std.err, fmt.Sprintf("at the limit of %d connections sockets were left out %d times, and may have stayed too long unseen: a larger --max-connections may help", j.opt.maxConns, n))
	}
	if j.total == 0 {
		return nil
	}
	var err error
	if j.opt.json {
		out := render.NewWatchJSON(j.std.out, j.clock)
		for _, l := range j.leaks {
			out.Leak(l)
		}
		err = quietly(out.Flush())
	}
	if listErr := render.Leaks(j.std.err, j.leaks, j.total, j.opt.failText); err == nil {
		err = quietly(listErr)
	}
	if advice := watch.LeakVerdict(j.leaks); advice != "" {
		fmt.Fprintf(j.std.err, "tcptrace: hint: %s\n", escapeMessage(advice))
	}
	return err
}

// conclude reports what stayed too long and returns the error that the program
// ends with: err, that of the trace, else the verdict, else ended, which is how the
// program ends where nothing stayed.
func (j *judging) conclude(err, ended error) error {
	if j == nil {
		return ended
	}
	reported := j.report()
	switch {
	case err != nil || j.total == 0:
		return ended
	case reported != nil:
		return reported
	}
	return &statusError{status: exitLeak}
}
