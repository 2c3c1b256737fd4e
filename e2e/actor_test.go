package e2e

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The workload processes are this test binary under another role: each obeys
// requests that come over a Unix socket, one goroutine for each request, and
// makes plain system calls, bracketed by the clock.

const (
	envControl = "TCPTRACE_E2E_CONTROL" // path of the control socket
	envName    = "TCPTRACE_E2E_NAME"    // name to give there, and comm

	soCookie     = 57
	protoMPTCP   = 262
	observeEvery = 2 * time.Millisecond
)

type request struct {
	ID     int
	Op     string
	FDs    []int    `json:",omitempty"`
	Addrs  []string `json:",omitempty"`
	Bind   string   `json:",omitempty"`
	N      int      `json:",omitempty"`
	Proto  int      `json:",omitempty"`
	Mapped bool     `json:",omitempty"` // IPv4 by an AF_INET6 socket
	Path   string   `json:",omitempty"`
	Text   string   `json:",omitempty"`
	// Thread runs the request on a thread of this name; NetNS in this namespace.
	Thread string   `json:",omitempty"`
	NetNS  string   `json:",omitempty"`
	Data   []string `json:",omitempty"`
	// Lasts is how long it takes by design.
	Lasts time.Duration `json:"-"`
}

// sight is a socket that the workload waits for in /proc/net/tcp: in State, or
// gone where State is empty.
type sight struct {
	Local, Remote string
	State         string
}

type response struct {
	ID      int
	Hello   *ProcID  `json:",omitempty"`
	Err     string   `json:",omitempty"`
	FDs     []int    `json:",omitempty"`
	Spans   []Span   `json:",omitempty"`
	Locals  []string `json:",omitempty"`
	Remotes []string `json:",omitempty"`
	Cookies []uint64 `json:",omitempty"`
	Errnos  []int    `json:",omitempty"`
}

type actor struct {
	mu      sync.Mutex
	enc     *json.Encoder
	goLs    map[int]net.Listener // of the Go server, by descriptor-like handle
	goConns map[int]net.Conn
	unixFDs map[string]int
	next    int
}

func actorMain(path string) error {
	name := os.Getenv(envName)
	if err := os.WriteFile("/proc/self/comm", []byte(name), 0); err != nil {
		return err
	}
	control, err := net.Dial("unix", path)
	if err != nil {
		return err
	}
	a := &actor{enc: json.NewEncoder(control), goLs: map[int]net.Listener{}, goConns: map[int]net.Conn{}, unixFDs: map[string]int{}}
	if err := a.enc.Encode(response{Hello: &ProcID{os.Getpid(), name, os.Getuid()}}); err != nil {
		return err
	}
	dec := json.NewDecoder(bufio.NewReader(control))
	for {
		var req request
		if err := dec.Decode(&req); err != nil {
			return nil // the test ended
		}
		go a.serve(req)
	}
}

func (a *actor) serve(req request) {
	if req.Thread != "" || req.NetNS != "" {
		// The thread is not unlocked: it ends with the goroutine.
		runtime.LockOSThread()
		if unix.Gettid() == unix.Getpid() {
			// The main thread's name is the process's. While it is locked here,
			// another goroutine gets another thread.
			done := make(chan struct{})
			go func() {
				defer close(done)
				a.serve(req)
			}()
			<-done
			runtime.UnlockOSThread()
			return
		}
	}
	resp := response{ID: req.ID}
	if err := a.prepare(&req); err != nil {
		resp.Err = err.Error()
	} else if op, ok := actorOps[req.Op]; !ok {
		resp.Err = "no such operation: " + req.Op
	} else if err := op(a, &req, &resp); err != nil {
		resp.Err = req.Op + ": " + err.Error()
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.enc.Encode(resp)
}

func (a *actor) prepare(req *request) error {
	if req.Thread != "" {
		if err := os.WriteFile("/proc/thread-self/comm", []byte(req.Thread), 0); err != nil {
			return err
		}
	}
	if req.NetNS != "" {
		fd, err := unix.Open(req.NetNS, unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open %s: %w", req.NetNS, err)
		}
		defer unix.Close(fd)
		return unix.Setns(fd, unix.CLONE_NEWNET)
	}
	return nil
}

var actorOps = map[string]func(*actor, *request, *response) error{
	"listen":    (*actor).listen,
	"connect":   (*actor).connect,
	"socket":    (*actor).socket,
	"accept":    (*actor).accept,
	"close":     eachFD(unix.Close),
	"shutdown":  eachFD(func(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) }),
	"eof":       eachFD(waitEOF),
	"reset":     eachFD(waitReset),
	"readable":  eachFD(waitReadable),
	"finwait2":  eachFD(waitFinWait2),
	"linger0":   eachFD(linger0),
	"write":     (*actor).write,
	"read":      (*actor).read,
	"dup":       (*actor).dup,
	"fork":      (*actor).fork,
	"sendfds":   (*actor).sendFDs,
	"listenfds": (*actor).listenFDs,
	"recvfds":   (*actor).recvFDs,
	"setuid":    func(_ *actor, req *request, _ *response) error { return unix.Setresuid(req.N, req.N, req.N) },
	"golisten":  (*actor).goListen,
	"goaccept":  (*actor).goAccept,
	"goclose":   (*actor).goClose,
	"goeof":     (*actor).goEOF,
	"gofds":     (*actor).goFDs,
	"swarm":     (*actor).swarm,
	"haunt":     (*actor).haunt,
	"leak":      (*actor).leak,
	"setint":    (*actor).setInt,
	"sysctl":    func(_ *actor, req *request, _ *response) error { return os.WriteFile(req.Path, []byte(req.Text), 0) },
}

func eachFD(call func(fd int) error) func(*actor, *request, *response) error {
	return func(_ *actor, req *request, resp *response) error {
		for _, fd := range req.FDs {
			lo := now()
			err := call(fd)
			resp.Spans = append(resp.Spans, Span{lo, now()})
			if err != nil {
				return fmt.Errorf("descriptor %d: %w", fd, err)
			}
		}
		return nil
	}
}

func sockaddr(ap netip.AddrPort, mapped bool) unix.Sockaddr {
	if ap.Addr().Is4() && !mapped {
		return &unix.SockaddrInet4{Port: int(ap.Port()), Addr: ap.Addr().As4()}
	}
	sa := &unix.SockaddrInet6{Port: int(ap.Port()), Addr: ap.Addr().As16()}
	if zone := ap.Addr().Zone(); zone != "" {
		id, err := strconv.Atoi(zone)
		if err == nil {
			sa.ZoneId = uint32(id)
		}
	}
	return sa
}

func addrPort(sa unix.Sockaddr) string {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port)).String()
	case *unix.SockaddrInet6:
		addr := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && addr.Is6() {
			addr = addr.WithZone(strconv.Itoa(int(sa.ZoneId)))
		}
		return netip.AddrPortFrom(addr, uint16(sa.Port)).String()
	}
	return ""
}

func localAddr(fd int) string {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return ""
	}
	return addrPort(sa)
}

func cookieOf(fd int) uint64 {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, soCookie)
	if err != nil {
		return 0
	}
	return cookie
}

func newSocket(ap netip.AddrPort, req *request) (int, error) {
	family := unix.AF_INET
	if ap.Addr().Is6() || req.Mapped {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, req.Proto)
	if err != nil {
		return -1, fmt.Errorf("socket: %w", err)
	}
	return fd, nil
}

func (a *actor) listen(req *request, resp *response) error {
	ap := netip.MustParseAddrPort(req.Addrs[0])
	fd, err := newSocket(ap, req)
	if err != nil {
		return err
	}
	if ap.Addr().Is6() && !req.Mapped {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1); err != nil {
			return err
		}
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, sockaddr(ap, req.Mapped)); err != nil {
		return fmt.Errorf("bind %s: %w", ap, err)
	}
	lo := now()
	if req.N >= 0 {
		err = unix.Listen(fd, req.N)
	}
	resp.Spans = []Span{{lo, now()}}
	resp.FDs, resp.Locals, resp.Cookies = []int{fd}, []string{localAddr(fd)}, []uint64{cookieOf(fd)}
	return err
}

// socket makes the sockets that connect then uses, to have them made in another
// namespace than that of the later calls.
func (a *actor) socket(req *request, resp *response) error {
	for range req.N {
		fd, err := newSocket(netip.MustParseAddrPort(req.Addrs[0]), req)
		if err != nil {
			return err
		}
		resp.FDs = append(resp.FDs, fd)
	}
	return nil
}

func (a *actor) connect(req *request, resp *response) error {
	for i := range req.N {
		ap := netip.MustParseAddrPort(req.Addrs[i%len(req.Addrs)])
		fd := -1
		if len(req.FDs) > 0 {
			fd = req.FDs[i]
		} else {
			var err error
			if fd, err = newSocket(ap, req); err != nil {
				return err
			}
		}
		if req.Bind != "" {
			if err := unix.Bind(fd, sockaddr(netip.MustParseAddrPort(req.Bind), req.Mapped)); err != nil {
				return fmt.Errorf("bind %s: %w", req.Bind, err)
			}
		}
		local := ""
		if req.Bind != "" {
			local = localAddr(fd)
		}
		lo := now()
		err := unix.Connect(fd, sockaddr(ap, req.Mapped))
		span := Span{lo, now()}
		var errno unix.Errno
		if err != nil && !errors.As(err, &errno) {
			return err
		}
		if err == nil {
			local = localAddr(fd)
		}
		resp.FDs = append(resp.FDs, fd)
		resp.Spans = append(resp.Spans, span)
		resp.Locals = append(resp.Locals, local)
		resp.Errnos = append(resp.Errnos, int(errno))
		resp.Cookies = append(resp.Cookies, cookieOf(fd))
	}
	return nil
}

func (a *actor) accept(req *request, resp *response) error {
	for range req.N {
		lo := now()
		fd, sa, err := unix.Accept4(req.FDs[0], unix.SOCK_CLOEXEC)
		span := Span{lo, now()}
		if err != nil {
			return err
		}
		resp.FDs = append(resp.FDs, fd)
		resp.Spans = append(resp.Spans, span)
		resp.Remotes = append(resp.Remotes, addrPort(sa))
		resp.Locals = append(resp.Locals, localAddr(fd))
		resp.Cookies = append(resp.Cookies, cookieOf(fd))
	}
	return nil
}

func waitEOF(fd int) error {
	var buf [4096]byte
	for {
		n, err := unix.Read(fd, buf[:])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return err
		}
	}
}

// waitReset waits until the connection is reset.
func waitReset(fd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(fd)}}
		if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
			return err
		}
		if fds[0].Revents&unix.POLLERR != 0 || fds[0].Revents&unix.POLLHUP != 0 {
			break
		}
	}
	soerr, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return err
	}
	if errno := unix.Errno(soerr); errno != unix.ECONNRESET && errno != unix.EPIPE {
		return fmt.Errorf("SO_ERROR is %d, not a reset", soerr)
	}
	return nil
}

func waitReadable(fd int) error {
	for {
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		if _, err := unix.Poll(fds, -1); err != unix.EINTR {
			return err
		}
	}
}

// waitFinWait2 waits until the socket itself says that it is in FIN_WAIT2.
func waitFinWait2(fd int) error {
	const finWait2 = 5 // TCP_FIN_WAIT2
	deadline := time.Now().Add(callTimeout)
	for {
		info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
		if err != nil || info.State == finWait2 {
			return err
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("in state %d", info.State)
		}
		time.Sleep(observeEvery)
	}
}

func linger0(fd int) error {
	return unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
}

// setInt sets an integer socket option: Data is level, option, value.
func (a *actor) setInt(req *request, resp *response) error {
	var v [3]int
	for i := range v {
		n, err := strconv.Atoi(req.Data[i])
		if err != nil {
			return err
		}
		v[i] = n
	}
	return eachFD(func(fd int) error { return unix.SetsockoptInt(fd, v[0], v[1], v[2]) })(a, req, resp)
}

func (a *actor) write(req *request, resp *response) error {
	data := bytes.Repeat([]byte("x"), req.N)
	return eachFD(func(fd int) error {
		n, err := unix.SendmsgN(fd, data, nil, nil, unix.MSG_NOSIGNAL)
		if err == nil && n != len(data) {
			return fmt.Errorf("short write: %d", n)
		}
		return err
	})(a, req, resp)
}

func (a *actor) read(req *request, resp *response) error {
	return eachFD(func(fd int) error {
		buf := make([]byte, req.N)
		for got := 0; got < req.N; {
			n, err := unix.Read(fd, buf[got:])
			if err == unix.EINTR {
				continue
			}
			if err != nil {
				return err
			}
			if n == 0 {
				return fmt.Errorf("end of file after %d of %d bytes", got, req.N)
			}
			got += n
		}
		return nil
	})(a, req, resp)
}

func (a *actor) dup(req *request, resp *response) error {
	for _, fd := range req.FDs {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		resp.FDs = append(resp.FDs, dup)
	}
	return nil
}

// fork starts a workload process named Text that inherits the descriptors; it
// has them as 3, 4, ...
func (a *actor) fork(req *request, resp *response) error {
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envName+"="+req.Text)
	cmd.Stderr = os.Stderr
	for i, fd := range req.FDs {
		// os.NewFile would make the descriptor the file's to close: give it a
		// duplicate, which is closed below.
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(dup), "inherited")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
		resp.FDs = append(resp.FDs, 3+i)
	}
	lo := now()
	if err := cmd.Start(); err != nil {
		return err
	}
	resp.Spans = []Span{{lo, now()}}
	go cmd.Wait()
	return nil
}

func unixSocketName(path string) unix.Sockaddr { return &unix.SockaddrUnix{Name: path} }

func (a *actor) listenFDs(req *request, _ *response) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, unixSocketName(req.Path)); err != nil {
		return err
	}
	a.mu.Lock()
	a.unixFDs[req.Path] = fd
	a.mu.Unlock()
	return unix.Listen(fd, 1)
}

func (a *actor) recvFDs(req *request, resp *response) error {
	a.mu.Lock()
	l := a.unixFDs[req.Path]
	a.mu.Unlock()
	lo := now()
	fd, _, err := unix.Accept4(l, unix.SOCK_CLOEXEC)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	defer unix.Close(l)
	buf, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4*req.N))
	_, oobn, _, _, err := unix.Recvmsg(fd, buf, oob, unix.MSG_CMSG_CLOEXEC)
	if err != nil {
		return err
	}
	msgs, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil {
		return err
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			return err
		}
		resp.FDs = append(resp.FDs, fds...)
	}
	resp.Spans = []Span{{lo, now()}}
	if len(resp.FDs) != req.N {
		return fmt.Errorf("%d descriptors of %d", len(resp.FDs), req.N)
	}
	return nil
}

func (a *actor) sendFDs(req *request, resp *response) error {
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, unixSocketName(req.Path)); err != nil {
		return err
	}
	return unix.Sendmsg(fd, []byte{1}, unix.UnixRights(req.FDs...), nil, 0)
}

// goListen, goAccept, goEOF and goClose are a Go server as programs have it:
// package net, which listens with MPTCP where the kernel can.
func (a *actor) goListen(req *request, resp *response) error {
	lo := now()
	l, err := net.Listen("tcp", req.Addrs[0])
	if err != nil {
		return err
	}
	resp.Spans = []Span{{lo, now()}}
	resp.Locals = []string{l.Addr().String()}
	resp.FDs = []int{a.handle()}
	a.mu.Lock()
	a.goLs[resp.FDs[0]] = l
	a.mu.Unlock()
	return nil
}

func (a *actor) handle() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.next++
	return a.next
}

func (a *actor) goAccept(req *request, resp *response) error {
	a.mu.Lock()
	l := a.goLs[req.FDs[0]]
	a.mu.Unlock()
	for range req.N {
		lo := now()
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		resp.Spans = append(resp.Spans, Span{lo, now()})
		h := a.handle()
		a.mu.Lock()
		a.goConns[h] = conn
		a.mu.Unlock()
		resp.FDs = append(resp.FDs, h)
		resp.Remotes = append(resp.Remotes, conn.RemoteAddr().String())
		resp.Locals = append(resp.Locals, conn.LocalAddr().String())
		resp.Cookies = append(resp.Cookies, 0)
	}
	return nil
}

func (a *actor) goEOF(req *request, resp *response) error {
	return eachFD(func(h int) error {
		a.mu.Lock()
		conn := a.goConns[h]
		a.mu.Unlock()
		var buf [512]byte
		for {
			if _, err := conn.Read(buf[:]); err != nil {
				return nil
			}
		}
	})(a, req, resp)
}

func (a *actor) goClose(req *request, resp *response) error {
	return eachFD(func(h int) error {
		a.mu.Lock()
		conn, l := a.goConns[h], a.goLs[h]
		a.mu.Unlock()
		if conn != nil {
			return conn.Close()
		}
		return l.Close()
	})(a, req, resp)
}

// observe waits until the sockets of this thread's namespace are in the states
// wanted, by /proc/net/tcp, and says for each between which times it was first
// seen so, to a thirtieth of the time that it took and to 32 ms. A socket counts as
// gone when two readings in a row do not have it: a reading is not atomic.
func observe(want []sight, timeout time.Duration) ([]Span, error) {
	spans := make([]Span, len(want))
	absent := make([]int, len(want))
	open := len(want)
	// Sockets of IPv6 may talk IPv4, too. The kernel passes its whole table for each file.
	files := []string{procTCP6}
	for _, w := range want {
		if !strings.HasPrefix(w.Local, "[") {
			files = []string{procTCP4, procTCP6}
		}
	}
	began := time.Now()
	deadline := began.Add(timeout)
	for {
		lo := now()
		seen, err := readProcTCP(files...)
		if err != nil {
			return nil, err
		}
		hi := now()
		var missing *sight
		for i := range want {
			w := &want[i]
			if spans[i].Hi != 0 {
				continue
			}
			got := seen[w.Local+" "+w.Remote]
			if got != w.State {
				absent[i] = 0
				missing = w
				continue
			}
			if absent[i]++; got != "" || absent[i] == 2 {
				spans[i] = Span{lo, hi}
				open--
			}
		}
		if open == 0 {
			return spans, nil
		}
		if missing != nil && time.Now().After(deadline) {
			return nil, fmt.Errorf("%d sockets not as expected, one is %s > %s: want %q, is %q", open,
				missing.Local, missing.Remote, missing.State, seen[missing.Local+" "+missing.Remote])
		}
		time.Sleep(min(max(time.Since(began)/32, observeEvery), 16*observeEvery))
	}
}

// procStates are the kernel's names by the numbers in /proc/net/tcp.
var procStates = []string{"", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT", "CLOSE",
	"CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV"}

const procTCP4, procTCP6 = "/proc/thread-self/net/tcp", "/proc/thread-self/net/tcp6"

// readProcTCP maps "local remote" to the state, from one or both of these files.
func readProcTCP(names ...string) (map[string]string, error) {
	seen := map[string]string{}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for i, line := range strings.Split(string(text), "\n") {
			f := strings.Fields(line)
			if i == 0 || len(f) < 4 {
				continue
			}
			st, err := strconv.ParseUint(f[3], 16, 8)
			if err != nil || int(st) >= len(procStates) {
				return nil, fmt.Errorf("%s: state %q", name, f[3])
			}
			local, err := procAddr(f[1])
			if err != nil {
				return nil, err
			}
			remote, err := procAddr(f[2])
			if err != nil {
				return nil, err
			}
			seen[local+" "+remote] = procStates[st]
		}
	}
	return seen, nil
}

// procAddr reads an address of /proc/net/tcp: words in host order, then a port.
func procAddr(text string) (string, error) {
	hexAddr, hexPort, ok := strings.Cut(text, ":")
	raw, err := hex.DecodeString(hexAddr)
	port, err2 := strconv.ParseUint(hexPort, 16, 16)
	if !ok || err != nil || err2 != nil || len(raw)%4 != 0 {
		return "", fmt.Errorf("address %q", text)
	}
	for i := 0; i < len(raw); i += 4 {
		binary.NativeEndian.PutUint32(raw[i:], binary.BigEndian.Uint32(raw[i:]))
	}
	addr, ok := netip.AddrFromSlice(raw)
	if !ok {
		return "", fmt.Errorf("address %q", text)
	}
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)).String(), nil
}
