package record

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
)

// framed makes a block of a payload.
func framed(offset int64, typ byte, payload []byte) []byte {
	frame := make([]byte, frameRoom)
	binary.LittleEndian.PutUint32(frame[crcAt:], fillFrame(frame, offset, typ, payload))
	return append(frame[8:], payload...)
}

// readAll reads what there is: it must come to an end, an error or io.EOF, and
// stay there.
func readAll(t *testing.T, in []byte) (items int) {
	r, err := NewReader(bytes.NewReader(in))
	if err != nil {
		if r != nil {
			t.Fatal("a reader and an error")
		}
		return 0
	}
	defer r.Close()
	for {
		item, err := r.Next()
		if err != nil {
			if item.Record != nil || item.Fact != nil {
				t.Fatal("an item and an error")
			}
			if _, again := r.Next(); again != err {
				t.Fatalf("then %v after %v", again, err)
			}
			if cap(r.payload) > maxPayload || r.facts.bytes > maxFactBytes+2*maxText || len(r.facts.values) > maxFacts {
				t.Fatal("the reader holds more than it should")
			}
			return items
		}
		items++
	}
}

func FuzzReader(f *testing.F) {
	f.Add(encode(f, testMeta(), smallEntries()))
	f.Add([]byte(magic))
	dir := f.TempDir()
	for _, name := range []string{"a.gz", "a.zst"} {
		path := filepath.Join(dir, name)
		w, err := Create(path, testMeta())
		if err != nil {
			f.Fatal(err)
		}
		if err := put(w, smallEntries()); err != nil {
			f.Fatal(err)
		}
		if err := w.Close(); err != nil {
			f.Fatal(err)
		}
		raw, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(raw)
	}
	f.Fuzz(func(t *testing.T, in []byte) { readAll(t, in) })
}

// FuzzBlocks looks behind the checksums. What can be read can be written, and is
// then read as the same.
func FuzzBlocks(f *testing.F) {
	whole := encode(f, testMeta(), smallEntries())
	length := int(binary.LittleEndian.Uint32(whole[preambleSize+1:]))
	f.Add(whole[preambleSize+frameSize:preambleSize+frameSize+length], whole[preambleSize+2*frameSize+length:])
	f.Add([]byte{2, 0, 0, 0, 0, 0, 0, 0}, []byte{entryBatch, entryRecord, 0, 0, 0, 2, 2})
	f.Fuzz(func(t *testing.T, meta, data []byte) {
		in := binary.LittleEndian.AppendUint32([]byte(magic), Version)
		in = append(in, framed(int64(len(in)), blockMeta, meta)...)
		in = append(in, framed(int64(len(in)), blockData, data)...)
		readAll(t, in)
		m, entries, err := decode(bytes.NewReader(in))
		if err == nil {
			t.Fatal("complete without an end")
		}
		if m == nil {
			return
		}
		gotMeta, got, err := decode(bytes.NewReader(encode(t, m, entries)))
		if err != nil {
			t.Fatal(err)
		}
		compareMeta(t, gotMeta, m)
		// A fact that is none is not written again.
		compare(t, records(got), records(entries))
	})
}

func records(all []entry) []entry {
	var out []entry
	for _, e := range all {
		if e.fact == nil {
			out = append(out, e)
		}
	}
	return out
}

// endless is a recording whose head is whole, followed by zeros.
type endless struct{ head *bytes.Reader }

func (e endless) Read(b []byte) (int, error) {
	if n, err := e.head.Read(b); err != io.EOF {
		return n, err
	}
	clear(b)
	return len(b), nil
}

// A length is not believed.
func TestHostileLength(t *testing.T) {
	whole := encode(t, testMeta(), []entry{{rec: &events.Record{}}})
	length := int(binary.LittleEndian.Uint32(whole[preambleSize+1:]))
	at := preambleSize + frameSize + length
	binary.LittleEndian.PutUint32(whole[at+1:], 1<<31)
	r, err := NewReader(endless{bytes.NewReader(whole)})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	_, err = r.Next()
	damage, ok := err.(*DamageError)
	if !ok || damage.Offset != int64(at) {
		t.Fatalf("got %v, want damage at %d", err, at)
	}
}
