//go:build linux

package tracer

import (
	"fmt"
	"math/bits"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/bpf"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/netns"
)

// PortSet is a set of ports to trace.
type PortSet interface{ Has(port uint16) bool }

// Config says what to trace. The zero value traces everything with the best hooks
// that there are. Filters prune in the kernel as far as it can decide; what it
// cannot (a port that is not assigned yet) comes through.
type Config struct {
	Hooks       string // HooksAuto (or empty), HooksFentry, HooksKprobe, HooksPoll
	BufferBytes int    // size of the ring, rounded up to a power of two; 0: DefaultBuffer
	Family      uint8  // 4, 6, or 0 for both
	LocalPorts  PortSet
	RemotePorts PortSet
	Ports       PortSet         // either side
	NetNS       []netns.NS      // nil: all
	States      events.StateSet // only events from or to these, which connect and accept are not; 0: all
	WalkStates  events.StateSet // walks report sockets in these states; 0: all
	Scan        time.Duration   // interval of scans in tier poll; 0: DefaultScan
	// Walk makes every tier walk over sockets and holders in this interval;
	// 0: only at the start, after a loss, and as tiers poll and kprobe need it.
	Walk time.Duration
	// Snapshot attaches no hooks: Run hands over a walk, and nothing of what
	// happens meanwhile and later. Hooks other than auto overrule it.
	Snapshot bool
	// LastWalk makes every tier walk over sockets and holders at the end of Run,
	// before the hooks are gone; without it tier poll does so after.
	LastWalk bool
	// Children makes the calling process' children, and theirs, known by
	// KindFork and KindReaped.
	Children bool
	// Self is the process id under which nobody is said to act: of the caller,
	// unless it has TCP sockets of its own. A walk that looks at a file in the
	// moment when its owner closes it closes the socket in its place.
	Self uint32
	Warn func(msg string) // told once of each degradation; may be nil

	from *sources // nil: new ones
}

// Defaults of Config.
const (
	DefaultBuffer = 8 << 20
	DefaultScan   = time.Second
)

// gather is how long records may gather after the reader was woken, if there is no
// storm: a quiet stream is late by it.
const gather = 10 * time.Millisecond

// Tracer has its hooks attached from Open to Close.
type Tracer struct {
	cfg     Config
	tier    string
	why     string
	coll    *ebpf.Collection
	links   []link.Link
	ring    *ring
	walker  *walker
	decoder *decoder
	jiffy   time.Duration

	lostSeen uint64 // of lost_records, as last read

	repeats  repeats // what the second program on a hook may tell again
	attached int64   // CLOCK_MONOTONIC, ns: all hooks were there
	rescued  uint64  // what it alone told since then
	passed   passed  // runs that the kernel passed over

	missedInKprobes uint64 // missedByKprobes, as last read
}

// Open loads and attaches; records gather in the ring until Run.
// Errors have a Hint method where something can be done.
func Open(cfg Config) (_ *Tracer, err error) {
	if err := preflight(missingCaps(), lockdownPath, btfPath); err != nil {
		return nil, err
	}
	// Needed before 5.11 (memcg accounting of BPF memory).
	if err := rlimit.RemoveMemlock(); err != nil {
		return nil, explainLoad(fmt.Errorf("raise RLIMIT_MEMLOCK: %w", err))
	}
	from := cfg.from
	if from == nil {
		from = newSources()
	}
	jiffy, err := jiffyLength()
	if err != nil {
		return nil, err
	}
	if cfg.Hooks != "" && cfg.Hooks != HooksAuto {
		cfg.Snapshot = false
	}
	if cfg.Snapshot {
		cfg.BufferBytes = os.Getpagesize() // nothing will be in it
	}
	t := &Tracer{cfg: cfg, jiffy: jiffy, decoder: newDecoder()}
	if t.cfg.Scan == 0 {
		t.cfg.Scan = DefaultScan
	}
	if t.cfg.Warn == nil {
		t.cfg.Warn = func(string) {}
	}
	defer func() {
		if err != nil {
			t.Close()
		}
	}()
	if err := t.loadBest(from); err != nil {
		return nil, err
	}
	if t.ring, err = newRing(t.coll.Maps[bpf.TcptraceMapRecords]); err != nil {
		return nil, err
	}
	if t.walker, err = newWalker(t.coll, t.cfg); err != nil {
		return nil, err
	}
	if err := t.beginCounting(); err != nil {
		return nil, err
	}
	return t, nil
}

// Hooks returns the tier in use.
func (t *Tracer) Hooks() string { return t.tier }

// Why says why this tier and no better one.
func (t *Tracer) Why() string { return t.why }

// loadBest tries the tiers from the best down, or only the one that is asked for.
func (t *Tracer) loadBest(from *sources) error {
	switch t.cfg.Hooks {
	case "", HooksAuto:
		if t.cfg.Snapshot {
			t.why = "one look needs no more"
			return t.load(from, HooksPoll)
		}
		if t.cfg.States != 0 && t.cfg.States&timewaitStates == 0 {
			// Transitions and walks tell all of these states.
			t.why = "the states that are asked for need no more"
			return t.load(from, HooksPoll)
		}
	case HooksFentry, HooksKprobe, HooksPoll:
		if err := t.load(from, t.cfg.Hooks); err != nil {
			if t.cfg.Hooks == HooksPoll {
				return err
			}
			return withHint("use --hooks auto; `tcptrace --features` shows what this kernel can do",
				fmt.Errorf("hooks %s: %w", t.cfg.Hooks, err))
		}
		t.why = "asked for"
		return nil
	default:
		return fmt.Errorf("unknown hooks %q: want auto, fentry, kprobe or poll", t.cfg.Hooks)
	}
	var refused []error
	for _, tier := range []string{HooksFentry, HooksKprobe} {
		err := t.load(from, tier)
		if err == nil {
			t.why = whyTier(refused)
			return nil
		}
		refused = append(refused, fmt.Errorf("no %s: %s", tier, brief(err)))
	}
	if err := t.load(from, HooksPoll); err != nil {
		return err
	}
	t.why = whyTier(refused)
	return nil
}

// timewaitStates are those that a timewait socket can be in.
var timewaitStates = events.Set(events.FinWait2, events.TimeWait)

func whyTier(refused []error) string {
	if len(refused) == 0 {
		return "the best"
	}
	var b strings.Builder
	for i, err := range refused {
		if i > 0 {
			b.WriteString("; ")
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// load loads and attaches the programs of one tier, or leaves nothing behind.
func (t *Tracer) load(from *sources, tier string) (err error) {
	hooks, err := resolveHooks(from.kernel, tier)
	if err != nil {
		return err
	}
	if t.cfg.States != 0 {
		hooks = slices.DeleteFunc(hooks, func(h hook) bool { return h.cost != costTimeWait })
	}
	// Also where only a softirq can come in between: in 200,000 transitions of a
	// storm the kernel passed over four.
	coll, err := loadCollection(from, t.cfg, t.jiffy, hooks, !t.cfg.Snapshot)
	if err != nil {
		return err
	}
	if t.cfg.Snapshot {
		t.coll, t.tier = coll, tier
		return nil
	}
	var links []link.Link
	defer func() {
		if err != nil {
			closeLinks(links)
			coll.Close()
		}
	}()
	if err := t.fillFilters(coll); err != nil {
		return err
	}
	if t.cfg.Children {
		if err := coll.Maps[bpf.TcptraceMapProcessTree].Put(uint32(os.Getpid()), uint8(1)); err != nil {
			return fmt.Errorf("trace the descendants of process %d: %w", os.Getpid(), err)
		}
		for _, name := range childrenHooks {
			l, err := link.AttachTracing(link.TracingOptions{Program: coll.Programs[name]})
			if err != nil {
				return fmt.Errorf("attach to tp_btf/%s: %w", name, err)
			}
			links = append(links, l)
		}
	}
	// The timewait hooks first: a transition without them would look like an end.
	for _, h := range hooks {
		target, err := h.target(from.kernel)
		if err != nil {
			return err
		}
		// A trampoline calls what was attached last first
		// (bpf_trampoline_link_prog), and those that stand in must be behind.
		for level, name := range slices.Backward(levels(h.program, coll)) {
			l, err := h.attach(coll.Programs[name], target, level)
			if err != nil {
				return fmt.Errorf("attach to %s: %w", target, err)
			}
			links = append(links, l)
		}
	}
	// A tracepoint calls them as they came. They go in the other order: one that stands
	// in must not be left alone.
	first := len(links)
	for level, name := range levels(bpf.TcptraceProgInetSockSetState, coll) {
		l, err := attachTracing(coll.Programs[name], bpf.TcptraceProgInetSockSetState, level)
		if err != nil {
			return fmt.Errorf("attach to tp_btf/inet_sock_set_state: %w", err)
		}
		links = slices.Insert(links, first, l)
	}
	t.coll, t.links, t.tier = coll, links, tier
	return nil
}

// loadCollection loads what every tier needs and the programs of the hooks. The
// cookie helper is tried first and left out where the verifier does not know it.
func loadCollection(from *sources, cfg Config, jiffy time.Duration, hooks []hook, guard bool) (*ebpf.Collection, error) {
	wanted := slices.Clone(walks)
	if !cfg.Snapshot {
		wanted = append(wanted, bpf.TcptraceProgInetSockSetState)
	}
	for _, h := range hooks {
		wanted = append(wanted, h.program)
	}
	deep := false
	if guard {
		for _, first := range slices.Clone(wanted) {
			if nested, ok := nestedHooks[first]; ok {
				wanted = append(wanted, nested)
			}
		}
		var err error
		if deep, err = preemptibleTracepoints(from.kernel); err != nil {
			return nil, err
		}
	}
	if cfg.Children {
		wanted = append(wanted, childrenHooks...)
	}
	var lastErr error
	for _, cookie := range []bool{true, false} {
		spec, err := from.spec()
		if err != nil {
			return nil, err
		}
		for name := range spec.Programs {
			if !slices.Contains(wanted, name) {
				delete(spec.Programs, name)
			}
		}
		if deep {
			if err := addLevels(spec); err != nil {
				return nil, err
			}
		}
		spec.Maps[bpf.TcptraceMapRecords].MaxEntries = ringSize(cfg.BufferBytes)
		spec.Maps[bpf.TcptraceMapNetnsWanted].MaxEntries = uint32(max(1, len(cfg.NetNS)))
		params := uint8(4)
		if slices.ContainsFunc(hooks, func(h hook) bool { return h.program == bpf.TcptraceProgFexitInetCskAccept }) {
			if params, err = acceptParams(from.kernel); err != nil {
				return nil, err
			}
		}
		for name, value := range map[string]any{
			bpf.TcptraceVarHaveTypedHelpers:    cookie,
			bpf.TcptraceVarJiffyNs:             uint64(jiffy),
			bpf.TcptraceVarInetCskAcceptParams: params,
			bpf.TcptraceVarGuardNesting:        guard,
			bpf.TcptraceVarDeepNesting:         deep,
			bpf.TcptraceVarKernelCountsMisses:  countsMisses(from.kernel),
			bpf.TcptraceVarFilterFamily:        cfg.Family,
			bpf.TcptraceVarFilterOneNetns:      oneNetNS(cfg.NetNS),
			bpf.TcptraceVarFilterNetns:         len(cfg.NetNS) > 1,
			bpf.TcptraceVarFilterPorts:         cfg.LocalPorts != nil || cfg.RemotePorts != nil || cfg.Ports != nil,
			bpf.TcptraceVarFilterLport:         cfg.LocalPorts != nil,
			bpf.TcptraceVarFilterRport:         cfg.RemotePorts != nil,
			bpf.TcptraceVarFilterPort:          cfg.Ports != nil,
			bpf.TcptraceVarFilterStates:        uint32(cfg.States),
			bpf.TcptraceVarWalkingTgid:         cfg.Self,
			bpf.TcptraceVarWalkStates:          uint32(cfg.WalkStates),
		} {
			if err := spec.Variables[name].Set(value); err != nil {
				return nil, fmt.Errorf("set %s: %w", name, err)
			}
		}
		coll, err := ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
			Cache: from.kernel,
		})
		if err == nil {
			return coll, nil
		}
		lastErr = err
	}
	return nil, explainLoad(lastErr)
}

// oneNetNS returns the inode of a single namespace, which needs no map.
func oneNetNS(list []netns.NS) uint32 {
	if len(list) != 1 {
		return 0
	}
	return list[0].Inode
}

// ringSize rounds up to a power of two, which is a multiple of the page size.
func ringSize(n int) uint32 {
	if n <= 0 {
		n = DefaultBuffer
	}
	n = max(n, os.Getpagesize())
	return 1 << bits.Len32(uint32(n-1))
}

// fillFilters writes the maps that the kernel side filters by.
func (t *Tracer) fillFilters(coll *ebpf.Collection) error {
	for _, ns := range t.cfg.NetNS {
		if err := coll.Maps[bpf.TcptraceMapNetnsWanted].Put(ns.Inode, uint8(1)); err != nil {
			return fmt.Errorf("filter network namespace %d: %w", ns.Inode, err)
		}
	}
	if t.cfg.LocalPorts == nil && t.cfg.RemotePorts == nil && t.cfg.Ports == nil {
		return nil
	}
	for word := range uint32(1 << 16 / 64) {
		var b bpf.TcptracePortBits
		for bit := range 64 {
			port := uint16(word*64) + uint16(bit)
			for _, s := range []struct {
				set  PortSet
				bits *uint64
			}{{t.cfg.LocalPorts, &b.Local}, {t.cfg.RemotePorts, &b.Remote}, {t.cfg.Ports, &b.Either}} {
				if s.set != nil && s.set.Has(port) {
					*s.bits |= 1 << bit
				}
			}
		}
		if b.Local|b.Remote|b.Either == 0 {
			continue
		}
		if err := coll.Maps[bpf.TcptraceMapPortsWanted].Put(word, b); err != nil {
			return fmt.Errorf("filter ports: %w", err)
		}
	}
	return nil
}

// Close detaches and frees everything; it may be called twice.
func (t *Tracer) Close() error {
	closeLinks(t.links)
	t.links = nil
	if t.walker != nil {
		t.walker.close()
		t.walker = nil
	}
	if t.ring != nil {
		t.ring.close()
		t.ring = nil
	}
	if t.coll != nil {
		t.coll.Close()
		t.coll = nil
	}
	return nil
}

func closeLinks(links []link.Link) {
	for _, l := range links {
		l.Close()
	}
}

// now reads CLOCK_MONOTONIC, the clock of bpf_ktime_get_ns.
func now() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts); err != nil {
		panic(fmt.Sprintf("clock_gettime(CLOCK_MONOTONIC): %v", err)) // cannot fail on Linux
	}
	return ts.Nano()
}

// jiffyLength returns the kernel's tick: the resolution of the coarse clocks.
func jiffyLength() (time.Duration, error) {
	var ts unix.Timespec
	if err := unix.ClockGetres(unix.CLOCK_MONOTONIC_COARSE, &ts); err != nil {
		return 0, fmt.Errorf("read the length of a jiffy: %w", err)
	}
	return time.Duration(ts.Nano()), nil
}
