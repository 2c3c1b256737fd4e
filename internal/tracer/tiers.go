//go:build linux

package tracer

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/link"

	"github.com/tcptrace/tcptrace/bpf"
)

// The hook tiers, best first.
const (
	HooksAuto   = "auto"
	HooksFentry = "fentry"
	HooksKprobe = "kprobe"
	HooksPoll   = "poll"
)

// hook is one program and the kernel function that it goes to.
type hook struct {
	program string
	// targets are the names of the function over the kernel versions, of which
	// one is enough.
	targets []string
	// cost says what is missing without the hook.
	cost string
}

const (
	costTimeWait = "TIME_WAIT and orphaned FIN_WAIT2 come from scans: ends are known to the scan interval"
	costAccept   = "who accepted a connection is found by a scan of descriptors, or stays unknown"
	costConnect  = "the local port of a connection attempt is known with its next event or scan"
)

// walks are the programs of the walks; each tier has them and the transition.
var walks = []string{bpf.TcptraceProgDumpTcp, bpf.TcptraceProgDumpTaskFile}

// preemptibleTracepoints reports whether a program on a tracepoint can be preempted:
// since SRCU-fast protects tracepoints instead of disabled preemption, which came
// with the reader flavour in srcu_struct (seen in 7.2, not in 6.18).
func preemptibleTracepoints(kernel *btf.Cache) (bool, error) {
	types, err := kernel.Kernel()
	if err != nil {
		return false, fmt.Errorf("read kernel BTF: %w", err)
	}
	var srcu *btf.Struct
	if err := types.TypeByName("srcu_struct", &srcu); err != nil {
		return false, nil
	}
	return slices.ContainsFunc(srcu.Members, func(m btf.Member) bool { return m.Name == "srcu_reader_flavor" }), nil
}

// PreemptibleTracepoints reports whether the running kernel can preempt a program on
// a tracepoint.
func PreemptibleTracepoints() (bool, error) { return preemptibleTracepoints(btf.NewCache()) }

// childrenHooks are those of Config.Children, named after their tracepoints.
var childrenHooks = []string{bpf.TcptraceProgSchedProcessFork, bpf.TcptraceProgSchedProcessFree}

// nestedHooks are the second programs on the hooks, by the first (bpf/nested.h).
var nestedHooks = map[string]string{
	bpf.TcptraceProgInetSockSetState:        bpf.TcptraceProgNestedInetSockSetState,
	bpf.TcptraceProgFentryTcpConnect:        bpf.TcptraceProgNestedTcpConnect,
	bpf.TcptraceProgFentrySecuritySockGraft: bpf.TcptraceProgNestedSecuritySockGraft,
	bpf.TcptraceProgFexitInetTwskAlloc:      bpf.TcptraceProgNestedInetTwskAlloc,
	bpf.TcptraceProgFentryInetTwskSchedule:  bpf.TcptraceProgNestedInetTwskSchedule,
	bpf.TcptraceProgFentryTcpTwskDestructor: bpf.TcptraceProgNestedTcpTwskDestructor,
}

var fentryHooks = []hook{
	{bpf.TcptraceProgFexitInetTwskAlloc, []string{"inet_twsk_alloc"}, costTimeWait},
	{bpf.TcptraceProgFentryInetTwskSchedule, []string{"__inet_twsk_schedule"}, costTimeWait},
	{bpf.TcptraceProgFentryTcpTwskDestructor, []string{"tcp_twsk_destructor"}, costTimeWait},
	{bpf.TcptraceProgFentryTcpTimewaitStateProcess, []string{"tcp_timewait_state_process"}, costTimeWait},
	{bpf.TcptraceProgFentrySecuritySockGraft, []string{"security_sock_graft"}, costAccept},
	{bpf.TcptraceProgFentryTcpConnect, []string{"tcp_connect"}, costConnect},
}

var kprobeHooks = []hook{
	{bpf.TcptraceProgKprobeInetTwskAlloc, []string{"inet_twsk_alloc"}, costTimeWait},
	{bpf.TcptraceProgKprobeInetTwskHashdance, []string{"inet_twsk_hashdance_schedule", "inet_twsk_hashdance"}, costTimeWait},
	{bpf.TcptraceProgKprobeInetTwskSchedule, []string{"__inet_twsk_schedule"}, costTimeWait},
	{bpf.TcptraceProgKprobeTcpTwskDestructor, []string{"tcp_twsk_destructor"}, costTimeWait},
	{bpf.TcptraceProgKprobeTcpTimewaitStateProcess, []string{"tcp_timewait_state_process"}, costTimeWait},
	{bpf.TcptraceProgKprobeSecuritySockGraft, []string{"security_sock_graft"}, costAccept},
	{bpf.TcptraceProgKprobeTcpConnect, []string{"tcp_connect"}, costConnect},
}

// acceptFallback replaces the hook on security_sock_graft on kernels without
// CONFIG_SECURITY_NETWORK.
var acceptFallback = map[string]hook{
	bpf.TcptraceProgFentrySecuritySockGraft: {bpf.TcptraceProgFexitInetCskAccept, []string{"inet_csk_accept"},
		"an accept that was waiting before the start is not seen"},
	bpf.TcptraceProgKprobeSecuritySockGraft: {bpf.TcptraceProgKretprobeInetCskAccept, []string{"inet_csk_accept"},
		"an accept that was waiting before the start is not seen"},
}

func hooksOf(tier string) []hook {
	switch tier {
	case HooksFentry:
		return fentryHooks
	case HooksKprobe:
		return kprobeHooks
	default:
		return nil
	}
}

// target returns the first of the hook's functions that the kernel has.
func (h hook) target(kernel *btf.Cache) (string, error) {
	types, err := kernel.Kernel()
	if err != nil {
		return "", fmt.Errorf("read kernel BTF: %w", err)
	}
	for _, name := range h.targets {
		var fn *btf.Func
		if err := types.TypeByName(name, &fn); err == nil {
			return name, nil
		}
	}
	return "", fmt.Errorf("the kernel has no function %s", h.targets[0])
}

// resolveHooks returns the tier's hooks as this kernel can have them: the
// fallback where a function is missing.
func resolveHooks(kernel *btf.Cache, tier string) ([]hook, error) {
	resolved := slices.Clone(hooksOf(tier))
	for i, h := range resolved {
		_, err := h.target(kernel)
		if err == nil {
			continue
		}
		fallback, ok := acceptFallback[h.program]
		if !ok {
			return nil, err
		}
		if _, err := fallback.target(kernel); err != nil {
			return nil, err
		}
		resolved[i] = fallback
	}
	return resolved, nil
}

// attach attaches one loaded program to its function.
func (h hook) attach(program *ebpf.Program, target string, level int) (link.Link, error) {
	switch program.Type() {
	case ebpf.Kprobe:
		if !haveKprobes() {
			return nil, errNoKprobes
		}
		if h.program == bpf.TcptraceProgKretprobeInetCskAccept {
			return link.Kretprobe(target, program, nil)
		}
		return link.Kprobe(target, program, nil)
	default:
		return attachTracing(program, h.program, level)
	}
}

// acceptParams returns the number of parameters of inet_csk_accept: 4 until
// 92ef0fd55ac8 (net: change proto and proto_ops accept type), 6.10, then 2.
func acceptParams(kernel *btf.Cache) (uint8, error) {
	types, err := kernel.Kernel()
	if err != nil {
		return 0, fmt.Errorf("read kernel BTF: %w", err)
	}
	var fn *btf.Func
	if err := types.TypeByName("inet_csk_accept", &fn); err != nil {
		return 0, fmt.Errorf("find inet_csk_accept: %w", err)
	}
	proto, ok := fn.Type.(*btf.FuncProto)
	if !ok {
		return 0, errors.New("inet_csk_accept has no prototype")
	}
	return uint8(len(proto.Params)), nil
}
