package proto

import (
	"bytes"
	"errors"
	"io"
	"testing"
)

var frames = []Frame{
	{Type: TypeHello, Payload: []byte(`{"Release":"6.12"}`)},
	{Type: TypeStdout, Command: 7, Payload: bytes.Repeat([]byte{0xA5, 0x76, 0x6D, 0x74}, MaxPayload/4)},
	{Type: TypeHeartbeat, Payload: []byte{}},
	{Type: TypeDone, Command: 65535, Payload: []byte{}},
}

func encode(frames ...Frame) []byte {
	var b []byte
	for _, f := range frames {
		b = AppendFrame(b, f)
	}
	return b
}

func TestRoundTrip(t *testing.T) {
	noise := []byte("boot noise \xa5\xa5vm\x00")
	r := NewReader(io.MultiReader(bytes.NewReader(noise), bytes.NewReader(encode(frames...))))
	for i, want := range frames {
		got, err := r.Next()
		if err != nil {
			t.Fatalf("frame %d: %v", i, err)
		}
		if got.Type != want.Type || got.Command != want.Command || !bytes.Equal(got.Payload, want.Payload) {
			t.Errorf("frame %d: got %v, want %v", i, got, want)
		}
	}
	if _, err := r.Next(); err != io.EOF {
		t.Errorf("after the last frame: got %v, want EOF", err)
	}
}

func TestDamage(t *testing.T) {
	good := encode(frames[0], frames[3])
	second := len(encode(frames[0]))
	for i := range good {
		bad := bytes.Clone(good)
		bad[i] ^= 0x10
		r := NewReader(bytes.NewReader(bad))
		n, err := 0, error(nil)
		for ; err == nil; n++ {
			_, err = r.Next()
		}
		// A damaged first magic is noise; everything else must be noticed.
		if i < 4 {
			continue
		}
		if !errors.Is(err, ErrCorrupt) && err != io.ErrUnexpectedEOF {
			t.Errorf("byte %d flipped: got %v after %d frames, want an error", i, err, n-1)
		}
		if i < second && n != 1 {
			t.Errorf("byte %d flipped: %d frames passed, want 0", i, n-1)
		}
	}
}

func TestTruncation(t *testing.T) {
	good := encode(frames[0])
	for n := 4; n < len(good); n++ {
		if _, err := NewReader(bytes.NewReader(good[:n])).Next(); err != io.ErrUnexpectedEOF {
			t.Errorf("%d of %d bytes: got %v, want %v", n, len(good), err, io.ErrUnexpectedEOF)
		}
	}
}

func FuzzReader(f *testing.F) {
	f.Add(encode(frames...))
	f.Add([]byte("noise"))
	f.Fuzz(func(t *testing.T, b []byte) {
		r := NewReader(bytes.NewReader(b))
		for {
			frame, err := r.Next()
			if err != nil {
				if frame.Payload != nil {
					t.Error("both a frame and an error")
				}
				return
			}
			if again, err := NewReader(bytes.NewReader(encode(frame))).Next(); err != nil || !bytes.Equal(again.Payload, frame.Payload) {
				t.Errorf("re-encoded frame does not decode: %v", err)
			}
		}
	})
}
