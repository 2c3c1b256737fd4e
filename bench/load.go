//go:build linux

package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// The load: each worker is a client and a server that opens, uses (a request and an
// answer of 64 bytes) and closes one connection after the other. The client resets
// it, so that no TIME_WAIT uses up ports and memory, and binds the server's port
// number on addresses of its own, so that every transition carries one of a few
// known ports and no tracer sees others.
const (
	workers   = 4
	firstPort = 20000

	// Transitions of one connection: CLOSE to SYN_SENT to ESTABLISHED to CLOSE on
	// one side, LISTEN to SYN_RECV to ESTABLISHED to CLOSE on the other.
	perConnection = 6
	// ... and of one listener: CLOSE to LISTEN to CLOSE.
	perListener = 2
)

// loadResult is what the load did.
type loadResult struct {
	Connections int           `json:"connections"`
	Transitions int           `json:"transitions"`
	Elapsed     time.Duration `json:"elapsed_ns"`
}

func (r *loadResult) rate() float64 { return float64(r.Connections) / r.Elapsed.Seconds() }

// serveLoad is the load's process: it listens, says so, and works for the time that
// a line of its input gives.
func serveLoad(in io.Reader, out io.Writer) error {
	listeners := make([]net.Listener, workers)
	lc := net.ListenConfig{}
	lc.SetMultipathTCP(false)
	for i := range listeners {
		l, err := lc.Listen(context.Background(), "tcp4", fmt.Sprintf("127.0.0.1:%d", firstPort+i))
		if err != nil {
			return err
		}
		listeners[i] = l
	}
	fmt.Fprintln(out, "ready")
	line, err := bufio.NewReader(in).ReadString('\n')
	if errors.Is(err, io.EOF) {
		return nil
	}
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(line[:len(line)-1])
	if err != nil {
		return err
	}
	counts := make([]int, workers)
	errs := make([]error, 2*workers)
	start := time.Now()
	end := start.Add(d)
	var all sync.WaitGroup
	for i, l := range listeners {
		all.Go(func() {
			defer l.Close()
			counts[i], errs[2*i] = churn(i, end)
		})
		all.Go(func() { errs[2*i+1] = answer(l) })
	}
	all.Wait()
	r := loadResult{Elapsed: time.Since(start), Transitions: workers * perListener}
	for _, n := range counts {
		r.Connections += n
		r.Transitions += n * perConnection
	}
	if err := errors.Join(errs...); err != nil {
		return err
	}
	return json.NewEncoder(out).Encode(r)
}

// churn opens and closes connections until end and returns their number.
func churn(worker int, end time.Time) (int, error) {
	port := firstPort + worker
	to := fmt.Sprintf("127.0.0.1:%d", port)
	message := make([]byte, 64)
	for n := 0; ; n++ {
		if !time.Now().Before(end) {
			return n, nil
		}
		host := n%60000 + 256
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, byte(worker+1), byte(host>>8), byte(host)), Port: port}}
		c, err := d.Dial("tcp4", to)
		if err != nil {
			return n, err
		}
		if _, err := c.Write(message); err != nil {
			return n, err
		}
		if _, err := io.ReadFull(c, message); err != nil {
			return n, err
		}
		if err := c.(*net.TCPConn).SetLinger(0); err != nil {
			return n, err
		}
		if err := c.Close(); err != nil {
			return n, err
		}
	}
}

// answer serves one connection after the other until the listener is closed.
func answer(l net.Listener) error {
	message := make([]byte, 64)
	for {
		c, err := l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		if _, err := io.ReadFull(c, message); err != nil {
			return err
		}
		if _, err := c.Write(message); err != nil {
			return err
		}
		// The reset: only then is the connection over on this side.
		if _, err := c.Read(message); !errors.Is(err, unix.ECONNRESET) {
			return fmt.Errorf("end of a connection: got %v, want a reset", err)
		}
		c.Close()
	}
}

// serveLeak is the process that leaks: it holds the passive ends of n connections
// whose active ends are closed, says so, and waits for the end of its input.
func serveLeak(n int, in io.Reader, out io.Writer) error {
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(n) + 64, Max: uint64(n) + 64}); err != nil {
		return fmt.Errorf("raise the limit of descriptors: %w", err)
	}
	l, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	if err := syscall.Bind(l, &syscall.SockaddrInet4{Port: firstPort, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return err
	}
	if err := syscall.Listen(l, 128); err != nil {
		return err
	}
	for range n {
		c, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		if err := syscall.Connect(c, &syscall.SockaddrInet4{Port: firstPort, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
			return err
		}
		if _, _, err := syscall.Accept(l); err != nil {
			return err
		}
		if err := syscall.Close(c); err != nil {
			return err
		}
	}
	fmt.Fprintln(out, "ready")
	_, err = io.Copy(io.Discard, in)
	return err
}

// child is a process of the bench itself, in a part of its own.
type child struct {
	*process
	in  io.WriteCloser
	out *bufio.Reader
}

// startChild starts the bench again in another part and waits until it is ready.
func startChild(args ...string) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := command(self, append([]string{inside}, args...)...)
	cmd.Stderr = os.Stderr
	c := &child{}
	if c.in, err = cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	c.out = bufio.NewReader(out)
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	c.process = &process{cmd: cmd}
	if _, err := c.out.ReadString('\n'); err != nil {
		c.end()
		return nil, fmt.Errorf("%v does not start: %w", args, err)
	}
	return c, nil
}

func (c *child) end() error {
	c.in.Close()
	return c.cmd.Wait()
}

// load runs the load for a time.
func load(d time.Duration) (*loadResult, error) {
	c, err := startChild("load")
	if err != nil {
		return nil, err
	}
	r := &loadResult{}
	_, err = fmt.Fprintln(c.in, d)
	if err == nil {
		err = json.NewDecoder(c.out).Decode(r)
	}
	if err = errors.Join(err, c.end()); err != nil {
		return nil, fmt.Errorf("load: %w", err)
	}
	return r, nil
}
