package e2e

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/internal/tracer"
)

const (
	// envBinary is the tcptrace to test. Without it, the one in PATH is taken in
	// a VM, and one is built elsewhere.
	envBinary = "TCPTRACE_BIN"
	// envVM is set in a VM of the matrix, whose kernels can do every tier. The
	// whole machine is the test's there.
	envVM = "VMTEST"
	// envKeep is a folder for the outputs of tracers that were wrong; envOut is the
	// folder of a VM of the matrix that ends up beside its logs.
	envKeep, envOut = "TCPTRACE_E2E_KEEP", "VMTEST_OUT"
	// envExit makes this binary end at once with this status, or kill itself.
	envExit = "TCPTRACE_E2E_EXIT"
)

var inVM = os.Getenv(envVM) != ""

var tcptrace string // path of the binary

func TestMain(m *testing.M) {
	if path := os.Getenv(envControl); path != "" {
		if err := actorMain(path); err != nil {
			fmt.Fprintf(os.Stderr, "workload %s: %v\n", os.Getenv(envName), err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if code := os.Getenv(envExit); code != "" {
		exitCommand(code)
	}
	flag.Parse()
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	// Of what is read all is kept, so that there is little to collect: it took a third
	// of the time in an emulated machine.
	debug.SetGCPercent(400)
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "e2e: these tests need root: they make network namespaces and load BPF programs")
		return 1
	}
	tcptrace = os.Getenv(envBinary)
	if tcptrace == "" && inVM {
		var err error
		if tcptrace, err = exec.LookPath("tcptrace"); err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
	}
	if tcptrace == "" {
		dir, err := os.MkdirTemp("", "tcptrace-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, "e2e:", err)
			return 1
		}
		defer os.RemoveAll(dir)
		tcptrace = filepath.Join(dir, "tcptrace")
		build := exec.Command("go", "build", "-o", tcptrace, "github.com/tcptrace/tcptrace/cmd/tcptrace")
		build.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "e2e: build tcptrace: %v\n%s", err, out)
			return 1
		}
	}
	return m.Run()
}

// allCases lists the cases of the common run.
func allCases() []Case {
	return slices.Concat(closeCases(), resetCases(), ownerCases(), earlyCases(), specialCases(), wireCases())
}

// selected are the cases that -run TestTrace/PATTERN asks for.
func selected(t *testing.T, cases []Case) []Case {
	_, pattern, ok := strings.Cut(flag.Lookup("test.run").Value.String(), "/")
	if !ok {
		return cases
	}
	pattern, _, _ = strings.Cut(pattern, "/")
	re, err := regexp.Compile(pattern)
	if err != nil {
		t.Fatal(err)
	}
	cases = slices.DeleteFunc(cases, func(c Case) bool { return !re.MatchString(c.Name) })
	if len(cases) == 0 {
		t.Fatalf("no case matches %q", pattern)
	}
	return cases
}

// allTiers from the best on.
var allTiers = []string{"fentry", "kprobe", "poll"}

// startTracers starts one tracer for each of the tiers that the kernel can do,
// at most n.
func startTracers(t *testing.T, dir string, n int, args ...string) []*Tracer {
	t.Helper()
	var tracers []*Tracer
	t.Cleanup(func() {
		for _, tr := range tracers {
			select {
			case <-tr.exited:
			default:
				tr.cmd.Process.Kill()
				<-tr.exited
			}
			tr.file.Close()
		}
	})
	for _, tier := range allTiers {
		if len(tracers) == n {
			break
		}
		tr, err := startTracer(tcptrace, dir, tier, args...)
		switch {
		case err == nil:
			tracers = append(tracers, tr)
		case tier == "poll" || inVM:
			t.Error(err)
		default:
			t.Logf("this kernel cannot do %s: %v", tier, err)
		}
	}
	return tracers
}

// TestTrace runs all cases side by side under one tracer for each tier, and then
// compares what each tracer said with the truth.
func TestTrace(t *testing.T) {
	cases := selected(t, append(allCases(), heldCase()))
	var meanwhile func()
	if i := slices.IndexFunc(cases, func(c Case) bool { return c.Name == heldCase().Name }); i >= 0 {
		cases = slices.Delete(cases, i, i+1)
		// With a tracer of its own, while the others wait for TIME_WAIT to end.
		meanwhile = func() {
			t.Run(heldCase().Name, func(t *testing.T) { runCases(t, []Case{heldCase()}, 1, nil, emulatedBuffer()...) })
		}
	}
	if len(cases) == 0 {
		meanwhile()
		return
	}
	runCases(t, cases, len(allTiers), meanwhile)
}

// runCases runs the cases under tracers of the n best tiers. meanwhile, if not
// nil, is called when the workload is done but for TIME_WAIT.
func runCases(t *testing.T, cases []Case, n int, meanwhile func(), args ...string) {
	start := time.Now()
	phase := func(name string) { t.Logf("%s after %.1f s", name, time.Since(start).Seconds()) }
	s := newSuite(t)
	wait := s.prepare(t, cases)
	s.early.Wait()
	// Not the whole machine: the test may be a guest there, and has much else
	// going on.
	var names []string
	for _, ns := range s.spaces {
		if s.truth.netns[ns.Inode()] != "" {
			names = append(names, ns.Name())
		}
	}
	phase("prepared")
	tracers := startTracers(t, s.dir, n, append(args, "--netns", strings.Join(names, ","))...)
	if len(tracers) == 0 {
		close(s.abort)
		wait()
		t.FailNow()
	}
	phase("tracers ready")
	close(s.ready)
	wait()
	s.endProcs()
	phase("workload done")
	if meanwhile != nil {
		meanwhile()
	}
	s.settle(tracers)
	phase("settled")
	defer phase("compared")
	outputs := make(map[string]map[string][]string) // case -> tier -> problems
	report := func(name, tier, text string) {
		if outputs[name] == nil {
			outputs[name] = map[string][]string{}
		}
		outputs[name][tier] = append(outputs[name][tier], text)
	}
	missing := mayMiss(t)
	for _, tr := range tracers {
		if err := tr.stop(); err != nil {
			t.Error(err)
		}
		// Kprobes share one guard: what a softirq brings while its CPU is in the handler
		// of any of them is passed over, on every kernel.
		kprobe := tr.Tier == "kprobe"
		tr.MayMiss = missing || kprobe
		problems := compare(&tr.Output, s.truth.conns, s.truth.netns)
		if n := tr.Output.unseen(); n > 0 && tr.MayMiss {
			if !kprobe && n > len(tr.Lines)/100 {
				t.Errorf("%s: %d events were not seen beside %d lines", tr.Tier, n, len(tr.Lines))
			}
			// Before 6.7 a walk tells, not a count of the kernel's.
			if inVM && !kprobe && !tr.Output.mended() {
				t.Errorf("%s: %d events were passed over, and no rescan followed", tr.Tier, n)
			}
			var excused int
			problems, excused = withoutUnseen(problems, n)
			t.Logf("%s: the kernel ran no program for %d events, as told: %d connections are not compared", tr.Tier, n, excused)
		}
		for _, p := range problems {
			report(s.truth.netns[p.NetNS], tr.Tier, p.Text)
		}
	}
	for _, tr := range tracers {
		for _, text := range outputs[""][tr.Tier] {
			t.Errorf("%s: %s", tr.Tier, text)
		}
	}
	for _, cs := range cases {
		t.Run(cs.Name, func(t *testing.T) {
			for _, text := range s.failed[cs.Name] {
				t.Errorf("workload: %s", text)
			}
			for _, tr := range tracers {
				t.Run(tr.Tier, func(t *testing.T) {
					list := outputs[cs.Name][tr.Tier]
					for _, text := range list[:min(len(list), 12)] {
						t.Error(text)
					}
					if len(list) > 12 {
						t.Errorf("and %d more", len(list)-12)
					}
				})
			}
		})
	}
	if t.Failed() {
		if dir := cmp.Or(os.Getenv(envKeep), os.Getenv(envOut)); dir != "" {
			if err := os.MkdirAll(dir, 0o755); err != nil {
				t.Log(err)
			}
			for _, tr := range tracers {
				var b strings.Builder
				for _, l := range tr.Lines {
					b.WriteString(l.raw() + "\n")
				}
				if err := os.WriteFile(filepath.Join(dir, "out-"+tr.Tier), []byte(b.String()), 0o600); err != nil {
					t.Log(err)
				}
			}
		}
	}
}

// mayMiss reports whether this kernel may run no program for an event: the machine's own,
// in a timer's softirq of a virtual machine with too little time (measured on 6.18: the
// programs on netif_rx are left out too, uncounted), and one that preempts programs on
// tracepoints and passes a program over while it is preempted on that CPU; others stand in
// unless they are preempted as well, and cannot for kprobes, which share one guard. Each
// such event must be told. On every other kernel a loss is a failure like any other.
func mayMiss(t *testing.T) bool {
	preemptible, err := tracer.PreemptibleTracepoints()
	if err != nil {
		t.Fatal(err)
	}
	return preemptible || !inVM
}

// settle waits until every tracer has told the end of as many connections as
// ended, or until the last one should long have been told.
func (s *suite) settle(tracers []*Tracer) {
	ends, last := 0, now()
	for _, c := range s.truth.conns {
		if len(c.Steps) == 0 {
			continue
		}
		last = max(last, c.Last().At.Hi)
		if c.End != nil && c.Last().At.Hi > tracers[0].Started {
			ends++
		}
	}
	deadline := last + int64(scanSlack+5*time.Second)
	read, closed := make([]int, len(tracers)), make([]int, len(tracers))
	for {
		missing := false
		for i, tr := range tracers {
			tr.read()
			for ; read[i] < len(tr.Lines); read[i]++ {
				l := tr.Lines[read[i]]
				if l.Type == "closed" && l.NetNS != nil && s.truth.netns[*l.NetNS] != "" {
					closed[i]++
				}
			}
			missing = missing || closed[i] < ends
		}
		if !missing || now() > deadline {
			return
		}
		time.Sleep(200 * time.Millisecond)
	}
}
