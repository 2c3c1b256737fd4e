//go:build linux

package tracer

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/tcptrace/tcptrace/bpf"
	"github.com/tcptrace/tcptrace/internal/events"
)

// nestedPrefix begins the names of all programs that stand in for others.
const nestedPrefix = "nested_"

// maxLevels is how many programs there are on a hook at most (NESTED_LEVELS).
const maxLevels = 3

// countsMisses reports whether the kernel counts how often it passes over a program.
func countsMisses(kernel *btf.Cache) bool {
	types, err := kernel.Kernel()
	if err != nil {
		return false
	}
	var stats *btf.Struct
	return types.TypeByName("bpf_prog_stats", &stats) == nil &&
		slices.ContainsFunc(stats.Members, func(m btf.Member) bool { return m.Name == "misses" })
}

// levels returns the names of the loaded programs on the hook of the first one, which
// stand in for one another in that order.
func levels(first string, coll *ebpf.Collection) []string {
	names := []string{first}
	for level := 1; level < maxLevels; level++ {
		if name := levelName(nestedHooks[first], level); coll.Programs[name] != nil {
			names = append(names, name)
		}
	}
	return names
}

func levelName(nested string, level int) string {
	if level == 1 {
		return nested
	}
	return fmt.Sprintf("%s_%d", nested, level)
}

// deepSightBits is how many sockets the programs of a preemptible hook remember, as a
// power of 2: 16 bytes each for each of the three programs on each of the six hooks.
const deepSightBits = 12

// addLevels adds the programs of the levels beyond the second, which are the second
// one again: the kernel passes over one that is at work, not its copy. What they note is
// for all processors then.
func addLevels(spec *ebpf.CollectionSpec) error {
	seen := spec.Maps[bpf.TcptraceMapLastSeen]
	bits := spec.Variables[bpf.TcptraceVarSightBits]
	var shallow uint8
	if err := bits.Get(&shallow); err != nil {
		return fmt.Errorf("read %s: %w", bpf.TcptraceVarSightBits, err)
	}
	if err := bits.Set(uint8(deepSightBits)); err != nil {
		return fmt.Errorf("set %s: %w", bpf.TcptraceVarSightBits, err)
	}
	seen.Type, seen.MaxEntries = ebpf.Array, seen.MaxEntries>>shallow<<deepSightBits
	for _, nested := range nestedHooks {
		if spec.Programs[nested] == nil {
			continue
		}
		for level := 2; level < maxLevels; level++ {
			spec.Programs[levelName(nested, level)] = spec.Programs[nested].Copy()
		}
	}
	return nil
}

// attachTracing attaches a program of the hook, which learns its level by the cookie.
func attachTracing(program *ebpf.Program, first string, level int) (link.Link, error) {
	opts := link.TracingOptions{Program: program}
	if level > 1 {
		opts.Cookie = uint64(level)
		switch { // a cookie needs it said again
		case strings.HasPrefix(first, "fentry_"):
			opts.AttachType = ebpf.AttachTraceFEntry
		case strings.HasPrefix(first, "fexit_"):
			opts.AttachType = ebpf.AttachTraceFExit
		default:
			opts.AttachType = ebpf.AttachTraceRawTp
		}
	}
	return link.AttachTracing(opts)
}

// repeats remembers the latest record of each of the sockets that had one lately. The
// second program on a hook may tell that one again: microseconds later, or, where it
// was preempted in between, after whatever the other processors did meanwhile
// (bpf/nested.h). While a hook is at work on a socket nothing else happens to it: only
// the latest can be told again.
//
// A socket's record stands in one of the ways of its set. A new one takes the place of
// the oldest there: some 65,000 records later, by and large.
type repeats struct {
	sets [1 << 14][4]repeat
	now  uint32
}

type repeat struct {
	sk       uint64
	at       uint32 // repeats.now when it came
	kind     events.Kind
	old, new events.State
}

// told says whether the socket's latest record is this one, and remembers it.
func (p *repeats) told(r *events.Record) bool {
	// 2^64 divided by the golden ratio: multiples of an object's size spread.
	set := &p.sets[r.SK*0x9e3779b97f4a7c15>>(64-14)]
	p.now++
	oldest := &set[0]
	for i := range set {
		e := &set[i]
		if e.sk == r.SK {
			same := e.kind == r.Kind && e.old == r.Old && e.new == r.New
			*e = repeat{r.SK, p.now, r.Kind, r.Old, r.New}
			return same
		}
		if p.now-e.at > p.now-oldest.at {
			oldest = e
		}
	}
	*oldest = repeat{r.SK, p.now, r.Kind, r.Old, r.New}
	return false
}

// isNews remembers a record and reports whether it was not told before.
func (t *Tracer) isNews(r *events.Record) bool {
	told := t.repeats.told(r)
	if r.Flags&events.FlagNested == 0 {
		return true
	}
	if !told && r.TS >= t.attached {
		t.rescued++
	}
	return !told
}

// beginCounting has what is counted begin now, when all hooks are there. While they were
// attached, one after the other, a program that stands in may have been there without the
// first one: it told what nothing was passed over for, and as many losses would be taken to
// be made good.
func (t *Tracer) beginCounting() (err error) {
	t.attached = now()
	if t.passed.over, err = t.countMissed(); err != nil {
		return err
	}
	t.passed.stoodIn, err = t.countStoodIn()
	return err
}

// countMissed returns how many runs of the programs the kernel has left out because
// the same program was at work on the CPU already (recursion_misses, 5.12).
func (t *Tracer) countMissed() (uint64, error) {
	var missed uint64
	for name, program := range t.coll.Programs {
		if strings.HasPrefix(name, nestedPrefix) {
			continue // what it is left out of, the first program may have seen
		}
		stats, err := program.Stats()
		if err != nil {
			return 0, fmt.Errorf("read the statistics of %s: %w", name, err)
		}
		missed += stats.RecursionMisses
	}
	inKprobes, err := missedByKprobes(t.links)
	if err != nil {
		return 0, err
	}
	// Not fewer than before, when the links are gone.
	t.missedInKprobes = max(t.missedInKprobes, inKprobes)
	return missed + t.missedInKprobes, nil
}

// missedByKprobes returns how often the kernel did not get as far as the program of a
// kprobe, because the CPU was in another kprobe's handler (nmissed, told of since 6.7,
// 3acf8ace6823 "bpf: Add missed value to kprobe perf link info").
func missedByKprobes(links []link.Link) (missed uint64, err error) {
	for _, l := range links {
		if _, ok := l.(link.PerfEvent); !ok {
			continue
		}
		info, err := l.Info()
		if errors.Is(err, ebpf.ErrNotSupported) {
			continue // before 5.15: a kprobe has no link
		}
		if err != nil {
			return 0, fmt.Errorf("read about a kprobe: %w", err)
		}
		if event := info.PerfEvent(); event != nil && event.Kprobe() != nil {
			missed += event.Kprobe().Missed
		}
	}
	return missed, nil
}

// passed is the account of the runs of programs that the kernel passed over, and of
// those for which a later program on the hook stood in.
type passed struct {
	over, stoodIn uint64 // since the attach, as last told
	credit        uint64 // stood in for more than were passed over, until the last call
}

// reckon takes the two counts and returns how many events were passed over for good
// since the last call. One that stands in may do so late (the first was counted in the
// call before), or for one that was not passed over after all (bpf/nested.h): what it has
// too much holds for two calls and no longer, or it would hide a loss some day.
func (p *passed) reckon(over, stoodIn uint64) (lost uint64) {
	fresh := stoodIn - p.stoodIn
	news, covered := over-p.over, fresh+p.credit
	p.over, p.stoodIn = over, stoodIn
	if news > covered {
		p.credit = 0
		return news - covered
	}
	p.credit = min(covered-news, fresh)
	return 0
}

// countStoodIn returns how many of these a second program has told, or found
// filtered, or has counted as lost itself.
func (t *Tracer) countStoodIn() (uint64, error) {
	unwanted, err := t.count(bpf.TcptraceVarUnwantedEvents)
	return t.rescued + unwanted, err
}

// count reads a count of the kernel side.
func (t *Tracer) count(name string) (n uint64, err error) {
	if err := t.coll.Variables[name].Get(&n); err != nil {
		return 0, fmt.Errorf("read %s: %w", name, err)
	}
	return n, nil
}
