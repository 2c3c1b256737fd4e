//go:build linux

package tracer

import (
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// ring reads a BPF ring buffer in place (kernel/bpf/ringbuf.c). A batch is decoded
// from the mapped pages and its room given back in steps, not by record: fewer
// writes to the line that every producer reads, and no copies. One goroutine may
// use it at a time, but for wake.
type ring struct {
	consumerPage []byte // read and write: the consumer's position
	producerPage []byte // read only: the producers' position, then the data, twice
	consumer     *uint64
	producer     *uint64
	data         []byte // twice the size: no record breaks at the end
	mask         uint64
	epoll        int
	wakeup       int // eventfd that ends a wait
	events       [2]unix.EpollEvent
}

// From include/uapi/linux/bpf.h: the two top bits of a record's length.
const (
	ringBusy       = 1 << 31 // reserved, not submitted yet
	ringDiscarded  = 1 << 30
	ringHeaderSize = 8
)

// ringStep is how much is read before its room is given back.
const ringStep = 256 << 10

func newRing(m *ebpf.Map) (_ *ring, err error) {
	r := &ring{epoll: -1, wakeup: -1}
	defer func() {
		if err != nil {
			r.close()
		}
	}()
	size, page := int(m.MaxEntries()), os.Getpagesize()
	if r.consumerPage, err = unix.Mmap(m.FD(), 0, page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the ring's consumer page: %w", err)
	}
	if r.producerPage, err = unix.Mmap(m.FD(), int64(page), page+2*size, unix.PROT_READ, unix.MAP_SHARED); err != nil {
		return nil, fmt.Errorf("map the ring: %w", err)
	}
	r.consumer = (*uint64)(unsafe.Pointer(&r.consumerPage[0]))
	r.producer = (*uint64)(unsafe.Pointer(&r.producerPage[0]))
	r.data = r.producerPage[page:]
	r.mask = uint64(size - 1)
	if r.epoll, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC); err != nil {
		return nil, fmt.Errorf("create an epoll instance: %w", err)
	}
	if r.wakeup, err = unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK); err != nil {
		return nil, fmt.Errorf("create an eventfd: %w", err)
	}
	for _, fd := range []int{m.FD(), r.wakeup} {
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(fd)}
		if err := unix.EpollCtl(r.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			return nil, fmt.Errorf("watch the ring: %w", err)
		}
	}
	return r, nil
}

// wait returns when there are records to read, at the deadline, or after wake.
func (r *ring) wait(deadline time.Time) error {
	// Rounded up: a wait that ends early would be followed by another.
	ms := int(max(0, time.Until(deadline)+time.Millisecond-1) / time.Millisecond)
	n, err := unix.EpollWait(r.epoll, r.events[:], ms)
	switch {
	case errors.Is(err, unix.EINTR):
		return nil
	case err != nil:
		return fmt.Errorf("wait for the ring: %w", err)
	}
	for _, e := range r.events[:n] {
		if int(e.Fd) == r.wakeup {
			var count [8]byte
			// Fails only if there is nothing to take back.
			_, _ = unix.Read(r.wakeup, count[:])
		}
	}
	return nil
}

// readable reports whether there is anything to drain.
func (r *ring) readable() bool {
	return r.consumed() < r.produced()
}

// produced returns the position behind the last record that has been reserved.
func (r *ring) produced() uint64 { return atomic.LoadUint64(r.producer) }

// consumed returns the position behind the last record that has been read.
func (r *ring) consumed() uint64 { return atomic.LoadUint64(r.consumer) }

// wake ends the wait that is under way, or else the next one. Any goroutine may call
// it.
func (r *ring) wake() {
	one := [8]byte{0: 1}
	// Fails only if the counter is full: then it is readable already.
	_, _ = unix.Write(r.wakeup, one[:])
}

// drain calls handle with each record that is there, in the order of the ring, and
// gives the room back. raw is valid during the call only. It stops at a record that
// is not submitted yet, and before most bytes are read.
func (r *ring) drain(most uint64, handle func(raw []byte) error) error {
	position := atomic.LoadUint64(r.consumer)
	given, end := position, position+most
	defer func() { atomic.StoreUint64(r.consumer, position) }()
	for position < atomic.LoadUint64(r.producer) && position < end {
		offset := position & r.mask
		length := atomic.LoadUint32((*uint32)(unsafe.Pointer(&r.data[offset])))
		if length&ringBusy != 0 {
			return nil
		}
		size := uint64(length &^ (ringBusy | ringDiscarded))
		start := offset + ringHeaderSize
		position += (ringHeaderSize + size + 7) &^ 7
		if length&ringDiscarded == 0 {
			if err := handle(r.data[start : start+size]); err != nil {
				return err
			}
		}
		if position-given >= ringStep {
			atomic.StoreUint64(r.consumer, position)
			given = position
		}
	}
	return nil
}

func (r *ring) close() {
	if r.epoll >= 0 {
		unix.Close(r.epoll)
	}
	if r.wakeup >= 0 {
		unix.Close(r.wakeup)
	}
	if r.producerPage != nil {
		unix.Munmap(r.producerPage)
	}
	if r.consumerPage != nil {
		unix.Munmap(r.consumerPage)
	}
	*r = ring{epoll: -1, wakeup: -1}
}
