//go:build linux

package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/tcptrace/tcptrace/vmtest/internal/kernel"
	"github.com/tcptrace/tcptrace/vmtest/internal/machine"
	"github.com/tcptrace/tcptrace/vmtest/internal/proto"
)

// listFlag is a flag that may be given more than once.
type listFlag []string

func (l *listFlag) String() string     { return strings.Join(*l, ",") }
func (l *listFlag) Set(s string) error { *l = append(*l, s); return nil }

// vmFlags are the flags of every form that boots machines.
type vmFlags struct {
	arch   string
	memory string
	cpus   int
	env    listFlag
}

func (f *vmFlags) register(fl *flag.FlagSet) {
	fl.StringVar(&f.arch, "arch", hostArch, "architecture of the guest: "+machine.Arches)
	fl.StringVar(&f.memory, "memory", "1G", "memory of the guest, as QEMU's -m takes it")
	fl.IntVar(&f.cpus, "cpus", 0, "processors of the guest; 0: 2, but 1 for emulated kernels before 6.5")
	fl.Var(&f.env, "env", "`NAME=VALUE` for the guest's environment; repeatable")
}

// parse reads the flags of one form; help goes to stdout and is no error.
func parse(fl *flag.FlagSet, args []string, synopsis string, stdout, stderr io.Writer) error {
	fl.SetOutput(io.Discard)
	help := func(w io.Writer) {
		fmt.Fprintf(w, "usage: vmtest %s\n\nflags:\n", synopsis)
		fl.SetOutput(w)
		fl.PrintDefaults()
	}
	fl.Usage = func() {}
	switch err := fl.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		if fl.Name() == "" {
			fmt.Fprint(stdout, usage, "\n")
		}
		help(stdout)
		return exitError(0)
	case err != nil:
		fmt.Fprintf(stderr, "vmtest: error: %v\n", err)
		help(stderr)
		return exitError(2)
	}
	return nil
}

func usageError(stderr io.Writer, format string, args ...any) error {
	fmt.Fprintf(stderr, "vmtest: error: "+format+"\nvmtest: hint: vmtest -h lists forms and flags\n", args...)
	return exitError(2)
}

// runProgram is the form that runs one program.
func runProgram(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fl := flag.NewFlagSet("", flag.ContinueOnError)
	var vm vmFlags
	vm.register(fl)
	var copies listFlag
	kernelName := fl.String("kernel", "", "series such as 6.12, newest, or the `path` of a vmlinuz")
	timeout := fl.Duration("timeout", 0, "end the run after this time (default 10m, or go test's own timeout and a minute)")
	out := fl.String("out", "", "`folder` for the files that the program leaves in $VMTEST_OUT")
	verbose := fl.Bool("v", false, "tell about the machine on stderr")
	fl.Var(&copies, "copy", "`FILE[:GUESTPATH]` or folder to have in the guest, relative to the program's working folder; repeatable")
	if err := parse(fl, args, "-kernel SERIES|PATH [flags] -- PROGRAM [ARG...]", stdout, stderr); err != nil {
		return err
	}
	if *kernelName == "" {
		return usageError(stderr, "flag -kernel is missing: want a series such as 6.12, newest, or a path")
	}
	if fl.NArg() == 0 {
		return usageError(stderr, "no program to run")
	}
	if err := machine.Check(vm.arch); err != nil {
		return err
	}
	p, err := newProgram(vm, fl.Args(), copies)
	if err != nil {
		return err
	}
	if *timeout == 0 {
		*timeout = p.defaultTimeout()
	}
	dir, err := os.MkdirTemp("", "vmtest-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	notice := func(s string) { fmt.Fprintf(stderr, "vmtest: %s\n", s) }
	store, err := openStore(vm.arch, notice)
	if err != nil {
		return err
	}
	kernels, err := store.Get(ctx, []string{*kernelName}, false)
	if err != nil {
		return err
	}
	init, err := initBinary(ctx, vm.arch, dir)
	if err != nil {
		return err
	}
	h := &programHandler{stdout: stdout, stderr: stderr, notice: notice, verbose: *verbose}
	p.command.Timeout = *timeout
	err = machine.Run(ctx, machine.Config{
		Kernel: kernels[0], Init: init, Memory: vm.memory, CPUs: vm.cpus,
		Copies: p.copies, Commands: []proto.Command{p.command}, Timeout: *timeout + time.Minute, Dir: dir,
	}, h)
	var crash *machine.CrashError
	if errors.As(err, &crash) && ctx.Err() == nil && !errors.Is(err, syscall.EPIPE) {
		for _, line := range crash.Console {
			fmt.Fprintf(stderr, "[%s] %s\n", kernels[0].Name(), line)
		}
	}
	if err != nil {
		return fmt.Errorf("kernel %s: %w", kernels[0].Name(), err)
	}
	for _, line := range machine.Trouble(dir) {
		notice("kernel log: " + line)
	}
	if err := p.collect(machine.OutDir(dir), *out); err != nil {
		return err
	}
	if h.exit.TimedOut {
		notice(fmt.Sprintf("%s: no end after %v", p.command.Args[0], *timeout))
		h.exit.Code = max(1, h.exit.Code)
	}
	if h.exit.Code != 0 {
		return exitError(h.exit.Code)
	}
	return nil
}

// program is one program of the host made ready for the guest.
type program struct {
	command proto.Command
	copies  []machine.Copy
	files   map[string]string // path below the guest's OutDir -> where the host wants it
	timeout time.Duration     // go test's own
}

// newProgram finds the program and rewrites the arguments that go test -exec
// adds: what names files of the host must name files of the guest, that come
// back at the end.
func newProgram(vm vmFlags, args []string, copies []string) (*program, error) {
	file, err := exec.LookPath(args[0])
	if err != nil {
		return nil, fmt.Errorf("program %s: %w", args[0], err)
	}
	if err := checkProgram(file, vm.arch); err != nil {
		return nil, err
	}
	guestFile := proto.BinDir + "/" + filepath.Base(file)
	p := &program{copies: []machine.Copy{{Host: file, Guest: guestFile}}, files: make(map[string]string)}
	p.command = proto.Command{Args: []string{guestFile}, Dir: proto.SourceDir, Env: guestEnv(vm.env)}
	if strings.HasSuffix(file, ".test") {
		// go test runs a test in its package's folder, beside its testdata.
		copies = append(copies[:len(copies):len(copies)], testdata(".")...)
	}
	for _, c := range copies {
		host, guest, named := strings.Cut(c, ":")
		if !named {
			guest = host
		}
		if !named && !filepath.IsAbs(guest) && !filepath.IsLocal(guest) {
			return nil, fmt.Errorf("-copy %s: outside of the working folder: say where to with -copy %s:GUESTPATH", c, c)
		}
		if !path.IsAbs(guest) {
			guest = path.Join(proto.SourceDir, guest)
		}
		p.copies = append(p.copies, machine.Copy{Host: host, Guest: guest})
	}
	p.rewrite(args[1:])
	return p, nil
}

// testdata lists dir's testdata folder if there is one.
func testdata(dir string) []string {
	if info, err := os.Stat(filepath.Join(dir, "testdata")); err == nil && info.IsDir() {
		return []string{"testdata"}
	}
	return nil
}

// Flags of a test binary whose value is a file that it writes.
var outputFlags = []string{"coverprofile", "cpuprofile", "memprofile", "blockprofile", "mutexprofile", "trace"}

func (p *program) rewrite(args []string) {
	outputDir := "."
	for _, arg := range args {
		if dir, ok := strings.CutPrefix(arg, "-test.outputdir="); ok {
			outputDir = dir
		}
	}
args:
	for _, arg := range args {
		switch {
		case strings.HasPrefix(arg, "-test.testlogfile="), strings.HasPrefix(arg, "-test.outputdir="):
			// The log of opened files lets go test cache the result, as if the
			// kernel were not part of it. Without the log nothing is cached.
			continue
		case strings.HasPrefix(arg, "-test.timeout="):
			d, err := time.ParseDuration(strings.TrimPrefix(arg, "-test.timeout="))
			if err == nil {
				p.timeout = d
			}
		case strings.HasPrefix(arg, "-test.gocoverdir="):
			dir := strings.TrimPrefix(arg, "-test.gocoverdir=")
			p.files["gocover"] = dir
			p.copies = append(p.copies, machine.Copy{Host: emptyDir, Guest: proto.OutDir + "/gocover"})
			arg = "-test.gocoverdir=" + proto.OutDir + "/gocover"
		}
		for _, name := range outputFlags {
			value, ok := strings.CutPrefix(arg, "-test."+name+"=")
			if !ok {
				continue
			}
			if !filepath.IsAbs(value) {
				value = filepath.Join(outputDir, value)
			}
			p.files[name] = value
			p.command.Args = append(p.command.Args, "-test."+name+"="+proto.OutDir+"/"+name)
			continue args
		}
		p.command.Args = append(p.command.Args, arg)
	}
}

// emptyDir asks for a folder without content.
const emptyDir = ""

// defaultTimeout leaves a test binary the time to end itself, stacks included.
func (p *program) defaultTimeout() time.Duration {
	return max(10*time.Minute, p.timeout+time.Minute)
}

// collect moves what came back to where the caller wants it.
func (p *program) collect(from, to string) error {
	return filepath.WalkDir(from, func(file string, d fs.DirEntry, err error) error {
		if errors.Is(err, fs.ErrNotExist) && file == from {
			return nil
		}
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(from, file)
		if err != nil {
			return err
		}
		first, rest, _ := strings.Cut(rel, "/")
		dest, ok := p.files[first]
		switch {
		case ok:
			dest = filepath.Join(dest, rest)
		case to != "":
			dest = filepath.Join(to, rel)
		default:
			return nil
		}
		if err := os.MkdirAll(filepath.Dir(dest), 0o755); err != nil {
			return err
		}
		b, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		return os.WriteFile(dest, b, 0o644)
	})
}

// programHandler passes one program's output through.
type programHandler struct {
	stdout, stderr io.Writer
	notice         func(string)
	verbose        bool
	exit           proto.Exit
}

func (h *programHandler) Booted(hello proto.Hello) error {
	if h.verbose {
		h.notice(fmt.Sprintf("Linux %s reached init after %.1fs", hello.Release, hello.Uptime.Seconds()))
	}
	return nil
}

func (h *programHandler) Started(int) error { return nil }

func (h *programHandler) Output(_ int, stderr bool, b []byte) error {
	w := h.stdout
	if stderr {
		w = h.stderr
	}
	_, err := w.Write(b)
	return err
}

func (h *programHandler) Exited(_ int, e proto.Exit) error {
	h.exit = e
	if h.verbose {
		h.notice(fmt.Sprintf("exit status %d after %.1fs", e.Code, e.Elapsed.Seconds()))
	}
	return nil
}

func (h *programHandler) Note(text string) error {
	h.notice(text)
	return nil
}

var _ machine.Handler = (*programHandler)(nil)

// openStore opens the cache of kernels.
func openStore(arch string, notice func(string)) (*kernel.Store, error) {
	dir, err := kernel.DefaultDir()
	if err != nil {
		return nil, err
	}
	return kernel.NewStore(dir, arch, notice), nil
}
