//go:build linux

package tracer

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/link"
	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/bpf"
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/netns"
)

// maxUnseen bounds the namespaces that are known not to be found; of more, some are
// looked for, and told of, again.
const maxUnseen = 4096

// walker reads what is there already: the sockets of network namespaces and the
// descriptors that hold them. One goroutine at a time may use it.
type walker struct {
	sockets *link.Iter
	files   *link.Iter
	decoder *decoder
	cfg     Config
	known   map[uint32]netns.NS // namespaces to walk, by inode
	wantNew bool                // a socket of a namespace not in known was seen
	threads time.Time           // from when on threads may be looked at again
	unseen  map[uint32]bool     // inodes that could not be found
	over    map[uint32]int64    // TCPTimeWaitOverflow at the last walk
	buf     []byte
	expect  int // records of a walk
}

// firstWalk is how many records the first walk has room for at once. Pages that are
// not filled are never touched.
const firstWalk = 1 << 15

func newWalker(coll *ebpf.Collection, cfg Config) (*walker, error) {
	w := &walker{
		decoder: newDecoder(),
		cfg:     cfg,
		wantNew: true,
		unseen:  make(map[uint32]bool),
		over:    make(map[uint32]int64),
		buf:     make([]byte, 64<<10), // the kernel fills half of it at a time (bpf_seq_read)
		expect:  firstWalk,
	}
	var err error
	if w.sockets, err = link.AttachIter(link.IterOptions{Program: coll.Programs[bpf.TcptraceProgDumpTcp]}); err != nil {
		return nil, fmt.Errorf("attach to iter/tcp: %w", err)
	}
	if w.files, err = link.AttachIter(link.IterOptions{Program: coll.Programs[bpf.TcptraceProgDumpTaskFile]}); err != nil {
		w.close()
		return nil, fmt.Errorf("attach to iter/task_file: %w", err)
	}
	return w, nil
}

func (w *walker) close() {
	if w.sockets != nil {
		w.sockets.Close()
	}
	if w.files != nil {
		w.files.Close()
	}
}

// namespaces brings known up to date.
func (w *walker) namespaces() error {
	if w.cfg.NetNS != nil {
		w.known = make(map[uint32]netns.NS, len(w.cfg.NetNS))
		for _, ns := range w.cfg.NetNS {
			w.known[ns.Inode] = ns
		}
		return nil
	}
	if !w.wantNew {
		return nil
	}
	all, err := netns.List()
	if err != nil {
		return fmt.Errorf("list network namespaces: %w", err)
	}
	if at := time.Now(); !at.Before(w.threads) {
		if err := netns.Threads(all); err != nil {
			return fmt.Errorf("list network namespaces: %w", err)
		}
		w.threads = at.Add(threadsEvery)
	}
	// The ways to others that were found meanwhile are tried until they end.
	for inode, ns := range w.known {
		if _, ok := all[inode]; !ok {
			all[inode] = ns
		}
	}
	w.known, w.wantNew = all, false
	maps.DeleteFunc(w.over, func(inode uint32, _ int64) bool {
		_, ok := all[inode]
		return !ok
	})
	return nil
}

// threadsEvery is how often the threads of all processes are looked at for
// namespaces that no process lives in: there may be tens of thousands of threads.
const threadsEvery = 10 * time.Second

// saw notes that a socket of this namespace exists.
func (w *walker) saw(inode uint32) {
	if w.cfg.NetNS != nil || w.unseen[inode] {
		return
	}
	if _, ok := w.known[inode]; !ok {
		w.wantNew = true
	}
}

// identity tells a socket apart from another at its address, once it is gone.
type identity struct{ sk, cookie uint64 }

// walk returns, in the order of their times, a KindScanBegin, the sockets and a
// KindScanEnd for each namespace, then (with holders) every descriptor of a TCP
// socket. A namespace that cannot be entered is told of once.
func (w *walker) walk(holders bool) (out []events.Record, err error) {
	if err := w.namespaces(); err != nil {
		return nil, err
	}
	out = make([]events.Record, 0, w.expect)
	defer func() { w.expect = min(firstWalk, len(out)+len(out)/4) }()
	for _, ns := range w.known {
		out, _ = w.enter(out, ns)
	}
	if !holders {
		return out, nil
	}
	all, err := w.walkFiles(out)
	if err != nil {
		return nil, err
	}
	// Sockets alone keep a namespace too, and their descriptors are the way to it.
	// They are walked over again: the sockets come first.
	if more, found := w.discover(slices.Clip(out), all[len(out):]); found {
		return w.walkFiles(more)
	}
	return all, nil
}

// enter appends the walk over a namespace that is known, or drops it. It reports
// whether there was a way in.
func (w *walker) enter(out []events.Record, ns netns.NS) ([]events.Record, bool) {
	out, err := w.walkNamespace(out, ns)
	if err == nil {
		return out, true
	}
	// Gone since it was listed, or not ours to enter.
	delete(w.known, ns.Inode)
	delete(w.over, ns.Inode)
	w.wantNew = true
	if !errors.Is(err, netns.ErrNotFound) && !w.unseen[ns.Inode] {
		if len(w.unseen) >= maxUnseen {
			clear(w.unseen)
		}
		w.unseen[ns.Inode] = true
		w.cfg.Warn(fmt.Sprintf("network namespace %d is not looked into: %v", ns.Inode, err))
	}
	return out, false
}

// waysTried is how many descriptors are tried as the way to a namespace in one walk:
// any may have been closed meanwhile. From inside a process namespace all fail.
const waysTried = 8

// discover appends the walks over namespaces that are not known but by these
// descriptors.
func (w *walker) discover(out, files []events.Record) (_ []events.Record, found bool) {
	if w.cfg.NetNS != nil {
		return out, false
	}
	tried := make(map[uint32]int)
	for i := range files {
		r := &files[i]
		if _, ok := w.known[r.NetNS]; ok || r.Kind != events.KindHolder || r.NetNS == 0 || w.unseen[r.NetNS] || tried[r.NetNS] == waysTried {
			continue
		}
		tried[r.NetNS]++
		ns := netns.NS{Inode: r.NetNS, Socket: netns.Descriptor{PID: r.PID, FD: r.FD}}
		var ok bool
		if out, ok = w.enter(out, ns); ok {
			w.known[ns.Inode] = ns
			found = true
		}
	}
	return out, found
}

// socketsOf returns the TCP sockets of a walk by their struct socket.
func socketsOf(records []events.Record) map[uint64][]identity {
	bySocket := make(map[uint64][]identity)
	for i := range records {
		if r := &records[i]; r.Kind == events.KindSocket && r.Flags&events.FlagHasSocket != 0 {
			bySocket[r.PeerSK] = append(bySocket[r.PeerSK], identity{r.SK, r.Cookie})
		}
	}
	return bySocket
}

func (w *walker) walkNamespace(out []events.Record, ns netns.NS) ([]events.Record, error) {
	start := len(out)
	err := netns.Do(ns, func() error {
		// The iterator walks the namespace of the thread that opens it.
		iter, err := w.sockets.Open()
		if err != nil {
			return fmt.Errorf("open iter/tcp: %w", err)
		}
		defer iter.Close()
		out = append(out, events.Record{Kind: events.KindScanBegin, TS: now(), NetNS: ns.Inode})
		if out, err = w.read(iter, out); err != nil {
			return err
		}
		overflows := int64(-1)
		if n, err := timeWaitOverflows(); err == nil {
			if old, ok := w.over[ns.Inode]; ok {
				overflows = n - old
			}
			w.over[ns.Inode] = n
		}
		out = append(out, events.Record{Kind: events.KindScanEnd, TS: now(), NetNS: ns.Inode, Count: overflows})
		return nil
	})
	if err != nil {
		return out[:start], err
	}
	return out, nil
}

// walkFiles appends the holders to the sockets. The file of an MPTCP socket leads to
// its parent, not to the TCP sockets; they are joined on the struct socket that they
// share.
func (w *walker) walkFiles(out []events.Record) ([]events.Record, error) {
	iter, err := w.files.Open()
	if err != nil {
		return nil, fmt.Errorf("open iter/task_file: %w", err)
	}
	defer iter.Close()
	out = append(out, events.Record{Kind: events.KindHoldersBegin, TS: now()})
	start := len(out)
	if out, err = w.read(iter, out); err != nil {
		return nil, err
	}
	end := len(out)
	var bySocket map[uint64][]identity // made for the first that needs it
	for i := start; i < end; i++ {
		r := &out[i]
		w.saw(r.NetNS)
		if r.Flags&events.FlagMPTCP == 0 {
			continue
		}
		if bySocket == nil {
			bySocket = socketsOf(out[:start])
		}
		for n, id := range bySocket[r.PeerSK] {
			if n == 0 {
				out[i].SK, out[i].Cookie = id.sk, id.cookie
				continue
			}
			more := out[i]
			more.SK, more.Cookie = id.sk, id.cookie
			out = append(out, more)
		}
	}
	return append(out, events.Record{Kind: events.KindHoldersEnd, TS: now()}), nil
}

// read appends the records of an iterator.
func (w *walker) read(iter io.Reader, out []events.Record) ([]events.Record, error) {
	have := 0
	for {
		n, err := iter.Read(w.buf[have:])
		have += n
		whole := have - have%recordSize
		next := len(out)
		out = slices.Grow(out, whole/recordSize)[:next+whole/recordSize]
		for off := 0; off < whole; off, next = off+recordSize, next+1 {
			if err := w.decoder.decode(w.buf[off:off+recordSize], &out[next]); err != nil {
				return nil, err
			}
		}
		have = copy(w.buf, w.buf[whole:have])
		switch {
		case errors.Is(err, io.EOF):
			if have != 0 {
				return nil, errShortRecord
			}
			return out, nil
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
			// EAGAIN: many objects without output (bpf_seq_read); goes on.
		case err != nil:
			return nil, fmt.Errorf("walk: %w", err)
		}
	}
}

// timeWaitOverflows reads TCPTimeWaitOverflow of the thread's namespace.
func timeWaitOverflows() (int64, error) {
	f, err := os.Open("/proc/thread-self/net/netstat")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	// Pairs of lines: the names, then the values (proc_pid_net(5)).
	var names []string
	lines := bufio.NewScanner(f)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		fields := strings.Fields(lines.Text())
		if len(fields) == 0 || fields[0] != "TcpExt:" {
			continue
		}
		if names == nil {
			names = fields
			continue
		}
		for i, name := range names {
			if name == "TCPTimeWaitOverflow" && i < len(fields) {
				return strconv.ParseInt(fields[i], 10, 64)
			}
		}
	}
	return 0, errors.Join(lines.Err(), errors.New("no TCPTimeWaitOverflow in netstat"))
}
