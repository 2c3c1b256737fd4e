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

// decode reads one struct record. raw must have exactly its size, and the alignment of
// the ring, 8 bytes. Field by field: a literal would be made elsewhere and copied.
func (d *decoder) decode(raw []byte, r *events.Record) error {
	if len(raw) != recordSize {
		return errShortRecord
	}
	c := (*bpf.TcptraceRecord)(unsafe.Pointer(unsafe.SliceData(raw)))
	r.TS = int64(c.TsNs)
	r.SK, r.PeerSK = c.Sk, c.PeerSk
	r.Cookie, r.CgroupID = c.Cookie, c.CgroupId
	r.TimerNS, r.Count = c.TimerNs, 0
	r.NetNS, r.PID, r.UID = c.Netns, c.Pid, c.Uid
	r.RXPending, r.TXPending = c.RxPending, c.TxPending
	r.SRTTUS, r.FD, r.Err = c.SrttUs, c.Fd, c.SkErr
	r.Flags, r.Kind = events.Flags(c.Flags), events.Kind(c.Kind)
	r.Family = c.Family
	r.Old, r.New = events.State(c.OldState), events.State(c.NewState)
	var local, remote netip.Addr
	switch c.Family {
	case 4:
		local, remote = netip.AddrFrom4([4]byte(c.Laddr[:4])), netip.AddrFrom4([4]byte(c.Raddr[:4]))
	case 6:
		local, remote = scoped(netip.AddrFrom16(c.Laddr), c.Ifindex), scoped(netip.AddrFrom16(c.Raddr), c.Ifindex)
	}
	r.Local, r.Remote = netip.AddrPortFrom(local, c.Lport), netip.AddrPortFrom(remote, c.Rport)
	r.Comm = ""
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
