package testnet

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
)

// Flags are the control bits of a TCP header (RFC 9293 section 3.1).
type Flags uint8

// Control bits.
const (
	FIN Flags = 1 << 0
	SYN Flags = 1 << 1
	RST Flags = 1 << 2
	PSH Flags = 1 << 3
	ACK Flags = 1 << 4
)

// Has reports whether all of the given bits are set.
func (f Flags) Has(bits Flags) bool { return f&bits == bits }

func (f Flags) String() string {
	var names []string
	for i, name := range []string{"FIN", "SYN", "RST", "PSH", "ACK"} {
		if f&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, "|")
}

// Segment is a TCP segment with its addresses. Src and Dst have no zone.
type Segment struct {
	Src, Dst netip.AddrPort
	Seq, Ack uint32
	Flags    Flags
	Window   uint16
	// Timestamps tells whether TSVal and TSEcr (RFC 7323 section 3) are there.
	Timestamps   bool
	TSVal, TSEcr uint32
	Payload      []byte
}

// NextSeq is the sequence number that follows the segment: SYN and FIN count 1.
func (s Segment) NextSeq() uint32 {
	n := s.Seq + uint32(len(s.Payload))
	if s.Flags.Has(SYN) {
		n++
	}
	if s.Flags.Has(FIN) {
		n++
	}
	return n
}

func (s Segment) String() string {
	return fmt.Sprintf("%v > %v %v seq %d ack %d len %d", s.Src, s.Dst, s.Flags, s.Seq, s.Ack, len(s.Payload))
}

// Parse reads an IP packet. It reports false for what is not TCP.
func Parse(packet []byte) (Segment, bool) {
	if len(packet) == 0 {
		return Segment{}, false
	}
	first := layers.LayerTypeIPv4
	if packet[0]>>4 == 6 {
		first = layers.LayerTypeIPv6
	}
	p := gopacket.NewPacket(packet, first, gopacket.DecodeOptions{NoCopy: true})
	t, ok := p.Layer(layers.LayerTypeTCP).(*layers.TCP)
	if !ok {
		return Segment{}, false
	}
	flow := p.NetworkLayer().NetworkFlow()
	src, _ := netip.AddrFromSlice(flow.Src().Raw())
	dst, _ := netip.AddrFromSlice(flow.Dst().Raw())
	s := Segment{
		Src:     netip.AddrPortFrom(src, uint16(t.SrcPort)),
		Dst:     netip.AddrPortFrom(dst, uint16(t.DstPort)),
		Seq:     t.Seq,
		Ack:     t.Ack,
		Window:  t.Window,
		Payload: append([]byte(nil), t.Payload...),
	}
	for bit, set := range map[Flags]bool{FIN: t.FIN, SYN: t.SYN, RST: t.RST, PSH: t.PSH, ACK: t.ACK} {
		if set {
			s.Flags |= bit
		}
	}
	for _, o := range t.Options {
		if d := o.OptionData; o.OptionType == layers.TCPOptionKindTimestamps && len(d) == 8 {
			s.Timestamps, s.TSVal, s.TSEcr = true, be32(d), be32(d[4:])
		}
	}
	return s, true
}

func be32(b []byte) uint32 {
	return uint32(b[0])<<24 | uint32(b[1])<<16 | uint32(b[2])<<8 | uint32(b[3])
}

func appendBE32(b []byte, v uint32) []byte {
	return append(b, byte(v>>24), byte(v>>16), byte(v>>8), byte(v))
}

// Packet makes the IP packet that carries the segment, checksums included.
func (s Segment) Packet() ([]byte, error) {
	t := &layers.TCP{
		SrcPort: layers.TCPPort(s.Src.Port()),
		DstPort: layers.TCPPort(s.Dst.Port()),
		Seq:     s.Seq,
		Ack:     s.Ack,
		Window:  s.Window,
		FIN:     s.Flags.Has(FIN),
		SYN:     s.Flags.Has(SYN),
		RST:     s.Flags.Has(RST),
		PSH:     s.Flags.Has(PSH),
		ACK:     s.Flags.Has(ACK),
	}
	if s.Timestamps {
		nop := layers.TCPOption{OptionType: layers.TCPOptionKindNop, OptionLength: 1}
		t.Options = []layers.TCPOption{nop, nop, {
			OptionType:   layers.TCPOptionKindTimestamps,
			OptionLength: 10,
			OptionData:   appendBE32(appendBE32(nil, s.TSVal), s.TSEcr),
		}}
	}
	var network interface {
		gopacket.NetworkLayer
		gopacket.SerializableLayer
	}
	src, dst := s.Src.Addr(), s.Dst.Addr()
	if src.Is4() {
		network = &layers.IPv4{
			Version: 4, TTL: 64, Protocol: layers.IPProtocolTCP, Flags: layers.IPv4DontFragment,
			SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
		}
	} else {
		network = &layers.IPv6{
			Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP,
			SrcIP: src.AsSlice(), DstIP: dst.AsSlice(),
		}
	}
	if err := t.SetNetworkLayerForChecksum(network); err != nil {
		return nil, fmt.Errorf("segment %v: %w", s, err)
	}
	buf := gopacket.NewSerializeBuffer()
	opts := gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}
	if err := gopacket.SerializeLayers(buf, opts, network, t, gopacket.Payload(s.Payload)); err != nil {
		return nil, fmt.Errorf("segment %v: %w", s, err)
	}
	return buf.Bytes(), nil
}
