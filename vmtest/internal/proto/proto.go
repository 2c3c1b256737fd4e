// Package proto is what the two ends of a VM run agree on: the job that the
// host puts into the initramfs, and the frames that the guest sends back over a
// serial line.
package proto

import (
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"time"
)

// Where things are in the guest.
const (
	JobPath   = "/vmtest/job.json"
	BinDir    = "/vmtest/bin"
	SourceDir = "/vmtest/src"
	ModuleDir = "/vmtest/modules"
	OutDir    = "/vmtest/out" // files left here are sent to the host at the end
)

// Job is what the guest's init does between boot and power-off.
type Job struct {
	Hostname string
	Serial   string    // device that takes the frames
	Seed     []byte    // credited to the kernel's entropy pool
	Time     time.Time // the host's; a guest whose clock is behind it has no clock of its own
	Modules  []string  // files, in the order of loading
	Commands []Command // run one after the other
}

// Command is one program of a Job.
type Command struct {
	Args    []string // Args[0] is the path of the program
	Dir     string
	Env     []string
	Timeout time.Duration // SIGQUIT after it, SIGKILL a little later; 0: none
}

// Type says what a Frame carries.
type Type uint8

// Types of Frame.
const (
	TypeHello     Type = 1 // JSON Hello: init runs
	TypeHeartbeat Type = 2 // nothing: the guest is alive
	TypeStart     Type = 3 // Command starts
	TypeStdout    Type = 4
	TypeStderr    Type = 5
	TypeExit      Type = 6 // JSON Exit
	TypeFile      Type = 7 // JSON File, then its content in TypeData
	TypeData      Type = 8
	TypeNote      Type = 9  // text for the user: something is amiss but not fatal
	TypeFatal     Type = 10 // text: the guest cannot go on
	TypeDone      Type = 11 // last frame
)

// Hello is the guest's first word.
type Hello struct {
	Release string        // uname -r
	Uptime  time.Duration // from the kernel's start to init
}

// Exit is how a command ended.
type Exit struct {
	Code     int // as shells count: 128 + signal where a signal ended it
	Signal   string
	TimedOut bool
	Elapsed  time.Duration
}

// File announces a file of OutDir; Name is relative to it.
type File struct {
	Name string
	Size int64
}

// Frame is one message from the guest. Command is the index in Job.Commands
// where the type concerns one.
type Frame struct {
	Type    Type
	Command uint16
	Payload []byte
}

// MaxPayload bounds a frame: a serial line moves about 650 kB/s under
// emulation, and no output should wait long behind another's frame.
const MaxPayload = 8 << 10

// The header: magic, type, command, payload length, CRC-32 of all that follows
// the magic but the CRC itself; big endian.
const (
	magic      = 0xA5766D74 // no valid UTF-8 begins with it
	headerSize = 4 + 1 + 1 + 2 + 4 + 4
)

// ErrCorrupt reports a frame that is damaged, or bytes between frames.
var ErrCorrupt = errors.New("corrupt frame")

// AppendFrame appends the encoding of f to dst. The payload must not be longer
// than MaxPayload.
func AppendFrame(dst []byte, f Frame) []byte {
	if len(f.Payload) > MaxPayload {
		panic("proto: payload too long")
	}
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, magic)
	dst = append(dst, byte(f.Type), 0)
	dst = binary.BigEndian.AppendUint16(dst, f.Command)
	dst = binary.BigEndian.AppendUint32(dst, uint32(len(f.Payload)))
	sum := crc32.NewIEEE()
	sum.Write(dst[start+4:])
	sum.Write(f.Payload)
	dst = binary.BigEndian.AppendUint32(dst, sum.Sum32())
	return append(dst, f.Payload...)
}

// Reader takes frames out of a byte stream.
type Reader struct {
	r      io.Reader
	synced bool
	header [headerSize]byte
}

// NewReader returns a Reader of r. It skips what precedes the first frame: a
// serial port may carry noise from before the guest opened it.
func NewReader(r io.Reader) *Reader { return &Reader{r: r} }

// Next returns the next frame. The error is io.EOF at the end of the stream
// between two frames, io.ErrUnexpectedEOF inside one, and wraps ErrCorrupt
// where the bytes are not what AppendFrame wrote.
func (r *Reader) Next() (Frame, error) {
	h := r.header[:]
	if _, err := io.ReadFull(r.r, h[:4]); err != nil {
		return Frame{}, err
	}
	for binary.BigEndian.Uint32(h) != magic {
		if r.synced {
			return Frame{}, fmt.Errorf("%w: %x instead of the magic", ErrCorrupt, h[:4])
		}
		copy(h, h[1:4])
		if _, err := io.ReadFull(r.r, h[3:4]); err != nil {
			return Frame{}, err
		}
	}
	r.synced = true
	if _, err := io.ReadFull(r.r, h[4:]); err != nil {
		return Frame{}, unexpected(err)
	}
	n := binary.BigEndian.Uint32(h[8:])
	if n > MaxPayload {
		return Frame{}, fmt.Errorf("%w: payload of %d bytes", ErrCorrupt, n)
	}
	f := Frame{Type: Type(h[4]), Command: binary.BigEndian.Uint16(h[6:]), Payload: make([]byte, n)}
	if _, err := io.ReadFull(r.r, f.Payload); err != nil {
		return Frame{}, unexpected(err)
	}
	sum := crc32.NewIEEE()
	sum.Write(h[4:12])
	sum.Write(f.Payload)
	if got := binary.BigEndian.Uint32(h[12:]); got != sum.Sum32() {
		return Frame{}, fmt.Errorf("%w: checksum", ErrCorrupt)
	}
	return f, nil
}

func unexpected(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}
