package owner

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// userHZ is USER_HZ, the unit of starttime in /proc/PID/stat: 100 on every
// architecture that Go knows.
const userHZ = 100

const tickNS = int64(1_000_000_000 / userHZ)

// slowEvery is after how many refreshes the limits and the cgroup of a process,
// which hardly ever change, are read again.
const slowEvery = 8

// Processes answers what is known of processes. It implements watch.Processes.
// Not safe for concurrent use.
type Processes struct {
	proc  string
	sized bool  // proc is a process file system: the size of fd may be a count
	boot  int64 // CLOCK_BOOTTIME - CLOCK_MONOTONIC, ns
	round uint32
	known map[uint32]*process
	buf   []byte

	notes   []string
	noted   map[string]bool
	checked bool // whether /proc hides processes
}

// process is what was read of one process.
type process struct {
	watch.Process
	starttime uint64
	round     uint32 // when it was read
	slow      uint32 // when limits and cgroup were
	ok        bool
}

// NewProcesses returns what the process file system at proc knows. bootOffset is
// CLOCK_BOOTTIME - CLOCK_MONOTONIC in ns: the time that the machine slept.
func NewProcesses(proc string, bootOffset int64) *Processes {
	return &Processes{
		proc: proc, sized: isProcFS(proc), boot: bootOffset, round: 1, known: make(map[uint32]*process),
		buf: make([]byte, 0, 4096), noted: make(map[string]bool),
	}
}

// Refresh forgets the answers, and the processes that nobody asked about in the
// round that ends.
func (p *Processes) Refresh() {
	for pid, k := range p.known {
		if k.round != p.round {
			delete(p.known, pid)
		}
	}
	p.round++
}

// Notes returns, once each, what could not be read for want of permission.
func (p *Processes) Notes() []string {
	notes := p.notes
	p.notes = nil
	return notes
}

func (p *Processes) note(text string) {
	if !p.noted[text] {
		p.noted[text] = true
		p.notes = append(p.notes, text)
	}
}

// Process returns what is known of pid. It is false where there is no such process,
// or none is to be seen.
func (p *Processes) Process(pid uint32) (watch.Process, bool) {
	k := p.known[pid]
	if k != nil && k.round == p.round {
		return k.Process, k.ok
	}
	stat, err := p.read(pid, "stat")
	if err != nil {
		p.missing(err)
		p.known[pid] = &process{round: p.round}
		return watch.Process{}, false
	}
	comm, ppid, starttime, ok := parseStat(stat)
	if !ok {
		p.known[pid] = &process{round: p.round}
		return watch.Process{}, false
	}
	if k == nil || !k.ok || k.starttime != starttime {
		// Another process may have the number now.
		k = &process{starttime: starttime, ok: true}
		p.known[pid] = k
		k.UID, k.NofileSoft = events.Unknown, -1
	}
	k.round = p.round
	k.Comm, k.PPID = comm, ppid
	k.StartTS = int64(starttime)*tickNS - p.boot
	k.Cmdline = p.cmdline(pid, k.Cmdline)
	k.OpenFDs = p.openFDs(pid)
	if k.slow == 0 || p.round-k.slow >= slowEvery {
		k.slow = p.round
		k.UID = p.uid(pid)
		k.NofileSoft = p.nofileSoft(pid)
		k.Unit = p.unit(pid)
	}
	return k.Process, true
}

func (p *Processes) path(pid uint32, name string) string {
	return p.proc + "/" + strconv.FormatUint(uint64(pid), 10) + "/" + name
}

// read returns a file of a process, valid until the next read.
func (p *Processes) read(pid uint32, name string) ([]byte, error) {
	f, err := os.Open(p.path(pid, name))
	if err != nil {
		return nil, err
	}
	defer f.Close()
	buf := p.buf[:0]
	for {
		n, err := f.Read(buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		if n == 0 || err != nil {
			p.buf = buf
			if err != nil && !errors.Is(err, io.EOF) {
				return nil, err
			}
			return buf, nil
		}
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
	}
}

// missing notes why a process cannot be seen that a walk found alive. Most often
// it has just ended, of which there is nothing to say.
func (p *Processes) missing(err error) {
	if errors.Is(err, fs.ErrPermission) {
		p.note("/proc does not let other processes be read: their command lines, limits and units are not known")
		return
	}
	if p.checked {
		return
	}
	p.checked = true
	// With hidepid (proc(5)) or in a process namespace of one's own, others look
	// like ended ones. The first process never ends.
	if _, err := os.Stat(filepath.Join(p.proc, "1", "stat")); err != nil {
		p.note("/proc hides other processes (hidepid): their command lines, limits and units are not known")
	}
}

// denied notes a file that may not be read though the process is to be seen.
func (p *Processes) denied(err error) {
	if errors.Is(err, fs.ErrPermission) {
		p.note("some of /proc may not be read (needs CAP_SYS_PTRACE): descriptors or limits of other users' processes are not known")
	}
}

// parseStat reads the name, the parent and the start of a process from its stat
// file (proc_pid_stat(5)). The name stands in parentheses and may have any in it.
func parseStat(stat []byte) (comm string, ppid uint32, starttime uint64, ok bool) {
	open, end := bytes.IndexByte(stat, '('), bytes.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return "", 0, 0, false
	}
	// From field 3, the state, on: ppid is field 4, starttime field 22.
	fields := bytes.Fields(stat[end+1:])
	if len(fields) < 20 {
		return "", 0, 0, false
	}
	parent, err := strconv.ParseUint(string(fields[1]), 10, 32)
	if err != nil {
		return "", 0, 0, false
	}
	start, err := strconv.ParseUint(string(fields[19]), 10, 63)
	if err != nil || start > uint64(math.MaxInt64/tickNS) {
		return "", 0, 0, false
	}
	return string(stat[open+1 : end]), uint32(parent), start, true
}

// maxArgs bounds what is kept of a command line, in bytes.
const maxArgs = 4096

// cmdline returns the command line, old where that is still the same. A kernel
// thread or a zombie has none.
func (p *Processes) cmdline(pid uint32, old []string) []string {
	raw, err := p.read(pid, "cmdline")
	if err != nil {
		p.denied(err)
		return nil
	}
	raw = raw[:min(len(raw), maxArgs)]
	raw = bytes.TrimRight(raw, "\x00")
	if len(raw) == 0 {
		return nil
	}
	if same(raw, old) {
		return old
	}
	return strings.Split(string(raw), "\x00")
}

// same reports whether raw is the arguments with a NUL between each two.
func same(raw []byte, args []string) bool {
	for i, a := range args {
		rest, ok := bytes.CutPrefix(raw, []byte(a))
		if !ok {
			return false
		}
		if i == len(args)-1 {
			return len(rest) == 0
		}
		if len(rest) == 0 || rest[0] != 0 {
			return false
		}
		raw = rest[1:]
	}
	return false
}

// openFDs counts the descriptors of a process, -1 unknown.
func (p *Processes) openFDs(pid uint32) int64 {
	path := p.path(pid, "fd")
	// From 6.2 on the size of the directory is the number of its entries
	// (f1f1f2569901, "proc: report open files as size in stat() for /proc/pid/fd").
	if p.sized {
		if fi, err := os.Stat(path); err == nil && fi.Size() > 0 {
			return fi.Size()
		}
	}
	dir, err := os.Open(path)
	if err != nil {
		p.denied(err)
		return -1
	}
	defer dir.Close()
	n := int64(0)
	for {
		names, err := dir.Readdirnames(4096)
		n += int64(len(names))
		if err != nil || len(names) == 0 {
			return n
		}
	}
}

// uid returns the effective user of a process.
func (p *Processes) uid(pid uint32) int64 {
	status, err := p.read(pid, "status")
	if err != nil {
		p.denied(err)
		return events.Unknown
	}
	// Uid: real effective saved filesystem
	if fields := fieldsOf(status, "Uid:"); len(fields) >= 2 {
		if uid, err := strconv.ParseUint(string(fields[1]), 10, 32); err == nil {
			return int64(uid)
		}
	}
	return events.Unknown
}

// nofileSoft returns the soft limit of descriptors, -1 unknown or none.
func (p *Processes) nofileSoft(pid uint32) int64 {
	limits, err := p.read(pid, "limits")
	if err != nil {
		p.denied(err)
		return -1
	}
	if fields := fieldsOf(limits, "Max open files"); len(fields) >= 1 {
		if n, err := strconv.ParseInt(string(fields[0]), 10, 64); err == nil {
			return n
		}
	}
	return -1
}

// fieldsOf returns the fields behind the name that begins a line.
func fieldsOf(text []byte, name string) [][]byte {
	for line := range bytes.Lines(text) {
		if rest, ok := bytes.CutPrefix(line, []byte(name)); ok {
			return bytes.Fields(rest)
		}
	}
	return nil
}

func (p *Processes) unit(pid uint32) watch.Unit {
	text, err := p.read(pid, "cgroup")
	if err != nil {
		p.denied(err)
		return watch.Unit{}
	}
	return unitOf(string(text))
}

// BootOffset returns CLOCK_BOOTTIME - CLOCK_MONOTONIC of this machine, ns.
func BootOffset() (int64, error) {
	off, err := bootOffset()
	if err != nil {
		return 0, fmt.Errorf("read the boot clock: %w", err)
	}
	return off, nil
}
