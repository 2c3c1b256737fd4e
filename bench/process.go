//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/tracer"
)

// process is a child of which the cost is measured.
type process struct {
	cmd    *exec.Cmd
	atBeg  cpu // what it had used when it was ready
	stderr string
}

type cpu struct{ user, system time.Duration }

// command prepares a child that dies with the bench.
func command(path string, args ...string) *exec.Cmd {
	cmd := exec.Command(path, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: unix.SIGKILL}
	return cmd
}

// startTool starts a tracer with its output in a file and returns when it traces.
func startTool(t *tool, dir string) (*process, error) {
	ready := filepath.Join(dir, "ready")
	args := t.args
	if t.ours {
		os.Remove(ready)
		args = append([]string{"--ready-file", ready}, args...)
	}
	cmd := command(t.path, args...)
	out, err := os.Create(filepath.Join(dir, outFile))
	if err != nil {
		return nil, err
	}
	defer out.Close()
	talk, err := os.Create(filepath.Join(dir, "stderr"))
	if err != nil {
		return nil, err
	}
	defer talk.Close()
	cmd.Stdout, cmd.Stderr = out, talk
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	p := &process{cmd: cmd, stderr: talk.Name()}
	attached := func() bool { return isAttached(cmd.Process.Pid) }
	if t.ours {
		attached = func() bool {
			_, err := os.Stat(ready)
			return !errors.Is(err, fs.ErrNotExist)
		}
	}
	for end := time.Now().Add(20 * time.Second); !attached(); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) || hasEnded(cmd.Process.Pid) {
			_ = cmd.Process.Kill()
			_ = cmd.Wait()
			text, _ := os.ReadFile(p.stderr)
			return nil, fmt.Errorf("%s does not trace: %s", t.name, strings.TrimSpace(string(text)))
		}
	}
	p.atBeg, err = cpuOf(cmd.Process.Pid)
	return p, err
}

// isAttached reports whether a peer's programs are loaded and its perf events, which
// run them, are open; what is left then takes microseconds, and is waited for.
func isAttached(pid int) bool {
	programs, err := tracer.StatsOf(pid)
	if err != nil || len(programs) == 0 {
		return false
	}
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return false
	}
	for _, e := range entries {
		if target, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && strings.Contains(target, "[perf_event]") {
			time.Sleep(200 * time.Millisecond)
			return true
		}
	}
	return false
}

func hasEnded(pid int) bool {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return true
	}
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	return len(fields) > 0 && fields[0] == "Z"
}

// cpuOf reads the CPU time of a process that runs, to the clock tick.
func cpuOf(pid int) (cpu, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		return cpu{}, err
	}
	// proc_pid_stat(5): fields 14 and 15; the name, field 2, may have spaces.
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	if len(fields) < 13 {
		return cpu{}, fmt.Errorf("/proc/%d/stat: %d fields", pid, len(fields))
	}
	const tick = 10 * time.Millisecond // USER_HZ is 100 on every architecture of Go's
	user, err := strconv.ParseInt(fields[11], 10, 64)
	if err != nil {
		return cpu{}, err
	}
	system, err := strconv.ParseInt(fields[12], 10, 64)
	if err != nil {
		return cpu{}, err
	}
	return cpu{time.Duration(user) * tick, time.Duration(system) * tick}, nil
}

// ran reads how long all threads of a process ran, those included that have ended.
func ran(pid int) (time.Duration, error) {
	// MAKE_PROCESS_CPUCLOCK(pid, CPUCLOCK_SCHED) of include/linux/posix-timers_types.h.
	clock := int32(^pid)<<3 | 2
	var ts unix.Timespec
	if err := unix.ClockGettime(clock, &ts); err != nil {
		return 0, fmt.Errorf("read the CPU clock of process %d: %w", pid, err)
	}
	return time.Duration(ts.Nano()), nil
}

// stop ends a tracer as Ctrl-C does and returns the CPU time since it was ready, and
// the most memory that it ever held, in bytes.
func (p *process) stop() (used cpu, rss int64, err error) {
	if err := p.cmd.Process.Signal(unix.SIGINT); err != nil {
		return cpu{}, 0, err
	}
	if err := p.cmd.Wait(); err != nil {
		text, _ := os.ReadFile(p.stderr)
		return cpu{}, 0, fmt.Errorf("%s: %w: %s", p.cmd.Path, err, strings.TrimSpace(string(text)))
	}
	usage := p.cmd.ProcessState.SysUsage().(*syscall.Rusage)
	used.user = time.Duration(usage.Utime.Nano()) - p.atBeg.user
	used.system = time.Duration(usage.Stime.Nano()) - p.atBeg.system
	return used, usage.Maxrss << 10, nil
}
