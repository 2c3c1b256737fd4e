package main

import (
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/tcptrace/tcptrace/internal/account"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/filter"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// options is a valid command line.
type options struct {
	json      bool
	wallTime  bool
	elapsed   bool
	wide      bool
	color     string // auto, always or never
	filter    filter.Filter
	netns     []filter.NetNSSpec // nil: all
	filters   map[string]string  // the filter flags as given, for the header
	duration  time.Duration      // 0: none
	count     uint64             // 0: none
	hooks     string
	buffer    int // bytes, 0: the default
	maxConns  int // connections tracked at most; 0: as the memory allows
	readyFile string
	features  bool
	version   bool
	command   []string // nil: none
	write     string   // file of the recording to make, or -
	read      string   // file of the recording to show, or -
	quiet     bool     // the recording is all that is wanted

	watch    events.StateSet // 0: the stream
	once     bool
	interval time.Duration // 0: defaultInterval

	summary bool
	by      account.By

	failOn    []watch.Rule // nil: none
	failText  string       // as given
	leaksOnly bool         // of the command nothing is wanted but its leaks
}

// defaultInterval is the time between two answers of --watch.
const defaultInterval = 2 * time.Second

// filterFlags are the flags that the header line tells of.
var filterFlags = []string{
	"ipv4", "ipv6", "local-port", "remote-port", "port", "local", "remote", "pid", "comm", "uid", "netns",
	"cgroup", "state", "min-age", "watch",
}

// parseOptions returns a usage error, pflag.ErrHelp, or options without
// contradictions.
func parseOptions(args []string) (*options, error) {
	opt := &options{}
	flags := newFlagSet(opt)
	if err := flags.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return nil, err
		}
		return nil, usageErrorf("%w", err)
	}
	if err := opt.takeCommand(flags); err != nil {
		return nil, err
	}
	if err := opt.check(flags); err != nil {
		return nil, err
	}
	opt.filters = make(map[string]string)
	flags.Visit(func(f *pflag.Flag) {
		if slices.Contains(filterFlags, f.Name) {
			opt.filters[f.Name] = f.Value.String()
		}
	})
	return opt, nil
}

// newFlagSet defines the flags; parsing fills in opt.
func newFlagSet(opt *options) *pflag.FlagSet {
	flags := pflag.NewFlagSet("tcptrace", pflag.ContinueOnError)
	flags.SortFlags = false
	flags.Usage = func() {} // run prints the usage, an error has a hint

	value := func(name, short string, set func(string) error) {
		flags.VarP(&flagValue{set: set}, name, short, "")
	}
	f := &opt.filter
	value("watch", "", func(v string) error {
		set, err := events.ParseStates(v)
		opt.watch |= set
		return err
	})
	flags.BoolVar(&opt.once, "once", false, "")
	value("interval", "", func(v string) (err error) {
		if opt.interval, err = parseDuration(v); err == nil && opt.interval < minInterval {
			err = fmt.Errorf("want %v or more", minInterval)
		}
		return err
	})
	opt.summaryFlags(flags)
	value("output", "o", choice(func(v string) { opt.json = v == "json" }, "text", "json"))
	opt.recordFlags(flags)
	flags.BoolVarP(&opt.wallTime, "time", "T", false, "")
	flags.BoolVarP(&opt.elapsed, "timestamp", "t", false, "")
	flags.BoolVar(&opt.wide, "wide", false, "")
	opt.color = "auto"
	value("color", "", choice(func(v string) { opt.color = v }, "auto", "always", "never"))

	flags.BoolP("ipv4", "4", false, "")
	flags.BoolP("ipv6", "6", false, "")
	value("local-port", "L", ports(&f.LocalPorts))
	value("remote-port", "D", ports(&f.RemotePorts))
	value("port", "", ports(&f.Ports))
	value("local", "", prefixes(&f.Local))
	value("remote", "", prefixes(&f.Remote))
	value("pid", "", list(&f.PIDs, filter.ParsePIDs))
	value("comm", "", func(v string) error {
		comm, err := filter.Comm(v)
		f.Comms = append(f.Comms, comm)
		return err
	})
	value("uid", "", list(&f.UIDs, filter.ParseUIDs))
	var all bool
	value("netns", "", func(v string) error {
		specs, err := filter.ParseNetNS(v)
		opt.netns = append(opt.netns, specs...)
		all = all || specs == nil
		if err == nil && all && opt.netns != nil {
			err = fmt.Errorf("all beside %q: all has every network namespace already", opt.netns[0])
		}
		return err
	})
	value("cgroup", "", func(v string) (err error) {
		if f.Cgroup != "" {
			return errors.New("one cgroup was given already: want the one above both")
		}
		f.Cgroup, err = filter.CgroupPath(v, cgroupMount())
		return err
	})

	value("state", "", func(v string) error {
		set, err := events.ParseStates(v)
		f.States |= set
		return err
	})
	value("min-age", "", duration(&f.MinAge))

	opt.failOnFlag(flags)

	value("duration", "", duration(&opt.duration))
	value("count", "", func(v string) (err error) {
		if opt.count, err = strconv.ParseUint(v, 10, 63); err != nil || opt.count == 0 {
			return errors.New("want a number of lines from 1")
		}
		return nil
	})

	opt.hooks = "auto"
	value("hooks", "", choice(func(v string) { opt.hooks = v }, "auto", "fentry", "kprobe", "poll"))
	value("buffer", "", func(v string) (err error) {
		opt.buffer, err = parseSize(v)
		return err
	})
	value("max-connections", "", func(v string) error {
		n, err := strconv.ParseUint(v, 10, 63)
		if err != nil || n == 0 || n > maxMaxConns {
			return fmt.Errorf("want a number from 1 to %d", maxMaxConns)
		}
		opt.maxConns = int(n)
		return nil
	})
	value("ready-file", "", func(v string) error {
		if v == "" {
			return errors.New("want the path of a file")
		}
		opt.readyFile = v
		return nil
	})
	flags.BoolVar(&opt.features, "features", false, "")
	flags.BoolVar(&opt.version, "version", false, "")
	return flags
}

// takeCommand takes what follows the first --.
func (opt *options) takeCommand(flags *pflag.FlagSet) error {
	args, dash := flags.Args(), flags.ArgsLenAtDash()
	switch {
	case dash < 0 && len(args) > 0:
		return usageErrorf("unexpected argument %q: want flags, then -- and a command", args[0])
	case dash > 0:
		return usageErrorf("unexpected argument %q before --: want flags, then -- and a command", args[0])
	case dash == 0 && len(args) == 0:
		return usageErrorf("no command after --: want its name and arguments")
	case dash == 0:
		opt.command = args
	}
	return nil
}

// check finds flags that contradict each other.
func (opt *options) check(flags *pflag.FlagSet) error {
	if isTrue(flags, "ipv4") && isTrue(flags, "ipv6") {
		return usageErrorf("-4 and -6 contradict each other: want one of them, or none for both families")
	}
	if isTrue(flags, "ipv4") {
		opt.filter.Family = 4
	}
	if isTrue(flags, "ipv6") {
		opt.filter.Family = 6
	}
	if opt.filter.Family != 0 {
		for name, prefixes := range map[string]filter.Prefixes{"local": opt.filter.Local, "remote": opt.filter.Remote} {
			if prefixes != nil && !slices.ContainsFunc(prefixes, func(p netip.Prefix) bool { return p.Addr().Is4() == (opt.filter.Family == 4) }) {
				return usageErrorf("-%d and --%s %s contradict each other: want an address of IPv%d",
					opt.filter.Family, name, flags.Lookup(name).Value, opt.filter.Family)
			}
		}
	}
	if err := opt.checkWatch(flags); err != nil {
		return err
	}
	if err := opt.checkSummary(flags); err != nil {
		return err
	}
	if opt.json {
		for _, f := range []struct{ name, flag string }{{"time", "-T"}, {"timestamp", "-t"}, {"wide", "--wide"}} {
			if isTrue(flags, f.name) {
				return usageErrorf("%s and -o json contradict each other: json has every field, the times among them", f.flag)
			}
		}
		if opt.color == "always" {
			return usageErrorf("--color always and -o json contradict each other: want --color auto or never")
		}
	}
	if err := opt.checkRecord(flags); err != nil {
		return err
	}
	opt.checkFailOn(flags)
	if opt.features {
		allowed := []string{"features", "output", "color", "version"}
		var other string
		flags.Visit(func(f *pflag.Flag) {
			if !slices.Contains(allowed, f.Name) && other == "" {
				other = "--" + f.Name
			}
		})
		if opt.command != nil {
			other = "a command"
		}
		if other != "" {
			return usageErrorf("--features and %s contradict each other: --features traces nothing", other)
		}
	}
	return nil
}

// minInterval bounds what a careless --interval costs.
const minInterval = 50 * time.Millisecond

// checkWatch finds what does not go with --watch, or not without.
func (opt *options) checkWatch(flags *pflag.FlagSet) error {
	if opt.watch == 0 {
		for _, name := range []string{"once", "interval"} {
			if flags.Changed(name) {
				return usageErrorf("--%s is for --watch: want both, or neither", name)
			}
		}
		return nil
	}
	for _, name := range []string{"state", "time", "timestamp", "wide"} {
		if flags.Changed(name) {
			return usageErrorf("--watch and --%s contradict each other: --%s is about lines of transitions", name, name)
		}
	}
	if !opt.once {
		return nil
	}
	for _, name := range []string{"interval", "duration", "count"} {
		if flags.Changed(name) {
			return usageErrorf("--once and --%s contradict each other: --once looks once and ends", name)
		}
	}
	if opt.command != nil {
		return usageErrorf("--once and a command contradict each other: it would not have run yet")
	}
	return nil
}

func isTrue(flags *pflag.FlagSet, name string) bool {
	on, err := flags.GetBool(name)
	return err == nil && on
}

// flagValue is a flag that is checked when it is read, and that may be given
// again where set adds up.
type flagValue struct {
	set   func(string) error
	given []string
}

func (v *flagValue) Set(text string) error {
	v.given = append(v.given, text)
	return v.set(text)
}

func (v *flagValue) String() string {
	if v == nil {
		return ""
	}
	return strings.Join(v.given, ",")
}

func (v *flagValue) Type() string { return "value" }

// choice returns a setter for one of some words.
func choice(set func(string), words ...string) func(string) error {
	return func(v string) error {
		if !slices.Contains(words, v) {
			return fmt.Errorf("want %s or %s", strings.Join(words[:len(words)-1], ", "), words[len(words)-1])
		}
		set(v)
		return nil
	}
}

func ports(p *filter.Ports) func(string) error {
	return func(v string) error {
		more, err := filter.ParsePorts(v)
		if err == nil {
			*p = p.Union(more)
		}
		return err
	}
}

func prefixes(p *filter.Prefixes) func(string) error {
	return func(v string) error {
		more, err := filter.ParsePrefixes(v)
		*p = append(*p, more...)
		return err
	}
}

// list returns a setter that adds to a list.
func list[T any](to *[]T, parse func(string) ([]T, error)) func(string) error {
	return func(v string) error {
		more, err := parse(v)
		*to = append(*to, more...)
		return err
	}
}

func duration(d *time.Duration) func(string) error {
	return func(v string) (err error) {
		*d, err = parseDuration(v)
		return err
	}
}

// parseDuration reads 500ms, 1m30s, or a number of seconds. It must be above 0.
func parseDuration(text string) (time.Duration, error) {
	errWant := errors.New("want a time above 0, such as 500ms, 30s, 1h30m or a number of seconds")
	d, err := time.ParseDuration(text)
	if err != nil {
		seconds, err := strconv.ParseFloat(text, 64)
		if err != nil || math.IsNaN(seconds) || seconds > math.MaxInt64/float64(time.Second)-1 {
			return 0, errWant
		}
		d = time.Duration(seconds * float64(time.Second))
	}
	if d <= 0 {
		return 0, errWant
	}
	return d, nil
}

// Limits of --buffer: a page, and what a ring buffer's offsets can tell.
const (
	minBuffer = 4 << 10
	maxBuffer = 1 << 30
)

// parseSize reads a number of bytes: 65536, 512K, 8M, 8MiB, 1G.
func parseSize(text string) (int, error) {
	errWant := errors.New("want a size from 4K to 1G, such as 512K or 8M")
	number, unit := text, 1
	upper := strings.ToUpper(text)
	for _, u := range []struct {
		name string
		size int
	}{{"K", 1 << 10}, {"M", 1 << 20}, {"G", 1 << 30}} {
		for _, suffix := range []string{u.name, u.name + "B", u.name + "IB"} {
			if strings.HasSuffix(upper, suffix) {
				number, unit = text[:len(text)-len(suffix)], u.size
			}
		}
	}
	n, err := strconv.ParseUint(number, 10, 31)
	if err != nil || n > uint64(maxBuffer/unit) || int(n)*unit < minBuffer {
		return 0, errWant
	}
	return int(n) * unit, nil
}
