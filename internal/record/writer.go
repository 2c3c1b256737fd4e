package record

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net/netip"

	"github.com/tcptrace/tcptrace/internal/events"
)

// errClosed says that a Writer was used after Close or Abort.
var errClosed = errors.New("the recording is closed")

// Writer writes a recording. Its first error stays: every later call returns it
// and does nothing. Not safe for concurrent use.
type Writer struct {
	out    io.Writer
	flush  func() error   // hands on what a compressor holds; nil: there is none
	closes []func() error // ends the compressor, then the file
	err    error
	offset int64 // of the block to come
	facts  Facts

	buf   []byte // room for the frame, then the payload
	block uint32 // number of the block
	slots [numSlots]slot
	prev  *events.Record
	first events.Record // the base of a block's first record: zero
	names map[string]uint64
	due   bool // the batch is to be sent off

	records, factCount, batches uint64
}

// NewWriter writes the head of a recording to w and returns a Writer for the rest,
// uncompressed. Closing it leaves w open.
func NewWriter(w io.Writer, meta *Meta) (*Writer, error) {
	rw := &Writer{out: w, names: make(map[string]uint64)}
	if err := rw.start(meta); err != nil {
		return nil, err
	}
	return rw, nil
}

func (w *Writer) start(meta *Meta) error {
	w.buf = make([]byte, frameRoom, frameRoom+2*fullBlock)
	payload, err := appendMeta(w.buf, meta)
	if err == nil && len(payload)-frameRoom > maxPayload {
		err = fmt.Errorf("a header of %d bytes: want at most %d", len(payload)-frameRoom, maxPayload)
	}
	if err != nil {
		return fmt.Errorf("encode the header of the recording: %w", err)
	}
	head := binary.LittleEndian.AppendUint32([]byte(magic), Version)
	if _, err := w.out.Write(head); err != nil {
		return fmt.Errorf("write recording: %w", err)
	}
	w.offset = int64(len(head))
	w.buf = payload
	w.endBlock(blockMeta)
	return w.Flush()
}

// Facts returns what was told to Fact. It must not be changed.
func (w *Writer) Facts() *Facts { return &w.facts }

// Fact notes what a question of the trace was answered, in front of the record
// that is handled with it. The same answer again costs nothing.
func (w *Writer) Fact(topic string, key uint64, value string) {
	if w.err != nil {
		return
	}
	if len(topic) > maxText || len(value) > maxText {
		w.err = fmt.Errorf("write recording: a fact of %d bytes: want at most %d", max(len(topic), len(value)), maxText)
		return
	}
	if !w.facts.set(topic, key, value) {
		return
	}
	w.buf = append(w.buf, entryFact)
	w.name(topic)
	w.buf = binary.AppendUvarint(w.buf, key)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(value)))
	w.buf = append(w.buf, value...)
	w.factCount++
	w.filled()
}

// Record writes one record.
func (w *Writer) Record(r *events.Record) {
	if w.err != nil {
		return
	}
	if r.Kind == events.KindTick || r.Kind == events.KindScanEnd {
		w.due = true
	}
	n := slotOf(r.SK)
	s := &w.slots[n]
	base, old := w.prev, w.prev.Old
	start := len(w.buf)
	// The four bytes of the entry's kind and fields are filled in at the end.
	b := append(w.buf, entryRecord, 0, 0, 0)
	if s.block == w.block && s.rec.SK == r.SK {
		base = &s.rec
		old = base.New
		b[start] = entryKnown
		b = append(b, byte(n), byte(n>>8))
		b = appendDiff(b, uint64(r.TS), uint64(base.TS))
	} else {
		b = appendDiff(b, uint64(r.TS), uint64(base.TS))
		b = appendDiff(b, r.SK, base.SK)
	}
	var fields uint32
	if r.Kind != base.Kind {
		fields |= fieldKind
		b = append(b, byte(r.Kind))
	}
	if r.Old != old {
		fields |= fieldOld
		b = append(b, byte(r.Old))
	}
	if r.New != base.New {
		fields |= fieldNew
		b = append(b, byte(r.New))
	}
	if r.Flags != base.Flags {
		fields |= fieldFlags
		b = append(b, byte(r.Flags), byte(r.Flags>>8))
	}
	if r.PID != base.PID {
		fields |= fieldPID
		b = appendDiff(b, uint64(r.PID), uint64(base.PID))
	}
	if r.Comm != base.Comm {
		if len(r.Comm) > maxText {
			w.err = fmt.Errorf("write recording: a name of %d bytes: want at most %d", len(r.Comm), maxText)
			return
		}
		fields |= fieldComm
		w.buf = b
		w.name(r.Comm)
		b = w.buf
	}
	if r.Cookie != base.Cookie {
		fields |= fieldCookie
		b = appendDiff(b, r.Cookie, base.Cookie)
	}
	if r.CgroupID != base.CgroupID {
		fields |= fieldCgroupID
		b = appendDiff(b, r.CgroupID, base.CgroupID)
	}
	if r.PeerSK != base.PeerSK {
		fields |= fieldPeerSK
		b = appendDiff(b, r.PeerSK, base.PeerSK)
	}
	if r.TimerNS != base.TimerNS {
		fields |= fieldTimerNS
		b = appendDiff(b, uint64(r.TimerNS), uint64(base.TimerNS))
	}
	if r.Count != base.Count {
		fields |= fieldCount
		b = appendDiff(b, uint64(r.Count), uint64(base.Count))
	}
	if r.NetNS != base.NetNS {
		fields |= fieldNetNS
		b = appendDiff(b, uint64(r.NetNS), uint64(base.NetNS))
	}
	if r.UID != base.UID {
		fields |= fieldUID
		b = appendDiff(b, uint64(r.UID), uint64(base.UID))
	}
	if r.Family != base.Family {
		fields |= fieldFamily
		b = append(b, r.Family)
	}
	if r.Local != base.Local {
		if a := r.Local.Addr(); a != base.Local.Addr() {
			fields |= fieldLocalAddr
			b = w.appendAddr(b, a)
		}
		if p := r.Local.Port(); p != base.Local.Port() {
			fields |= fieldLocalPort
			b = append(b, byte(p), byte(p>>8))
		}
	}
	if r.Remote != base.Remote {
		if a := r.Remote.Addr(); a != base.Remote.Addr() {
			fields |= fieldRemoteAddr
			b = w.appendAddr(b, a)
		}
		if p := r.Remote.Port(); p != base.Remote.Port() {
			fields |= fieldRemotePort
			b = append(b, byte(p), byte(p>>8))
		}
	}
	if r.RXPending != base.RXPending {
		fields |= fieldRXPending
		b = appendDiff(b, uint64(r.RXPending), uint64(base.RXPending))
	}
	if r.TXPending != base.TXPending {
		fields |= fieldTXPending
		b = appendDiff(b, uint64(r.TXPending), uint64(base.TXPending))
	}
	if r.SRTTUS != base.SRTTUS {
		fields |= fieldSRTTUS
		b = appendDiff(b, uint64(r.SRTTUS), uint64(base.SRTTUS))
	}
	if r.FD != base.FD {
		fields |= fieldFD
		b = appendDiff(b, uint64(r.FD), uint64(base.FD))
	}
	if r.Err != base.Err {
		fields |= fieldErr
		b = append(b, byte(r.Err), byte(r.Err>>8))
	}
	b[start+1], b[start+2], b[start+3] = byte(fields), byte(fields>>8), byte(fields>>16)
	w.buf = b
	s.block, s.rec = w.block, *r
	w.prev = &s.rec
	w.records++
	w.filled()
}

// EndBatch ends a batch. One that has a KindTick or KindScanEnd, of which the one or
// the other comes each second, is handed to the system with all before it.
func (w *Writer) EndBatch() error {
	if w.err != nil {
		return w.err
	}
	w.buf = append(w.buf, entryBatch)
	w.batches++
	if w.due {
		w.due = false
		return w.Flush()
	}
	w.filled()
	return w.err
}

// Flush hands everything to the system: it survives the end of the process.
func (w *Writer) Flush() error {
	if w.err == nil && len(w.buf) > frameRoom {
		w.endBlock(blockData)
	}
	if w.err == nil && w.flush != nil {
		w.failed(w.flush())
	}
	return w.err
}

// Close marks the recording as complete and closes what Create opened.
func (w *Writer) Close() error {
	if w.Flush() == nil {
		for _, n := range []uint64{w.records, w.factCount, w.batches} {
			w.buf = binary.AppendUvarint(w.buf, n)
		}
		w.endBlock(blockEnd)
	}
	for _, c := range w.closes {
		if err := c(); w.err == nil {
			w.failed(err)
		}
	}
	w.closes = nil
	if err := w.err; err != nil {
		return err
	}
	w.err = errClosed
	return nil
}

// Abort closes what Create opened and leaves the recording without its mark of
// completeness: something is missing at its end. It returns what went wrong beyond
// the error that was returned before. After Close it does nothing.
func (w *Writer) Abort() error {
	var err error
	if w.err == nil {
		err = w.Flush()
	}
	if n := len(w.closes); n > 0 {
		// The compressor's end is a mark of completeness, too: only the file.
		err = errors.Join(err, w.closes[n-1]())
	}
	w.closes = nil
	if w.err == nil {
		w.err = errClosed
	}
	return err
}

// Records returns how many records were written.
func (w *Writer) Records() uint64 { return w.records }

func (w *Writer) failed(err error) {
	if err != nil {
		w.err = fmt.Errorf("write recording: %w", err)
	}
}

// filled ends the block when it is full.
func (w *Writer) filled() {
	if len(w.buf) >= fullBlock {
		w.endBlock(blockData)
	}
}

// endBlock writes what is in buf and begins a new block.
func (w *Writer) endBlock(typ byte) {
	crc := fillFrame(w.buf, w.offset, typ, w.buf[frameRoom:])
	binary.LittleEndian.PutUint32(w.buf[crcAt:], crc)
	n, err := w.out.Write(w.buf[8:])
	w.failed(err)
	w.offset += int64(n)
	w.buf = w.buf[:frameRoom]
	w.block++
	if w.block == 0 {
		w.slots = [numSlots]slot{} // the numbers begin again
		w.block = 1
	}
	w.prev = &w.first
	clear(w.names)
}

// name writes a text that comes again and again.
func (w *Writer) name(s string) {
	if n, ok := w.names[s]; ok {
		w.buf = binary.AppendUvarint(w.buf, n)
		return
	}
	w.names[s] = uint64(len(w.names)) + 1
	w.buf = append(w.buf, 0)
	w.buf = binary.AppendUvarint(w.buf, uint64(len(s)))
	w.buf = append(w.buf, s...)
}

func (w *Writer) appendAddr(b []byte, a netip.Addr) []byte {
	switch {
	case !a.IsValid():
		return append(b, addrNone)
	case a.Is4():
		bytes := a.As4()
		return append(append(b, addr4), bytes[:]...)
	}
	bytes := a.As16()
	zone := a.Zone()
	if zone == "" {
		return append(append(b, addr6), bytes[:]...)
	}
	w.buf = append(append(b, addr6Zone), bytes[:]...)
	w.name(zone)
	return w.buf
}

// appendDiff writes v as its signed distance from base.
func appendDiff(b []byte, v, base uint64) []byte {
	d := v - base
	u := d<<1 ^ uint64(int64(d)>>63)
	if u < 0x80 {
		return append(b, byte(u))
	}
	return binary.AppendUvarint(b, u)
}
