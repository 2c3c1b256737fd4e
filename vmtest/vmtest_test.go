//go:build linux

package main

import (
	"bytes"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcptrace/tcptrace/vmtest/internal/gotest"
	"github.com/tcptrace/tcptrace/vmtest/internal/kernel"
	"github.com/tcptrace/tcptrace/vmtest/internal/machine"
	"github.com/tcptrace/tcptrace/vmtest/internal/proto"
)

// The same binary must run in a guest that has no libraries.
func TestStatic(t *testing.T) {
	file := filepath.Join(t.TempDir(), "vmtest")
	out, err := exec.Command("go", "build", "-o", file, ".").CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := checkProgram(file, hostArch); err != nil {
		t.Error(err)
	}
}

func TestCheckProgram(t *testing.T) {
	text := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(text, []byte("#!/bin/sh\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ file, arch, want string }{
		{"/bin/sh", hostArch, "build it with CGO_ENABLED=0"},
		{text, hostArch, "not an ELF executable"},
		{"/bin/sh", map[string]string{"amd64": "arm64", "arm64": "amd64"}[hostArch], "build it with GOARCH="},
	} {
		if err := checkProgram(test.file, test.arch); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s on %s: got %v, want %q", test.file, test.arch, err, test.want)
		}
	}
}

// The flags of go test name files of the host.
func TestRewrite(t *testing.T) {
	p := &program{files: make(map[string]string)}
	p.rewrite([]string{
		"-test.testlogfile=/tmp/log", "-test.v=true", "-test.timeout=15m0s", "-test.outputdir=/src",
		"-test.coverprofile=cover.out", "-test.cpuprofile=/abs/cpu.prof", "-test.gocoverdir=/tmp/cover", "-arg", "x",
	})
	if want := []string{
		"-test.v=true", "-test.timeout=15m0s", "-test.coverprofile=" + proto.OutDir + "/coverprofile",
		"-test.cpuprofile=" + proto.OutDir + "/cpuprofile", "-test.gocoverdir=" + proto.OutDir + "/gocover", "-arg", "x",
	}; !reflect.DeepEqual(p.command.Args, want) {
		t.Errorf("args: got %q, want %q", p.command.Args, want)
	}
	if want := map[string]string{"coverprofile": "/src/cover.out", "cpuprofile": "/abs/cpu.prof", "gocover": "/tmp/cover"}; !reflect.DeepEqual(p.files, want) {
		t.Errorf("files: got %q, want %q", p.files, want)
	}
	if got, want := p.defaultTimeout(), 16*time.Minute; got != want {
		t.Errorf("timeout: got %v, want %v", got, want)
	}
}

func TestCollect(t *testing.T) {
	from, to := t.TempDir(), t.TempDir()
	p := &program{files: map[string]string{"coverprofile": filepath.Join(to, "c.out"), "gocover": filepath.Join(to, "cover")}}
	for _, name := range []string{"coverprofile", "gocover/meta", "trace.zst"} {
		file := filepath.Join(from, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.collect(from, filepath.Join(to, "rest")); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{"c.out": "coverprofile", "cover/meta": "gocover/meta", "rest/trace.zst": "trace.zst"} {
		if got, err := os.ReadFile(filepath.Join(to, file)); err != nil || string(got) != want {
			t.Errorf("%s: got %q, %v; want %q", file, got, err, want)
		}
	}
	if err := p.collect(filepath.Join(from, "missing"), ""); err != nil {
		t.Errorf("nothing came back: %v", err)
	}
}

func TestNewProgram(t *testing.T) {
	self, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	t.Chdir(dir)
	build := exec.Command("go", "build", "-C", self, "-o", filepath.Join(dir, "x.test"), ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if err := os.Mkdir("testdata", 0o755); err != nil {
		t.Fatal(err)
	}
	p, err := newProgram(vmFlags{arch: hostArch}, []string{"./x.test", "a"}, []string{"/etc/hosts", "data/x", "../y:/y"})
	if err != nil {
		t.Fatal(err)
	}
	want := []machine.Copy{
		{Host: "./x.test", Guest: proto.BinDir + "/x.test"},
		{Host: "/etc/hosts", Guest: "/etc/hosts"},
		{Host: "data/x", Guest: proto.SourceDir + "/data/x"},
		{Host: "../y", Guest: "/y"},
		{Host: "testdata", Guest: proto.SourceDir + "/testdata"},
	}
	if !reflect.DeepEqual(p.copies, want) {
		t.Errorf("copies: got %v, want %v", p.copies, want)
	}
	if _, err := newProgram(vmFlags{arch: hostArch}, []string{"./x.test"}, []string{"../y"}); err == nil {
		t.Error("-copy ../y: no error")
	}
}

func TestUsageErrors(t *testing.T) {
	for _, test := range []struct {
		args []string
		want string
	}{
		{nil, "usage: vmtest"},
		{[]string{"-kernel", "6.12"}, "no program"},
		{[]string{"--", "x"}, "-kernel is missing"},
		{[]string{"-colour"}, "-colour"},
		{[]string{"matrix"}, "no packages"},
		{[]string{"matrix", "-kernels", ",", "x"}, "-kernels is empty"},
		{[]string{"matrix", "-jobs", "0", "x"}, "-jobs: got 0"},
		{[]string{"fetch", "6.12"}, "takes no arguments"},
	} {
		var stdout, stderr bytes.Buffer
		err := run(t.Context(), test.args, &stdout, &stderr)
		if exit := exitError(0); !errors.As(err, &exit) || exit != 2 || !strings.Contains(stderr.String(), test.want) || stdout.Len() > 0 {
			t.Errorf("%q: got %v, %q; want exit status 2 and %q", test.args, err, stderr.String(), test.want)
		}
	}
	var stdout, stderr bytes.Buffer
	if err := run(t.Context(), []string{"-h"}, &stdout, &stderr); err != exitError(0) || !strings.Contains(stdout.String(), "-memory") || stderr.Len() > 0 {
		t.Errorf("-h: got %v, stdout %q, stderr %q", err, stdout.String(), stderr.String())
	}
}

func TestEnvName(t *testing.T) {
	if got, want := envName("tcp-trace2"), "TCP_TRACE2"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// matrixAfter is a matrix whose machines reported the given verdicts:
// kernel -> test -> verdict.
func matrixAfter(verdicts map[string]map[string]gotest.Verdict, problems map[string]string) (*matrix, *bytes.Buffer) {
	var out bytes.Buffer
	m := &matrix{out: &out, logs: "LOGS", verdicts: make(map[string]map[string]gotest.Verdict)}
	var names []string
	for name := range verdicts {
		names = append(names, name)
	}
	slices.Sort(names)
	for _, name := range names {
		m.kernels = append(m.kernels, &kernel.Kernel{Asked: name})
		h := &kernelHandler{m: m, kernel: name, result: packageResult{kernel: name, pkg: "p", count: make(map[gotest.Verdict]int), problem: problems[name]}}
		for test, v := range verdicts[name] {
			h.report(gotest.Result{Name: test, Verdict: v, Elapsed: "1.00s"})
		}
		m.packages = append(m.packages, h.result)
	}
	out.Reset()
	return m, &out
}

func TestMatrixClose(t *testing.T) {
	type verdicts = map[string]map[string]gotest.Verdict
	for _, test := range []struct {
		name     string
		verdicts verdicts
		problems map[string]string
		ok       bool
		want     string
	}{
		{"green", verdicts{"5.10": {"TestA": gotest.Skip, "TestB": gotest.Pass}, "6.12": {"TestA": gotest.Pass, "TestB": gotest.Pass}}, nil, true,
			"\nok  \t5.10\tp\t0.000s\nok  \t6.12\tp\t0.000s\n3 passed, 0 failed, 1 skipped\n"},
		{"failed", verdicts{"5.10": {"TestA": gotest.Pass}, "6.12": {"TestA": gotest.Fail}}, nil, false,
			"\nok  \t5.10\tp\t0.000s\nFAIL\t6.12\tp\t0.000s\n--- FAIL: p.TestA on 6.12\nlogs: LOGS\n1 passed, 1 failed, 0 skipped\n"},
		{"skipped everywhere", verdicts{"5.10": {"TestA": gotest.Skip, "TestB": gotest.Pass}, "6.12": {"TestA": gotest.Skip, "TestB": gotest.Pass}}, nil, false,
			"\nok  \t5.10\tp\t0.000s\nok  \t6.12\tp\t0.000s\n--- FAIL: p.TestA: skipped on every kernel, so it tests nothing\nlogs: LOGS\n2 passed, 1 failed, 2 skipped\n"},
		{"skipped on the only kernel", verdicts{"6.12": {"TestA": gotest.Skip}}, nil, true,
			"\nok  \t6.12\tp\t0.000s\n0 passed, 0 failed, 1 skipped\n"},
		{"crashed", verdicts{"5.10": {"TestA": gotest.Pass}, "6.12": {}}, map[string]string{"6.12": "the kernel crashed"}, false,
			"\nok  \t5.10\tp\t0.000s\nFAIL\t6.12\tp\t0.000s [the kernel crashed]\nlogs: LOGS\n1 passed, 1 failed, 0 skipped\n"},
		{"nothing ran", verdicts{"6.12": {}}, nil, false,
			"\nok  \t6.12\tp\t0.000s [no tests to run]\nFAIL\tno test ran: does -run match any?\nlogs: LOGS\n0 passed, 0 failed, 0 skipped\n"},
	} {
		t.Run(test.name, func(t *testing.T) {
			m, out := matrixAfter(test.verdicts, test.problems)
			if err := m.close(); (err == nil) != test.ok {
				t.Errorf("got %v, want ok %t", err, test.ok)
			}
			if out.String() != test.want {
				t.Errorf("got:\n%swant:\n%s", out, test.want)
			}
		})
	}
}

func TestNewLogs(t *testing.T) {
	base := t.TempDir()
	now := time.Now()
	add := func(age time.Duration) string {
		t.Helper()
		dir, err := newLogs(base, now.Add(-age))
		if err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(dir, now.Add(-age), now.Add(-age)); err != nil {
			t.Fatal(err)
		}
		return filepath.Base(dir)
	}
	var want []string
	for i := range keepLogs + 3 {
		dir := add(logsInUse*2 - time.Duration(i)*time.Minute)
		if i >= 4 {
			want = append(want, dir)
		}
	}
	want = append(want, add(0))
	entries, err := os.ReadDir(base)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if !slices.Equal(got, want) {
		t.Errorf("old runs: got %q, want %q", got, want)
	}
	// Runs of the last minutes stay, however many.
	for i := range keepLogs + 3 {
		add(time.Minute - time.Duration(i)*time.Second)
	}
	if entries, err = os.ReadDir(base); err != nil || len(entries) != keepLogs+4 {
		t.Errorf("young runs: got %d folders, %v; want %d", len(entries), err, keepLogs+4)
	}
}
