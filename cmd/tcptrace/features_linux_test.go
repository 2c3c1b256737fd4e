package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/tracer"
)

func TestFeatures(t *testing.T) {
	defer func(old string) { version = old }(version)
	version = "0.1.0"
	const scans = "TIME_WAIT and orphaned FIN_WAIT2 come from scans: ends are known to the scan interval"
	hardened := &tracer.Features{
		Kernel: "6.18.44", Arch: "amd64", BTF: true, Lockdown: "integrity", Tier: tracer.HooksPoll,
		Why: "no fexit/inet_twsk_alloc: refused by the kernel (EPERM); no kprobe/inet_twsk_alloc: the kernel has no kprobes (CONFIG_KPROBES)",
		Privileges: []tracer.Cap{
			{Name: "CAP_BPF", Held: true, Use: "load BPF programs"},
			{Name: "CAP_SYS_PTRACE", Use: "look into processes of other users"},
		},
		Features: []tracer.Feature{
			{Name: "ring buffer", Status: tracer.Yes, Cost: "nothing can be traced"},
			{Name: "fexit/inet_twsk_alloc", Tier: "fentry", Status: tracer.No, Detail: "refused by the kernel (EPERM)", Cost: scans},
			{Name: "fentry/tcp_twsk_destructor", Tier: "fentry", Status: tracer.No, Detail: "refused by the kernel (EPERM)", Cost: scans},
			{Name: "fentry/security_sock_graft", Tier: "fentry", Status: tracer.Yes, Cost: "owners come late"},
			{Name: "kprobe/inet_twsk_alloc", Tier: "kprobe", Status: tracer.No, Detail: "bad\x1b[2Jname", Cost: scans},
		},
	}
	user := &tracer.Features{
		Kernel: "5.10.0", Arch: "arm64", BTF: true, Why: "the choice needs CAP_BPF and CAP_PERFMON",
		Privileges: []tracer.Cap{{Name: "CAP_BPF", Use: "load BPF programs"}},
		Features:   []tracer.Feature{{Name: "ring buffer", Status: tracer.Unknown, Detail: "cannot be tried without privileges", Cost: "nothing can be traced"}},
	}
	for name, f := range map[string]*tracer.Features{"hardened": hardened, "user": user} {
		text := featuresText(f, false)
		golden(t, "features-"+name+".txt", text)
		for line := range strings.Lines(text) {
			if w := render.Width(strings.TrimSuffix(line, "\n")); w > 80 {
				t.Errorf("%s: %d cells: %s", name, w, line)
			}
		}
		if strings.Contains(text, "\x1b") {
			t.Errorf("%s: an escape reaches the terminal", name)
		}
		var line bytes.Buffer
		if err := featuresJSON(&line, f); err != nil {
			t.Fatal(err)
		}
		golden(t, "features-"+name+".json", line.String())
	}
	if !strings.Contains(featuresText(hardened, true), "\x1b[31mno     \x1b[0m fexit/inet_twsk_alloc") {
		t.Error("no color though it is wanted")
	}
}
