//go:build linux

// Package cgroup owns the way from a cgroup's id, which the kernel side reads
// from a socket, to its path, and a cgroup of our own to run a command in.
//
// Paths are below the mount of the cgroup2 hierarchy; it alone has the ids that
// sockets carry (sock_cgroup_data).
package cgroup

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup2 says that no cgroup2 hierarchy is mounted.
var ErrNoCgroup2 = errors.New("no cgroup2 hierarchy is mounted")

// Mount returns a path to the root of the cgroup2 hierarchy: its mount point or,
// where none is to be seen (ip-netns(8) exec hides it, and a machine of cgroup v1
// has none), a mount of our own that is attached nowhere and ends with the process.
func Mount() (string, error) {
	if path, err := mounted("/proc/self/mountinfo"); !errors.Is(err, ErrNoCgroup2) {
		return path, err
	}
	return detached()
}

// mounted returns the mount point.
func mounted(mountinfo string) (string, error) {
	f, err := os.Open(mountinfo)
	if err != nil {
		return "", err
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		// proc_pid_mountinfo(5): id parent major:minor root mountpoint options
		// [optional ...] - type source superoptions
		before, after, ok := strings.Cut(lines.Text(), " - ")
		fields := strings.Fields(before)
		if ok && len(fields) > 4 && strings.HasPrefix(after, "cgroup2 ") {
			return unescape(fields[4]), nil
		}
	}
	if err := lines.Err(); err != nil {
		return "", err
	}
	return "", ErrNoCgroup2
}

// unescape undoes the octal escapes of mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace

// fdPrefix is where a path to a detached mount begins.
const fdPrefix = "/proc/self/fd/"

// detached mounts the hierarchy once (fsopen(2), 5.2; it needs CAP_SYS_ADMIN) and
// keeps it open.
var detached = sync.OnceValues(func() (string, error) {
	fs, err := unix.Fsopen("cgroup2", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCgroup2, err)
	}
	defer unix.Close(fs)
	if err := unix.FsconfigCreate(fs); err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCgroup2, err)
	}
	fd, err := unix.Fsmount(fs, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return "", fmt.Errorf("%w: %w", ErrNoCgroup2, err)
	}
	return fdPrefix + strconv.Itoa(fd), nil
})

// maxPaths bounds what Paths remembers; containers come and go.
const maxPaths = 8192

// Paths finds paths by id and remembers them. Not safe for concurrent use.
type Paths struct {
	mount string
	fd    int // the mount point's descriptor, which open_by_handle_at wants
	known map[uint64]string
	// The one that was asked for last: what comes next is mostly of it too.
	lastID   uint64
	lastPath string
	// walkAfter is the earliest time of the next walk over the hierarchy,
	// which stands in for open_by_handle_at where that is not permitted.
	walkAfter time.Time
}

// OpenPaths returns Paths of the hierarchy at mount.
func OpenPaths(mount string) (*Paths, error) {
	fd, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: mount, Err: err}
	}
	return &Paths{mount: mount, fd: fd, known: make(map[uint64]string)}, nil
}

// Close frees the hierarchy.
func (p *Paths) Close() error { return unix.Close(p.fd) }

// Path returns the path of the cgroup, or an empty text where it is unknown: gone
// before it was first asked for, or not in this cgroup namespace.
func (p *Paths) Path(id uint64) string {
	if id == 0 {
		return ""
	}
	if id == p.lastID {
		return p.lastPath
	}
	path := p.find(id)
	p.lastID, p.lastPath = id, path
	return path
}

func (p *Paths) find(id uint64) string {
	if path, ok := p.known[id]; ok {
		return path
	}
	if len(p.known) >= maxPaths {
		clear(p.known)
	}
	path, err := p.byHandle(id)
	if errors.Is(err, unix.EPERM) && !time.Now().Before(p.walkAfter) {
		p.walk()
		path = p.known[id]
	}
	p.known[id] = path
	return path
}

// fileidKernfs is FILEID_KERNFS of include/linux/exportfs.h (33c5ac9175cd,
// kernfs: implement custom exportfs ops and fid type, 5.5): 8 bytes, the id.
const fileidKernfs = 0xfe

// byHandle asks the kernel, which needs CAP_DAC_READ_SEARCH.
func (p *Paths) byHandle(id uint64) (string, error) {
	var b [8]byte
	binary.NativeEndian.PutUint64(b[:], id)
	fd, err := unix.OpenByHandleAt(p.fd, unix.NewFileHandle(fileidKernfs, b[:]), unix.O_PATH|unix.O_CLOEXEC)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd))
	if err != nil {
		return "", err
	}
	return p.below(path)
}

func (p *Paths) below(path string) (string, error) {
	rest, ok := strings.CutPrefix(path, p.mount)
	if !ok && strings.HasPrefix(p.mount, fdPrefix) {
		rest, ok = strings.TrimSuffix(path, "/"), true // of a detached mount, the kernel tells the path from its root
	}
	if !ok || strings.HasSuffix(rest, " (deleted)") {
		return "", fs.ErrNotExist
	}
	if rest == "" {
		return "/", nil
	}
	return rest, nil
}

// walk learns all paths: a directory's inode number is the id where ino_t has 64
// bits.
func (p *Paths) walk() {
	const between = time.Second
	filepath.WalkDir(p.mount+"/", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // gone meanwhile, or not ours to see
		}
		if !d.IsDir() {
			return nil
		}
		var st unix.Stat_t
		if unix.Stat(path, &st) == nil && len(p.known) < maxPaths {
			if below, err := p.below(strings.TrimSuffix(path, "/")); err == nil {
				p.known[st.Ino] = below
			}
		}
		return nil
	})
	p.walkAfter = time.Now().Add(between)
}

// MemoryLimit returns the least memory.max of the calling process' cgroup and those
// above it, as far as they are to be seen (cgroup v2 interface files); false: none.
func MemoryLimit(mount string) (bytes uint64, ok bool) {
	own, err := self()
	if err != nil {
		return 0, false
	}
	return memoryLimit(mount, own)
}

func memoryLimit(mount, own string) (bytes uint64, ok bool) {
	// Above the root of a cgroup namespace a path begins with /..
	for dir := filepath.Join("/", own); ; dir = filepath.Dir(dir) {
		text, err := os.ReadFile(filepath.Join(mount, dir, "memory.max"))
		if err == nil { // the root has none; "max" is no number
			if n, err := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64); err == nil && (!ok || n < bytes) {
				bytes, ok = n, true
			}
		}
		if dir == "/" {
			return bytes, ok
		}
	}
}

// Child is a cgroup of our own, below the one we are in: what limits us limits
// what runs in it.
type Child struct {
	ID   uint64
	Path string // below the mount
	dir  string
	up   string
	file *os.File
}

// NewChild makes a cgroup of the given name. A process that is started into it
// (clone3(2), CLONE_INTO_CGROUP) and all of its descendants stay there unless they
// are moved.
func NewChild(mount, name string) (*Child, error) {
	own, err := self()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(own, name)
	c := &Child{Path: path, dir: filepath.Join(mount, path), up: filepath.Join(mount, own)}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup: %w", err)
	}
	if c.file, err = os.Open(c.dir); err != nil {
		os.Remove(c.dir)
		return nil, fmt.Errorf("open cgroup: %w", err)
	}
	var st unix.Stat_t
	if err := unix.Fstat(int(c.file.Fd()), &st); err != nil {
		c.file.Close()
		os.Remove(c.dir)
		return nil, fmt.Errorf("stat cgroup: %w", err)
	}
	c.ID = st.Ino
	return c, nil
}

// FD returns the descriptor to start a process with.
func (c *Child) FD() int { return int(c.file.Fd()) }

// Close removes the cgroup; what still runs in it goes back to ours.
func (c *Child) Close() error {
	c.file.Close()
	// A process may fork while the list is read, so it is read until it is
	// empty; the bound is for one that never stops.
	for range 100 {
		procs, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
		if err != nil || len(procs) == 0 {
			break
		}
		for pid := range strings.FieldsSeq(string(procs)) {
			// It may have ended meanwhile.
			_ = os.WriteFile(filepath.Join(c.up, "cgroup.procs"), []byte(pid), 0)
		}
	}
	if err := os.Remove(c.dir); err != nil {
		return fmt.Errorf("remove cgroup: %w", err)
	}
	return nil
}

// self returns the path of the calling process' cgroup.
func self() (string, error) {
	b, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return "", err
	}
	for line := range strings.Lines(string(b)) {
		if path, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::"); ok {
			return path, nil
		}
	}
	return "", ErrNoCgroup2
}
