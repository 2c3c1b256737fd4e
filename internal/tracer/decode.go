//go:build linux

package tracer

import (
	"bytes"
	"errors"
	"net/netip"
	"strconv"
	"unsafe"

	"github.com/tcptrace/tcptrace/bpf"
	"github.com/tcptrace/tcptrace/internal/events"
)

// recordSize is the size of struct record (bpf/records.h).
const recordSize = int(unsafe.Sizeof(bpf.TcptraceRecord{}))

var errShortRecord = errors.New("record is not of the size that the kernel side writes")

// maxComms bounds the decoder's table of names, which processes choose.
const maxComms = 4096

// decoder turns raw records into events.Record. Names are interned, so that the
// steady state does not allocate. Not safe for concurrent use.
type decoder struct {
	comms map[[16]byte]string
}

func newDecoder() *decoder {
	return &decoder{comms: make(map[[16]byte]string)}
}

// decode reads one struct record. raw must have exactly its size.
func (d *decoder) decode(raw []byte, r *events.Record) error {
	if len(raw) != recordSize {
		return errShortRecord
	}
	var c bpf.TcptraceRecord
	copy(unsafe.Slice((*byte)(unsafe.Pointer(&c)), recordSize), raw)
	*r = events.Record{
		TS:        int64(c.TsNs),
		SK:        c.Sk,
		Cookie:    c.Cookie,
		CgroupID:  c.CgroupId,
		PeerSK:    c.PeerSk,
		TimerNS:   c.TimerNs,
		NetNS:     c.Netns,
		PID:       c.Pid,
		UID:       c.Uid,
		RXPending: c.RxPending,
		TXPending: c.TxPending,
		SRTTUS:    c.SrttUs,
		FD:        c.Fd,
		Err:       c.SkErr,
		Flags:     events.Flags(c.Flags),
		Kind:      events.Kind(c.Kind),
		Family:    c.Family,
		Old:       events.State(c.OldState),
		New:       events.State(c.NewState),
	}
	switch c.Family {
	case 4:
		r.Local = netip.AddrPortFrom(netip.AddrFrom4([4]byte(c.Laddr[:4])), c.Lport)
		r.Remote = netip.AddrPortFrom(netip.AddrFrom4([4]byte(c.Raddr[:4])), c.Rport)
	case 6:
		r.Local = netip.AddrPortFrom(scoped(netip.AddrFrom16(c.Laddr), c.Ifindex), c.Lport)
		r.Remote = netip.AddrPortFrom(scoped(netip.AddrFrom16(c.Raddr), c.Ifindex), c.Rport)
	default:
		r.Local = netip.AddrPortFrom(netip.Addr{}, c.Lport)
		r.Remote = netip.AddrPortFrom(netip.Addr{}, c.Rport)
	}
	if c.Pid != 0 {
		r.Comm = d.comm((*[16]byte)(unsafe.Pointer(&c.Comm)))
	}
	return nil
}

// scoped adds the interface to an address that means nothing without it.
func scoped(a netip.Addr, ifindex uint32) netip.Addr {
	if ifindex == 0 || !a.IsLinkLocalUnicast() {
		return a
	}
	return a.WithZone(strconv.FormatUint(uint64(ifindex), 10))
}

func (d *decoder) comm(raw *[16]byte) string {
	if s, ok := d.comms[*raw]; ok {
		return s
	}
	if len(d.comms) >= maxComms {
		clear(d.comms)
	}
	name := raw[:]
	if i := bytes.IndexByte(name, 0); i >= 0 {
		name = name[:i]
	}
	s := string(name)
	d.comms[*raw] = s
	return s
}
