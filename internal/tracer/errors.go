//go:build linux

package tracer

import (
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Error is a failure with what the user can do about it.
type Error struct {
	Err  error
	hint string
}

func (e *Error) Error() string { return e.Err.Error() }
func (e *Error) Unwrap() error { return e.Err }

// Hint says what to do.
func (e *Error) Hint() string { return e.hint }

func withHint(hint string, err error) error { return &Error{Err: err, hint: hint} }

const (
	btfPath      = "/sys/kernel/btf/vmlinux"
	lockdownPath = "/sys/kernel/security/lockdown"
)

// lockdown returns the kernel's lockdown mode: none, integrity or
// confidentiality; empty where the kernel has no lockdown (or hides it).
func lockdown(path string) string {
	b, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	_, rest, ok := strings.Cut(string(b), "[")
	if !ok {
		return ""
	}
	mode, _, _ := strings.Cut(rest, "]")
	return mode
}

// preflight finds what makes any tracing impossible, each with its own error.
func preflight(missing []string, lockdownPath, btfPath string) error {
	if len(missing) > 0 {
		return withHint("run it with sudo, or give the binary what it needs: "+
			"setcap cap_bpf,cap_perfmon,cap_sys_admin,cap_sys_ptrace+ep tcptrace",
			fmt.Errorf("missing %s: loading BPF programs is not permitted", strings.Join(missing, ", ")))
	}
	if lockdown(lockdownPath) == "confidentiality" {
		return withHint("boot without lockdown=confidentiality (integrity is no obstacle), or trace on another machine",
			errors.New("the kernel is locked down (confidentiality): BPF programs may not read kernel memory"))
	}
	if _, err := os.Stat(btfPath); err != nil {
		return withHint("use a kernel built with CONFIG_DEBUG_INFO_BTF=y; the kernels of Debian 11, Ubuntu 20.10, RHEL 8.2 and later have it",
			fmt.Errorf("the kernel has no BTF (%s): %w", btfPath, err))
	}
	return nil
}

// explainLoad turns an error of a load into one that says what to do.
func explainLoad(err error) error {
	switch {
	case errors.Is(err, ebpf.ErrNotSupported):
		return withHint("tcptrace needs Linux 5.8 (ring buffer, BPF iterators); `tcptrace --features` shows what is there", err)
	case errors.Is(err, unix.EPERM):
		return withHint("a container needs --privileged or the capabilities BPF, PERFMON, SYS_ADMIN and SYS_PTRACE; "+
			"`tcptrace --features` shows what is missing", err)
	}
	return err
}
