package record

import (
	"encoding/binary"
	"net/netip"

	"github.com/tcptrace/tcptrace/internal/events"
)

// parser takes the payload of a block apart. After the first fault everything that
// it returns is zero.
type parser struct {
	b   []byte
	pos int
	err string // what is wrong; empty: nothing so far
}

func (p *parser) fail(why string) {
	if p.err == "" {
		p.err = why
	}
}

const shortBlock = "the block ends within an entry"

func (p *parser) byte() byte {
	if p.err != "" || p.pos >= len(p.b) {
		p.fail(shortBlock)
		return 0
	}
	p.pos++
	return p.b[p.pos-1]
}

func (p *parser) bytes(n int) []byte {
	if p.err != "" || n > len(p.b)-p.pos {
		p.fail(shortBlock)
		return nil
	}
	p.pos += n
	return p.b[p.pos-n : p.pos]
}

func (p *parser) uint16() uint16 {
	b := p.bytes(2)
	if b == nil {
		return 0
	}
	return binary.LittleEndian.Uint16(b)
}

func (p *parser) uvarint() uint64 {
	if p.err != "" {
		return 0
	}
	if p.pos < len(p.b) && p.b[p.pos] < 0x80 {
		p.pos++
		return uint64(p.b[p.pos-1])
	}
	v, n := binary.Uvarint(p.b[p.pos:])
	if n <= 0 {
		p.fail("a number does not end")
		return 0
	}
	p.pos += n
	return v
}

func (p *parser) varint() int64 {
	u := p.uvarint()
	return int64(u>>1) ^ -int64(u&1)
}

// diff undoes appendDiff.
func (p *parser) diff(base uint64) uint64 { return base + uint64(p.varint()) }

func (p *parser) diff32(base uint32) uint32 {
	v := p.diff(uint64(base))
	if v>>32 != 0 {
		p.fail("a number of 32 bits has more")
	}
	return uint32(v)
}

func (p *parser) text() []byte {
	n := p.uvarint()
	if n > maxText {
		p.fail("a text is longer than any")
		return nil
	}
	return p.bytes(int(n))
}

func (p *parser) pairs() map[string]string {
	n := p.uvarint()
	if n == 0 {
		return nil
	}
	m := make(map[string]string)
	for ; n > 1 && p.err == ""; n-- {
		key := string(p.text())
		m[key] = string(p.text())
	}
	return m
}

// names is the texts of a block by their numbers, and keeps the common ones over
// the blocks.
type names struct {
	block []string
	known map[string]string
}

// maxKnown bounds what is kept beyond a block.
const maxKnown = 4096

func (n *names) read(p *parser) string {
	i := p.uvarint()
	if i > uint64(len(n.block)) {
		p.fail("a name that was not told")
		return ""
	}
	if i > 0 {
		return n.block[i-1]
	}
	text := p.text()
	if p.err != "" {
		return ""
	}
	s, ok := n.known[string(text)]
	if !ok {
		if n.known == nil || len(n.known) >= maxKnown {
			n.known = make(map[string]string)
		}
		s = string(text)
		n.known[s] = s
	}
	n.block = append(n.block, s)
	return s
}

func (n *names) addr(p *parser) netip.Addr {
	switch form := p.byte(); form {
	case addrNone:
	case addr4:
		if b := p.bytes(4); b != nil {
			return netip.AddrFrom4([4]byte(b))
		}
	case addr6, addr6Zone:
		b := p.bytes(16)
		if b == nil {
			break
		}
		a := netip.AddrFrom16([16]byte(b))
		if form == addr6Zone {
			a = a.WithZone(n.read(p))
		}
		return a
	default:
		p.fail("an address of no known form")
	}
	return netip.Addr{}
}

// record reads one record after its entry's first byte into the slot of its
// socket, and returns that.
func (r *Reader) record(known bool) *events.Record {
	p := &r.parser
	bits := p.bytes(3)
	if bits == nil {
		return nil
	}
	fields := uint32(bits[0]) | uint32(bits[1])<<8 | uint32(bits[2])<<16
	if fields&^allFields != 0 {
		p.fail("a field that no record has")
		return nil
	}
	rec := &r.scratch
	var s *slot
	if known {
		n := p.uint16()
		if n >= numSlots || r.slots[n].block != r.block {
			p.fail("a socket that was not told")
			return nil
		}
		s = &r.slots[n]
		*rec = s.rec
		rec.TS = int64(p.diff(uint64(rec.TS)))
		rec.Old = rec.New
	} else {
		*rec = *r.prev
		rec.TS = int64(p.diff(uint64(rec.TS)))
		rec.SK = p.diff(rec.SK)
		s = &r.slots[slotOf(rec.SK)]
	}
	if fields&fieldKind != 0 {
		rec.Kind = events.Kind(p.byte())
	}
	if fields&fieldOld != 0 {
		rec.Old = events.State(p.byte())
	}
	if fields&fieldNew != 0 {
		rec.New = events.State(p.byte())
	}
	if fields&fieldFlags != 0 {
		rec.Flags = events.Flags(p.uint16())
	}
	if fields&fieldPID != 0 {
		rec.PID = p.diff32(rec.PID)
	}
	if fields&fieldComm != 0 {
		rec.Comm = r.names.read(p)
	}
	if fields&fieldCookie != 0 {
		rec.Cookie = p.diff(rec.Cookie)
	}
	if fields&fieldCgroupID != 0 {
		rec.CgroupID = p.diff(rec.CgroupID)
	}
	if fields&fieldPeerSK != 0 {
		rec.PeerSK = p.diff(rec.PeerSK)
	}
	if fields&fieldTimerNS != 0 {
		rec.TimerNS = int64(p.diff(uint64(rec.TimerNS)))
	}
	if fields&fieldCount != 0 {
		rec.Count = int64(p.diff(uint64(rec.Count)))
	}
	if fields&fieldNetNS != 0 {
		rec.NetNS = p.diff32(rec.NetNS)
	}
	if fields&fieldUID != 0 {
		rec.UID = p.diff32(rec.UID)
	}
	if fields&fieldFamily != 0 {
		rec.Family = p.byte()
	}
	if fields&(fieldLocalAddr|fieldLocalPort) != 0 {
		rec.Local = r.addrPort(rec.Local, fields&fieldLocalAddr != 0, fields&fieldLocalPort != 0)
	}
	if fields&(fieldRemoteAddr|fieldRemotePort) != 0 {
		rec.Remote = r.addrPort(rec.Remote, fields&fieldRemoteAddr != 0, fields&fieldRemotePort != 0)
	}
	if fields&fieldRXPending != 0 {
		rec.RXPending = p.diff32(rec.RXPending)
	}
	if fields&fieldTXPending != 0 {
		rec.TXPending = p.diff32(rec.TXPending)
	}
	if fields&fieldSRTTUS != 0 {
		rec.SRTTUS = p.diff32(rec.SRTTUS)
	}
	if fields&fieldFD != 0 {
		rec.FD = p.diff32(rec.FD)
	}
	if fields&fieldErr != 0 {
		rec.Err = p.uint16()
	}
	if p.err != "" {
		return nil
	}
	s.block, s.rec = r.block, *rec
	r.prev = &s.rec
	return rec
}

func (r *Reader) addrPort(ap netip.AddrPort, addr, port bool) netip.AddrPort {
	a, n := ap.Addr(), ap.Port()
	if addr {
		a = r.names.addr(&r.parser)
	}
	if port {
		n = r.parser.uint16()
	}
	return netip.AddrPortFrom(a, n)
}
