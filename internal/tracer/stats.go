//go:build linux

package tracer

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
)

// ProgramStats is what the kernel accounts to one BPF program while somebody keeps
// EnableStats open.
type ProgramStats struct {
	ID      uint32
	Name    string // at most 15 bytes of it
	Runs    uint64
	Runtime time.Duration
	Missed  uint64 // runs left out because the program was at work (5.12)
}

// EnableStats makes the kernel account the runs of every BPF program until it is
// closed (BPF_ENABLE_STATS, 5.8). The accounting costs a reading of the clock before
// and after each run, and counts about one of the two.
func EnableStats() (io.Closer, error) {
	stats, err := ebpf.EnableStats(0) // BPF_STATS_RUN_TIME
	if err != nil {
		return nil, fmt.Errorf("enable the statistics of BPF programs: %w", err)
	}
	return stats, nil
}

// StatsOf returns the programs that a process has open, by id.
func StatsOf(pid int) ([]ProgramStats, error) {
	dir := fmt.Sprintf("/proc/%d/fdinfo", pid)
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	var all []ProgramStats
	for _, e := range entries {
		p, ok := programOf(filepath.Join(dir, e.Name()))
		if !ok || slices.ContainsFunc(all, func(q ProgramStats) bool { return q.ID == p.ID }) {
			continue
		}
		program, err := ebpf.NewProgramFromID(ebpf.ProgramID(p.ID))
		if err != nil {
			return nil, fmt.Errorf("open BPF program %d: %w", p.ID, err)
		}
		info, err := program.Info()
		program.Close()
		if err != nil {
			return nil, fmt.Errorf("read about BPF program %d: %w", p.ID, err)
		}
		p.Name = info.Name
		all = append(all, p)
	}
	slices.SortFunc(all, func(a, b ProgramStats) int { return int(a.ID) - int(b.ID) })
	return all, nil
}

// programOf reads the fdinfo of one descriptor; false: of no program, or closed.
func programOf(path string) (p ProgramStats, ok bool) {
	f, err := os.Open(path)
	if err != nil {
		return p, false
	}
	defer f.Close()
	// bpf_prog_show_fdinfo; the file of a link has a prog_id, too, but no times.
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), ":")
		n, err := strconv.ParseUint(strings.TrimSpace(value), 10, 64)
		if err != nil {
			continue
		}
		switch name {
		case "prog_id":
			p.ID = uint32(n)
		case "run_time_ns":
			p.Runtime, ok = time.Duration(n), true
		case "run_cnt":
			p.Runs = n
		case "recursion_misses":
			p.Missed = n
		}
	}
	return p, ok
}
