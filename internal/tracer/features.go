//go:build linux

package tracer

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/features"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/bpf"
)

// Status is the outcome of a probe.
type Status string

// Outcomes. Unknown is what cannot be tried without privileges.
const (
	Yes     Status = "yes"
	No      Status = "no"
	Unknown Status = "unknown"
)

// Feature is one thing that the kernel may be able to do.
type Feature struct {
	Name   string
	Tier   string // the hook tier that it belongs to; empty: every one
	Status Status
	Detail string // why not
	Cost   string // what its absence costs
}

// Features is what this kernel and this process can do, found by trying.
type Features struct {
	Kernel     string
	Arch       string
	BTF        bool
	Lockdown   string // none, integrity, confidentiality; empty: not told
	Privileges []Cap
	Features   []Feature
	Tier       string // what --hooks auto takes; empty: unknown or none
	Why        string
}

// KernelRelease returns uname's release, such as 6.12.43.
func KernelRelease() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// Probe tries every hook and helper. It needs no tracing and leaves nothing
// attached; without privileges what needs them is Unknown.
func Probe() (*Features, error) {
	_, err := os.Stat(btfPath)
	f := &Features{
		Kernel:     KernelRelease(),
		Arch:       runtime.GOARCH,
		BTF:        err == nil,
		Lockdown:   lockdown(lockdownPath),
		Privileges: capabilities(),
	}
	p := prober{f: f, from: newSources()}
	if len(missingCaps()) == 0 {
		p.privileged = true
		if err := rlimit.RemoveMemlock(); err != nil {
			return nil, fmt.Errorf("raise RLIMIT_MEMLOCK: %w", err)
		}
	}
	p.ring()
	p.program("transitions (tp_btf/inet_sock_set_state)", bpf.TcptraceProgInetSockSetState, "nothing can be traced")
	p.program("sockets that exist (iter/tcp)", bpf.TcptraceProgDumpTcp, "nothing can be traced")
	p.program("holders of sockets (iter/task_file)", bpf.TcptraceProgDumpTaskFile, "nothing can be traced")
	p.cookie()
	for _, tier := range []string{HooksFentry, HooksKprobe} {
		for _, h := range hooksOf(tier) {
			p.hook(tier, h)
		}
	}
	p.choose()
	return f, nil
}

// prober fills in Features.
type prober struct {
	f          *Features
	privileged bool
	from       *sources
}

const needsPrivileges = "cannot be tried without privileges"

func (p *prober) add(name, tier, cost string, try func() error) {
	f := Feature{Name: name, Tier: tier, Cost: cost}
	switch {
	case !p.f.BTF:
		f.Status, f.Detail = No, "the kernel has no BTF"
	case !p.privileged:
		f.Status, f.Detail = Unknown, needsPrivileges
	default:
		f.Status = Yes
		if err := try(); err != nil {
			f.Status, f.Detail = No, brief(err)
		}
	}
	p.f.Features = append(p.f.Features, f)
}

func (p *prober) ring() {
	p.add("ring buffer", "", "nothing can be traced", func() error { return features.HaveMapType(ebpf.RingBuf) })
}

// trial loads one program alone, with the cookie helper or without.
func (p *prober) trial(name string, cookie bool) (*ebpf.Collection, error) {
	spec, err := p.from.spec()
	if err != nil {
		return nil, err
	}
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	spec.Maps[bpf.TcptraceMapRecords].MaxEntries = ringSize(1)
	if err := spec.Variables[bpf.TcptraceVarHaveTypedHelpers].Set(cookie); err != nil {
		return nil, err
	}
	return ebpf.NewCollectionWithOptions(spec, ebpf.CollectionOptions{
		Cache: p.from.kernel,
	})
}

func (p *prober) program(name, program, cost string) {
	p.add(name, "", cost, func() error {
		coll, err := p.trial(program, false)
		if err == nil {
			coll.Close()
		}
		return err
	})
}

func (p *prober) cookie() {
	p.add("socket cookie (bpf_get_socket_cookie)", "", "a reused socket address is told apart by time alone", func() error {
		coll, err := p.trial(bpf.TcptraceProgInetSockSetState, true)
		if err == nil {
			coll.Close()
		}
		return err
	})
}

func (p *prober) hook(tier string, h hook) {
	name := h.targets[0]
	if p.f.BTF {
		if found, err := h.target(p.from.kernel); err == nil {
			name = found
		}
	}
	if h.program == bpf.TcptraceProgFexitInetTwskAlloc {
		name = "fexit/" + name
	} else {
		name = tier + "/" + name
	}
	p.add(name, tier, h.cost, func() error { return p.tryHook(h) })
}

func (p *prober) tryHook(h hook) error {
	target, err := h.target(p.from.kernel)
	if err != nil {
		return err
	}
	coll, err := p.trial(h.program, false)
	if err != nil {
		return err
	}
	defer coll.Close()
	l, err := h.attach(coll.Programs[h.program], target, 0)
	if err != nil {
		return err
	}
	return l.Close()
}

// choose says which tier auto takes, from what was tried.
func (p *prober) choose() {
	if !p.privileged {
		p.f.Why = "the choice needs " + strings.Join(missingCaps(), " and ")
		return
	}
	missing := func(tier string) string {
		for _, f := range p.f.Features {
			if f.Tier == tier && f.Status != Yes && !strings.Contains(f.Name, "security_sock_graft") &&
				!strings.Contains(f.Name, "bpf_get_socket_cookie") {
				return f.Name + ": " + f.Detail
			}
		}
		return ""
	}
	if m := missing(""); m != "" {
		p.f.Why = m
		return
	}
	var why []string
	for _, tier := range []string{HooksFentry, HooksKprobe} {
		if m := missing(tier); m != "" {
			why = append(why, "no "+m)
			continue
		}
		p.f.Tier = tier
		break
	}
	if p.f.Tier == "" {
		p.f.Tier = HooksPoll
	}
	p.f.Why = strings.Join(why, "; ")
	if len(why) == 0 {
		p.f.Why = "every hook of the best tier is there"
	}
}

// brief reduces the error of a trial to what a person needs.
func brief(err error) string {
	var verifier *ebpf.VerifierError
	switch {
	case errors.Is(err, unix.EPERM):
		return "refused by the kernel (EPERM)"
	case errors.Is(err, errNoKprobes):
		return errNoKprobes.Error()
	case errors.Is(err, unix.Errno(524)): // ENOTSUPP: no trampolines on this architecture
		return "not supported on this architecture and kernel"
	case errors.As(err, &verifier):
		return verifier.Error()
	case errors.Is(err, ebpf.ErrNotSupported):
		return "not supported by this kernel"
	}
	return err.Error()
}

// errNoKprobes is how a kernel without CONFIG_KPROBES looks.
var errNoKprobes = errors.New("the kernel has no kprobes (CONFIG_KPROBES)")

// haveKprobes reports whether perf knows kprobes or tracefs takes them.
func haveKprobes() bool {
	for _, path := range []string{
		"/sys/bus/event_source/devices/kprobe/type",
		"/sys/kernel/tracing/kprobe_events",
		"/sys/kernel/debug/tracing/kprobe_events",
	} {
		if _, err := os.Stat(path); err == nil {
			return true
		}
	}
	return false
}
