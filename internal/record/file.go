package record

import (
	"bufio"
	"compress/gzip"
	"io"
	"os"
	"strings"

	"github.com/klauspost/compress/zstd"
)

// Create makes the file, or empties the one that is there, and returns a Writer
// that closes it. A path that ends in .gz or .zst is compressed so. A new file is
// its owner's alone: it tells who talks to whom.
func Create(path string, meta *Meta) (*Writer, error) {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return nil, err
	}
	w := &Writer{names: make(map[string]uint64)}
	err = w.compress(f, path)
	if err == nil {
		err = w.start(meta)
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	w.closes = append(w.closes, f.Close)
	return w, nil
}

// compress puts a compressor between w and f where the path asks for one.
func (w *Writer) compress(f *os.File, path string) error {
	switch {
	case strings.HasSuffix(path, ".gz"):
		// The deflater writes a few hundred bytes at a time.
		b := bufio.NewWriterSize(f, fullBlock)
		z, err := gzip.NewWriterLevel(b, gzip.BestSpeed)
		if err != nil {
			return err
		}
		w.through(z, z.Flush, z.Close, b)
	case strings.HasSuffix(path, ".zst"):
		b := bufio.NewWriterSize(f, fullBlock)
		z, err := zstd.NewWriter(b, zstd.WithEncoderLevel(zstd.SpeedFastest), zstd.WithEncoderConcurrency(1),
			zstd.WithWindowSize(1<<20))
		if err != nil {
			return err
		}
		w.through(z, z.Flush, z.Close, b)
	default:
		w.out = f
	}
	return nil
}

// through writes through a compressor and the buffer behind it.
func (w *Writer) through(z io.Writer, flush, end func() error, b *bufio.Writer) {
	w.out = z
	w.flush = func() error {
		if err := flush(); err != nil {
			return err
		}
		return b.Flush()
	}
	w.closes = append(w.closes, end, b.Flush)
}
