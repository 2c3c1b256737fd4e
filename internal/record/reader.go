package record

import (
	"bufio"
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/klauspost/compress/zstd"

	"github.com/tcptrace/tcptrace/internal/events"
)

// ErrNotRecording says that the input does not begin as a recording does.
var ErrNotRecording = errors.New("it is no recording of tcptrace")

// VersionError says that a recording is of another version than can be read.
type VersionError struct {
	Version uint32 // of the recording
}

func (e *VersionError) Error() string {
	if e.Version > Version {
		return fmt.Sprintf("the recording has format version %d, newer than version %d, which this program reads", e.Version, Version)
	}
	return fmt.Sprintf("the recording has format version %d, want version %d", e.Version, Version)
}

// DamageError says that a recording cannot be read on. What was read before is
// right.
type DamageError struct {
	// Offset is the position in the uncompressed recording of the block (or, in
	// a block that is whole and makes no sense, the entry) that cannot be read.
	Offset int64
	// Truncated: the recording ends there, though its mark of completeness has
	// not come.
	Truncated bool
	// Compressed: the file itself has other offsets.
	Compressed bool
	Reason     string
}

func (e *DamageError) Error() string {
	where := fmt.Sprintf("byte %d", e.Offset)
	if e.Compressed {
		where += ", uncompressed"
	}
	if e.Truncated {
		return fmt.Sprintf("the recording is cut off at %s: %s", where, e.Reason)
	}
	return fmt.Sprintf("the recording is damaged at %s: %s", where, e.Reason)
}

// Fact is one answer that the trace was given; see Writer.Fact.
type Fact struct {
	Topic string
	Key   uint64
	Value string
}

// Item is one entry of a recording: a record, a fact, or, with neither, the end of
// a batch.
type Item struct {
	Record *events.Record
	Fact   *Fact
}

// Reader reads a recording. Not safe for concurrent use.
type Reader struct {
	in         *bufio.Reader
	close      func()
	compressed bool
	meta       *Meta
	offset     int64 // of the block to come
	payloadAt  int64 // offset of parser.b
	err        error // stays
	facts      Facts

	parser  parser // of the data block at hand
	frame   [frameRoom]byte
	payload []byte
	block   uint32
	slots   [numSlots]slot
	prev    *events.Record
	first   events.Record // the base of a block's first record: zero
	scratch events.Record
	fact    Fact
	names   names

	records, factCount, batches uint64
}

// maxWindow bounds the memory of the zstd decoder; zstd(1) goes beyond it with
// --long=28 and more only.
const maxWindow = 128 << 20

// NewReader reads the head of a recording, which may be compressed with gzip or
// zstd.
func NewReader(in io.Reader) (*Reader, error) {
	r := &Reader{in: bufio.NewReaderSize(in, 64<<10), close: func() {}}
	if err := r.decompress(); err != nil {
		return nil, err
	}
	if err := r.head(); err != nil {
		r.Close()
		return nil, err
	}
	return r, nil
}

// Close frees the reader; its input stays open.
func (r *Reader) Close() {
	r.close()
	r.close = func() {}
	if r.err == nil {
		r.err = errClosed
	}
}

// Meta returns what was known when the recording began.
func (r *Reader) Meta() *Meta { return r.meta }

// Facts returns what was told up to the last item. It must not be changed.
func (r *Reader) Facts() *Facts { return &r.facts }

// decompress puts a decoder in front of the input where its first bytes ask for
// one (RFC 1952 section 2.3.1, RFC 8878 section 3.1.1).
func (r *Reader) decompress() error {
	start, err := r.in.Peek(4)
	if err != nil && err != io.EOF {
		return err
	}
	r.compressed = true
	switch {
	case len(start) >= 2 && start[0] == 0x1f && start[1] == 0x8b:
		z, err := gzip.NewReader(r.in)
		if err != nil {
			return r.readError(err)
		}
		r.in = bufio.NewReaderSize(z, 64<<10)
	case len(start) == 4 && binary.LittleEndian.Uint32(start) == 0xfd2fb528:
		// Without concurrency it decodes what there is before it asks for more:
		// a recording that is cut off is read up to there.
		z, err := zstd.NewReader(r.in, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
			zstd.WithDecoderMaxWindow(maxWindow))
		if err != nil {
			return r.readError(err)
		}
		r.close = z.Close
		r.in = bufio.NewReaderSize(z, 64<<10)
	default:
		r.compressed = false
	}
	return nil
}

func isEnd(err error) bool { return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) }

func (r *Reader) damage(offset int64, truncated bool, reason string) error {
	return &DamageError{Offset: offset, Truncated: truncated, Compressed: r.compressed, Reason: reason}
}

func (r *Reader) head() error {
	var head [preambleSize]byte
	n, err := io.ReadFull(r.in, head[:])
	switch known := min(n, len(magic)); {
	case n == 0 && err == io.EOF && !r.compressed:
		return fmt.Errorf("%w: it is empty", ErrNotRecording)
	case string(head[:known]) != magic[:known]:
		return ErrNotRecording
	case err != nil && isEnd(err):
		return r.damage(0, true, "it ends within its header")
	case err != nil:
		return r.readError(err)
	}
	if v := binary.LittleEndian.Uint32(head[len(magic):]); v != Version {
		return &VersionError{Version: v}
	}
	r.offset = int64(preambleSize)
	at := r.offset
	typ, err := r.next()
	if err != nil {
		return err
	}
	if typ != blockMeta {
		return r.damage(at, false, "its header is missing")
	}
	p := parser{b: r.payload}
	r.meta = decodeMeta(&p)
	if p.err != "" {
		return r.damage(at, false, p.err)
	}
	return nil
}

// next reads and checks the next block into payload.
func (r *Reader) next() (typ byte, err error) {
	frame := r.frame[frameRoom-frameSize:]
	if n, err := io.ReadFull(r.in, frame); err != nil {
		if n == 0 && err == io.EOF {
			return 0, r.damage(r.offset, true, "what followed is missing")
		}
		return 0, r.readError(err)
	}
	typ = frame[0]
	length := binary.LittleEndian.Uint32(frame[1:])
	if typ != blockMeta && typ != blockData && typ != blockEnd {
		return 0, r.damage(r.offset, false, fmt.Sprintf("no block of type %#02x is known", typ))
	}
	if length > maxPayload {
		return 0, r.damage(r.offset, false, fmt.Sprintf("a block of %d bytes, want at most %d", length, maxPayload))
	}
	if cap(r.payload) < int(length) {
		r.payload = make([]byte, length, max(int(length), 2*fullBlock))
	}
	r.payload = r.payload[:length]
	if _, err := io.ReadFull(r.in, r.payload); err != nil {
		return 0, r.readError(err)
	}
	if fillFrame(r.frame[:], r.offset, typ, r.payload) != binary.LittleEndian.Uint32(r.frame[crcAt:]) {
		return 0, r.damage(r.offset, false, "a block does not match its checksum")
	}
	r.payloadAt = r.offset + frameSize
	r.offset = r.payloadAt + int64(length)
	return typ, nil
}

// readError tells what a failed read within the block at offset means.
func (r *Reader) readError(err error) error {
	if isEnd(err) {
		return r.damage(r.offset, true, "it ends within a block")
	}
	var failed *fs.PathError // of the file, below a decoder
	if r.compressed && !errors.As(err, &failed) {
		return r.damage(r.offset, false, err.Error())
	}
	return fmt.Errorf("read recording: %w", err)
}

// Next returns the next item, io.EOF after the last one of a complete recording,
// or an error, which stays. What the item leads to is valid until the next call
// and may be changed.
func (r *Reader) Next() (Item, error) {
	if r.err != nil {
		return Item{}, r.err
	}
	item, err := r.item()
	r.err = err
	return item, err
}

func (r *Reader) item() (Item, error) {
	for r.parser.pos == len(r.parser.b) {
		if err := r.nextData(); err != nil {
			return Item{}, err
		}
	}
	p := &r.parser
	at := r.payloadAt + int64(p.pos)
	var item Item
	switch kind := p.byte(); kind {
	case entryBatch:
		r.batches++
	case entryFact:
		r.fact = Fact{Topic: r.names.read(p), Key: p.uvarint(), Value: string(p.text())}
		if p.err == "" {
			r.facts.set(r.fact.Topic, r.fact.Key, r.fact.Value)
			r.factCount++
			item.Fact = &r.fact
		}
	case entryRecord, entryKnown:
		item.Record = r.record(kind == entryKnown)
		r.records++
	default:
		p.fail(fmt.Sprintf("no entry of kind %d is known", kind))
	}
	if p.err != "" {
		return Item{}, r.damage(at, false, p.err)
	}
	return item, nil
}

// nextData goes to the next data block; io.EOF: the recording is complete.
func (r *Reader) nextData() error {
	at := r.offset
	typ, err := r.next()
	switch {
	case err != nil:
		return err
	case typ == blockEnd:
		return r.end(at)
	case typ != blockData:
		return r.damage(at, false, "a second header")
	}
	r.parser = parser{b: r.payload}
	if r.block++; r.block == 0 {
		r.slots = [numSlots]slot{} // the numbers begin again
		r.block = 1
	}
	r.prev = &r.first
	r.names.block = r.names.block[:0]
	return nil
}

// end checks that everything was read, and that nothing follows.
func (r *Reader) end(at int64) error {
	p := parser{b: r.payload}
	for _, read := range []uint64{r.records, r.factCount, r.batches} {
		if n := p.uvarint(); p.err == "" && n != read {
			p.fail(fmt.Sprintf("its end counts %d where %d came", n, read))
		}
	}
	if p.err == "" && p.pos != len(p.b) {
		p.fail("more than the counts in its last block")
	}
	if p.err != "" {
		return r.damage(at, false, p.err)
	}
	switch _, err := r.in.ReadByte(); {
	case err == nil:
		return r.damage(r.offset, false, "something follows its end")
	case err != io.EOF:
		return r.readError(err)
	}
	return io.EOF
}
