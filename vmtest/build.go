//go:build linux

package main

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/tcptrace/tcptrace/vmtest/internal/proto"
)

const hostArch = runtime.GOARCH

// self is this package, for building the guest's init where the running binary
// is of another architecture.
const self = "github.com/tcptrace/tcptrace/vmtest"

var elfMachines = map[string]elf.Machine{"amd64": elf.EM_X86_64, "arm64": elf.EM_AARCH64}

// checkProgram refuses what the guest, which has no libraries and no shell,
// could not run.
func checkProgram(file, arch string) error {
	f, err := elf.Open(file)
	if err != nil {
		return fmt.Errorf("program %s: not an ELF executable: %w", file, err)
	}
	defer f.Close()
	if f.Machine != elfMachines[arch] {
		return fmt.Errorf("program %s: built for %v, and the guest is %s: build it with GOARCH=%s", file, f.Machine, arch, arch)
	}
	for _, p := range f.Progs {
		if p.Type == elf.PT_INTERP {
			return fmt.Errorf("program %s: dynamically linked, and the guest has no libraries: build it with CGO_ENABLED=0", file)
		}
	}
	return nil
}

// guestEnv is the environment of a guest's programs.
func guestEnv(extra []string) []string {
	return append([]string{
		"PATH=" + proto.BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "USER=root", "TMPDIR=/tmp", "TERM=dumb", "TZ=UTC",
		"VMTEST=1", "VMTEST_OUT=" + proto.OutDir,
	}, extra...)
}

// goCommand runs the go command for static programs of the guest. The caller's
// environment may be that of a go test run, with flags of its own.
func goCommand(ctx context.Context, arch string, race bool, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, "go", args...)
	cgo := "0"
	if race {
		cgo = "1"
	}
	cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo, "GOOS=linux", "GOARCH="+arch)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("go %s: %w\n%s", strings.Join(args, " "), err, bytes.TrimSpace(append(stdout.Bytes(), stderr.Bytes()...)))
	}
	return stdout.Bytes(), nil
}

// initBinary returns the program that is the guest's init: this one, unless it
// cannot run there.
func initBinary(ctx context.Context, arch, dir string) (string, error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if checkProgram(exe, arch) == nil {
		return exe, nil
	}
	file := filepath.Join(dir, "init")
	if _, err := goCommand(ctx, arch, false, "build", "-ldflags=-s -w", "-o", file, self); err != nil {
		return "", fmt.Errorf("init for %s: %w", arch, err)
	}
	return file, nil
}

// testBinary is one package's tests.
type testBinary struct {
	pkg   string // import path
	file  string
	dir   string // source folder on the host
	guest string // working folder in the guest
}

// buildTests builds the tests of the packages that patterns match and that have
// any.
func buildTests(ctx context.Context, arch string, race bool, dir string, patterns []string) ([]testBinary, error) {
	out, err := goCommand(ctx, arch, false, append([]string{"list", "-f",
		`{{if or .TestGoFiles .XTestGoFiles}}{{.ImportPath}}{{"\t"}}{{.Dir}}{{end}}`, "--"}, patterns...)...)
	if err != nil {
		return nil, err
	}
	var list []testBinary
	for line := range strings.Lines(string(out)) {
		pkg, src, ok := strings.Cut(strings.TrimSpace(line), "\t")
		if !ok {
			continue
		}
		b := testBinary{pkg: pkg, dir: src, guest: path.Join(proto.SourceDir, pkg)}
		b.file = filepath.Join(dir, fmt.Sprintf("%02d-%s.test", len(list), path.Base(pkg)))
		args := []string{"test", "-c", "-o", b.file}
		if race {
			args = append(args, "-race", "-ldflags=-linkmode external -extldflags -static")
		} else {
			args = append(args, "-ldflags=-s -w")
		}
		if _, err := goCommand(ctx, arch, race, append(args, pkg)...); err != nil {
			return nil, err
		}
		list = append(list, b)
	}
	return list, nil
}

// extraProgram is a program that tests start; its guest path is in the
// environment as NAME_BIN.
type extraProgram struct {
	file, guest, env string
}

// buildExtra takes a program, or builds it if it is given as the folder of a Go
// command.
func buildExtra(ctx context.Context, arch, dir, spec string) (extraProgram, error) {
	info, err := os.Stat(spec)
	if err != nil {
		return extraProgram{}, fmt.Errorf("-extra: %w", err)
	}
	abs, err := filepath.Abs(spec)
	if err != nil {
		return extraProgram{}, err
	}
	e := extraProgram{file: abs}
	base := filepath.Base(abs)
	if info.IsDir() {
		e.file = filepath.Join(dir, "bin-"+base)
		if _, err := goCommand(ctx, arch, false, "build", "-ldflags=-s -w", "-o", e.file, abs); err != nil {
			return extraProgram{}, fmt.Errorf("-extra %s: %w", spec, err)
		}
	}
	if err := checkProgram(e.file, arch); err != nil {
		return extraProgram{}, fmt.Errorf("-extra: %w", err)
	}
	e.guest = proto.BinDir + "/" + base
	e.env = envName(base) + "_BIN=" + e.guest
	return e, nil
}

// envName turns a program's name into an environment variable's: upper case,
// and _ for what is neither letter nor digit.
func envName(name string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z', r >= '0' && r <= '9':
			return r
		}
		return '_'
	}, name)
}
