//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/tcptrace/tcptrace/vmtest/internal/gotest"
	"github.com/tcptrace/tcptrace/vmtest/internal/kernel"
	"github.com/tcptrace/tcptrace/vmtest/internal/machine"
	"github.com/tcptrace/tcptrace/vmtest/internal/proto"
)

// matrix is one run of several packages' tests on several kernels.
type matrix struct {
	vm          vmFlags
	jobs        int
	timeout     time.Duration // of one machine
	testTimeout time.Duration // of one package
	testArgs    []string
	verbose     bool
	logs        string

	init    string
	tests   []testBinary
	extras  []extraProgram
	kernels []*kernel.Kernel

	mu    sync.Mutex // guards out and the verdicts
	out   io.Writer
	abort context.CancelCauseFunc // ends the run when out cannot be written
	// verdicts of tests and subtests: package.Name -> kernel -> verdict.
	verdicts map[string]map[string]gotest.Verdict
	packages []packageResult
}

// packageResult is how one package fared on one kernel.
type packageResult struct {
	kernel, pkg string
	elapsed     time.Duration
	count       map[gotest.Verdict]int
	problem     string // why it failed, where that is not a test's failure
}

func (r packageResult) failed() bool { return r.problem != "" || r.count[gotest.Fail] > 0 }

// runMatrix is the form that runs packages' tests on several kernels.
func runMatrix(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fl := flag.NewFlagSet("matrix", flag.ContinueOnError)
	m := &matrix{out: stdout, verdicts: make(map[string]map[string]gotest.Verdict)}
	m.vm.register(fl)
	var extras listFlag
	kernels := fl.String("kernels", defaultKernels, "comma list of `series`, newest, or paths of a vmlinuz")
	runPattern := fl.String("run", "", "run the tests that match this `regexp`, as go test's -run")
	skipPattern := fl.String("skip", "", "leave out the tests that match this `regexp`, as go test's -skip")
	parallel := fl.Int("parallel", 0, "as go test's -parallel; 0: one for each processor of the guest")
	race := fl.Bool("race", false, "build the tests with the race detector (needs a C compiler and a static libc)")
	fl.IntVar(&m.jobs, "jobs", 2, "machines at a time")
	fl.DurationVar(&m.timeout, "timeout", 20*time.Minute, "time for one machine")
	fl.DurationVar(&m.testTimeout, "test-timeout", 10*time.Minute, "time for one package, as go test's -timeout")
	fl.BoolVar(&m.verbose, "v", false, "show what tests print that pass")
	fl.StringVar(&m.logs, "logs", "", "`folder` for the logs (default: in the cache)")
	fl.Var(&extras, "extra", "`PROGRAM` that the tests start, or the folder of a Go command to build; its path in the guest is in the environment as NAME_BIN; repeatable")
	if err := parse(fl, args, "matrix [flags] PACKAGE...", stdout, stderr); err != nil {
		return err
	}
	names := slices.Compact(splitList(*kernels))
	switch {
	case fl.NArg() == 0:
		return usageError(stderr, "no packages to test")
	case len(names) == 0:
		return usageError(stderr, "flag -kernels is empty: want a list such as %s", defaultKernels)
	case m.jobs < 1:
		return usageError(stderr, "flag -jobs: got %d, want 1 or more", m.jobs)
	}
	if err := machine.Check(m.vm.arch); err != nil {
		return err
	}
	m.testArgs = []string{"-test.v=test2json", "-test.paniconexit0", "-test.timeout=" + m.testTimeout.String()}
	for _, f := range [][2]string{{"run", *runPattern}, {"skip", *skipPattern}} {
		if f[1] != "" {
			m.testArgs = append(m.testArgs, "-test."+f[0]+"="+f[1])
		}
	}
	if *parallel > 0 {
		m.testArgs = append(m.testArgs, fmt.Sprintf("-test.parallel=%d", *parallel))
	}
	store, err := openStore(m.vm.arch, func(s string) { fmt.Fprintf(stderr, "vmtest: %s\n", s) })
	if err != nil {
		return err
	}
	if m.logs == "" {
		if m.logs, err = newLogs(filepath.Join(store.Dir, "logs"), time.Now()); err != nil {
			return err
		}
	}
	work, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(work)
	if err := m.prepare(ctx, store, names, work, *race, fl.Args(), extras); err != nil {
		return err
	}
	if err := m.runAll(ctx); err != nil {
		return err
	}
	return m.close()
}

// prepare gets kernels and programs; both take a while and do not wait for each
// other.
func (m *matrix) prepare(ctx context.Context, store *kernel.Store, names []string, work string, race bool, patterns, extras []string) error {
	var fetchErr, buildErr error
	var wg sync.WaitGroup
	wg.Go(func() { m.kernels, fetchErr = store.Get(ctx, names, false) })
	wg.Go(func() {
		if m.init, buildErr = initBinary(ctx, m.vm.arch, work); buildErr != nil {
			return
		}
		if m.tests, buildErr = buildTests(ctx, m.vm.arch, race, work, patterns); buildErr != nil {
			return
		}
		for _, spec := range extras {
			e, err := buildExtra(ctx, m.vm.arch, work, spec)
			if err != nil {
				buildErr = err
				return
			}
			m.extras = append(m.extras, e)
		}
	})
	wg.Wait()
	if err := errors.Join(fetchErr, buildErr); err != nil {
		return err
	}
	if len(m.tests) == 0 {
		return fmt.Errorf("no package of %s has tests", strings.Join(patterns, " "))
	}
	return nil
}

// keepLogs is how many runs' logs stay in the cache; younger ones than logsInUse
// may be of a run that goes on.
const (
	keepLogs  = 10
	logsInUse = 2 * time.Hour
)

// newLogs makes a folder for this run's logs in base and removes the oldest.
func newLogs(base string, now time.Time) (string, error) {
	dir := filepath.Join(base, fmt.Sprintf("%s-%d", now.UTC().Format("20060102T150405.000"), os.Getpid()))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	entries, err := os.ReadDir(base)
	if err != nil {
		return "", err
	}
	for _, e := range entries[:max(0, len(entries)-keepLogs)] {
		if info, err := e.Info(); err != nil || now.Sub(info.ModTime()) < logsInUse {
			continue
		}
		if err := os.RemoveAll(filepath.Join(base, e.Name())); err != nil {
			return "", err
		}
	}
	return dir, nil
}

// runAll boots a machine for each kernel, a few at a time. The error is of the
// host; what goes wrong in a guest is among the results.
func (m *matrix) runAll(ctx context.Context) error {
	ctx, m.abort = context.WithCancelCause(ctx)
	defer m.abort(nil)
	slots := make(chan struct{}, m.jobs)
	errs := make([]error, len(m.kernels))
	var wg sync.WaitGroup
	for i, k := range m.kernels {
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			if ctx.Err() == nil {
				errs[i] = m.runKernel(ctx, k)
			}
		})
	}
	wg.Wait()
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return errors.Join(errs...)
}

func (m *matrix) runKernel(ctx context.Context, k *kernel.Kernel) error {
	dir := filepath.Join(m.logs, strings.ReplaceAll(k.Name(), "/", "_"))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	c := machine.Config{
		Kernel: k, Init: m.init, Memory: m.vm.memory, CPUs: m.vm.cpus, Timeout: m.timeout, Dir: dir,
	}
	env := guestEnv(append(slices.Clone(m.vm.env), "VMTEST_KERNEL="+k.Name()))
	for _, e := range m.extras {
		env = append(env, e.env)
		c.Copies = append(c.Copies, machine.Copy{Host: e.file, Guest: e.guest})
	}
	for _, t := range m.tests {
		file := proto.BinDir + "/" + filepath.Base(t.file)
		c.Copies = append(c.Copies, machine.Copy{Host: t.file, Guest: file})
		for _, name := range testdata(t.dir) {
			c.Copies = append(c.Copies, machine.Copy{Host: filepath.Join(t.dir, name), Guest: t.guest + "/" + name})
		}
		c.Commands = append(c.Commands, proto.Command{
			Args: append([]string{file}, m.testArgs...), Dir: t.guest, Env: env,
			Timeout: m.testTimeout + 30*time.Second, // the test binary ends itself first
		})
	}
	h := &kernelHandler{m: m, kernel: k.Name(), dir: dir}
	err := machine.Run(ctx, c, h)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	var crash *machine.CrashError
	if err != nil && !errors.As(err, &crash) {
		return fmt.Errorf("kernel %s: %w", k.Name(), err)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if crash != nil {
		m.print(k.Name(), "FAIL: "+err.Error()+"; the kernel's last words:")
		for _, line := range crash.Console {
			m.print(k.Name(), "    "+line)
		}
		return h.abandon(err)
	}
	for _, line := range machine.Trouble(dir) {
		m.print(k.Name(), "kernel log: "+line)
	}
	return nil
}

// print writes a line of one kernel's run; m.mu is held.
func (m *matrix) print(kernel, line string) {
	if _, err := fmt.Fprintf(m.out, "[%s] %s\n", kernel, line); err != nil {
		m.abort(err)
	}
}

// kernelHandler follows one machine.
type kernelHandler struct {
	m       *matrix
	kernel  string
	dir     string
	next    int // first package that has not ended
	parser  *gotest.Parser
	log     *os.File
	result  packageResult
	started time.Time
}

var _ machine.Handler = (*kernelHandler)(nil)

func (h *kernelHandler) say(format string, args ...any) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.m.print(h.kernel, fmt.Sprintf(format, args...))
}

func (h *kernelHandler) Booted(hello proto.Hello) error {
	h.say("Linux %s, %.1fs to init", hello.Release, hello.Uptime.Seconds())
	return nil
}

func (h *kernelHandler) Started(i int) (err error) {
	t := h.m.tests[i]
	h.started = time.Now()
	h.result = packageResult{kernel: h.kernel, pkg: t.pkg, count: make(map[gotest.Verdict]int)}
	h.parser = &gotest.Parser{Report: h.report}
	h.log, err = os.Create(filepath.Join(h.dir, strings.TrimSuffix(filepath.Base(t.file), ".test")+".log"))
	return err
}

func (h *kernelHandler) Output(_ int, stderr bool, b []byte) error {
	if stderr {
		h.parser.Stderr(b)
	} else {
		h.parser.Stdout(b)
	}
	_, err := h.log.WriteString(strings.ReplaceAll(string(b), gotest.Marker, ""))
	return err
}

// report takes a test's verdict as it comes.
func (h *kernelHandler) report(r gotest.Result) {
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	h.result.count[r.Verdict]++
	id := h.result.pkg + "." + r.Name
	if h.m.verdicts[id] == nil {
		h.m.verdicts[id] = make(map[string]gotest.Verdict)
	}
	h.m.verdicts[id][h.kernel] = r.Verdict
	if !r.TopLevel() {
		return
	}
	h.m.print(h.kernel, fmt.Sprintf("--- %s: %s (%s)", r.Verdict, r.Name, r.Elapsed))
	output := r.Output
	switch {
	case r.Verdict == gotest.Fail || h.m.verbose:
	case r.Verdict == gotest.Skip && len(output) > 0:
		output = output[len(output)-1:] // the reason
	default:
		return
	}
	for _, line := range output {
		h.m.print(h.kernel, "    "+line)
	}
}

func (h *kernelHandler) Exited(i int, e proto.Exit) error {
	problem := ""
	switch {
	case e.TimedOut:
		problem = fmt.Sprintf("no end after %v", h.m.testTimeout)
	case e.Signal != "":
		problem = "ended by " + e.Signal
	case e.Code != 0 && h.result.count[gotest.Fail] == 0:
		problem = fmt.Sprintf("exit status %d", e.Code)
	}
	return h.end(i, e.Elapsed, problem, e.Code != 0)
}

// end closes the account of the package that runs.
func (h *kernelHandler) end(i int, elapsed time.Duration, problem string, bad bool) error {
	h.parser.Close()
	h.next = i + 1
	h.result.elapsed, h.result.problem = elapsed, problem
	running, rest := h.parser.Running()
	h.m.mu.Lock()
	defer h.m.mu.Unlock()
	if bad {
		for _, r := range running {
			h.m.print(h.kernel, fmt.Sprintf("--- %s: %s (did not end)", r.Verdict, r.Name))
			for _, line := range r.Output {
				h.m.print(h.kernel, "    "+line)
			}
		}
		for _, line := range rest {
			h.m.print(h.kernel, "    "+line)
		}
	}
	h.m.packages = append(h.m.packages, h.result)
	h.m.print(h.kernel, h.result.pkg+": "+tally(h.result.count)+fmt.Sprintf(" in %.1fs", elapsed.Seconds()))
	return h.log.Close()
}

// abandon accounts for the packages that a dead machine did not get to, or not
// to the end of. m.mu is held.
func (h *kernelHandler) abandon(cause error) error {
	for i := h.next; i < len(h.m.tests); i++ {
		r := packageResult{kernel: h.kernel, pkg: h.m.tests[i].pkg, problem: "not run: " + cause.Error()}
		if h.result.pkg == r.pkg {
			h.parser.Close()
			r = h.result
			r.elapsed, r.problem = time.Since(h.started), cause.Error()
			running, _ := h.parser.Running()
			for _, t := range running {
				h.m.print(h.kernel, fmt.Sprintf("--- %s: %s (did not end)", t.Verdict, t.Name))
				for _, line := range t.Output {
					h.m.print(h.kernel, "    "+line)
				}
			}
			if err := h.log.Close(); err != nil {
				return err
			}
		}
		h.m.packages = append(h.m.packages, r)
	}
	return nil
}

func (h *kernelHandler) Note(text string) error {
	h.say("%s", text)
	return nil
}

func tally(count map[gotest.Verdict]int) string {
	return fmt.Sprintf("%d passed, %d failed, %d skipped", count[gotest.Pass], count[gotest.Fail], count[gotest.Skip])
}

// close prints the account of the whole and judges it.
func (m *matrix) close() error {
	order := make(map[string]int)
	for i, k := range m.kernels {
		order[k.Name()] = i
	}
	slices.SortStableFunc(m.packages, func(a, b packageResult) int { return order[a.kernel] - order[b.kernel] })
	total := make(map[gotest.Verdict]int)
	failed := false
	ran := 0
	fmt.Fprintln(m.out)
	for _, r := range m.packages {
		for verdict, n := range r.count {
			total[verdict] += n
			ran += n
		}
		line := fmt.Sprintf("%s\t%.3fs", r.pkg, r.elapsed.Seconds())
		if r.failed() {
			failed = true
			if r.count[gotest.Fail] == 0 {
				total[gotest.Fail]++
			}
			if r.problem != "" {
				line += " [" + r.problem + "]"
			}
			fmt.Fprintf(m.out, "FAIL\t%s\t%s\n", r.kernel, line)
			continue
		}
		if len(r.count) == 0 {
			line += " [no tests to run]"
		}
		fmt.Fprintf(m.out, "ok  \t%s\t%s\n", r.kernel, line)
	}
	for _, id := range slices.Sorted(maps.Keys(m.verdicts)) {
		for _, k := range m.kernels {
			if m.verdicts[id][k.Name()] == gotest.Fail {
				fmt.Fprintf(m.out, "--- FAIL: %s on %s\n", id, k.Name())
			}
		}
	}
	for _, id := range m.neverRun() {
		failed = true
		total[gotest.Fail]++
		fmt.Fprintf(m.out, "--- FAIL: %s: skipped on every kernel, so it tests nothing\n", id)
	}
	if ran == 0 && !failed {
		failed = true
		fmt.Fprintln(m.out, "FAIL\tno test ran: does -run match any?")
	}
	if failed {
		fmt.Fprintf(m.out, "logs: %s\n", m.logs)
	}
	fmt.Fprintln(m.out, tally(total))
	if failed {
		return exitError(1)
	}
	return nil
}

// neverRun lists the tests that were skipped on every kernel. One kernel alone
// proves nothing: a test may be made for another.
func (m *matrix) neverRun() []string {
	if len(m.kernels) < 2 {
		return nil
	}
	var list []string
	for id, verdicts := range m.verdicts {
		all := len(verdicts) == len(m.kernels)
		for _, v := range verdicts {
			all = all && v == gotest.Skip
		}
		if all {
			list = append(list, id)
		}
	}
	slices.Sort(list)
	return list
}
