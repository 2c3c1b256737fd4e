// Package cpio writes initramfs archives: the "newc" format of the kernel's
// Documentation/driver-api/early-userspace/buffer-format.rst.
//
// Archives are reproducible: owner, time and inode numbers do not depend on the
// files that went in.
package cpio

import (
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// File types of st_mode.
const (
	modeDir  = 0o040000
	modeReg  = 0o100000
	modeLink = 0o120000
	modeChar = 0o020000
)

// Writer writes an archive. Names are absolute paths in the guest; missing
// parent folders are made.
type Writer struct {
	w    io.Writer
	seen map[string]bool
	ino  int
	pos  int64
}

// NewWriter returns a Writer to w.
func NewWriter(w io.Writer) *Writer {
	return &Writer{w: w, seen: map[string]bool{"": true}}
}

// Dir adds a folder and its parents.
func (w *Writer) Dir(name string) error {
	name = clean(name)
	if w.seen[name] {
		return nil
	}
	if err := w.parents(name); err != nil {
		return err
	}
	return w.entry(name, modeDir|0o755, 0, 0, 0, nil)
}

// Bytes adds a file with the given content.
func (w *Writer) Bytes(name string, perm fs.FileMode, content []byte) error {
	return w.file(name, perm, int64(len(content)), strings.NewReader(string(content)))
}

// Symlink adds a symbolic link.
func (w *Writer) Symlink(name, target string) error {
	name = clean(name)
	if err := w.parents(name); err != nil {
		return err
	}
	return w.entry(name, modeLink|0o777, int64(len(target)), 0, 0, strings.NewReader(target))
}

// Char adds a character device.
func (w *Writer) Char(name string, major, minor int) error {
	name = clean(name)
	if err := w.parents(name); err != nil {
		return err
	}
	return w.entry(name, modeChar|0o600, 0, major, minor, nil)
}

// Copy adds the file or folder tree at hostPath as name; symbolic links are
// followed for files and refused for folders. An empty hostPath adds an empty
// folder.
func (w *Writer) Copy(name, hostPath string) error {
	if hostPath == "" {
		return w.Dir(name)
	}
	return filepath.WalkDir(hostPath, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(hostPath, p)
		if err != nil {
			return err
		}
		guest := path.Join(name, filepath.ToSlash(rel))
		info, err := os.Stat(p)
		switch {
		case err != nil:
			return err
		case d.IsDir():
			return w.Dir(guest)
		case !info.Mode().IsRegular():
			return fmt.Errorf("copy %s: neither a file nor a folder", p)
		}
		f, err := os.Open(p)
		if err != nil {
			return err
		}
		defer f.Close()
		return w.file(guest, info.Mode().Perm(), info.Size(), f)
	})
}

// Close writes the trailer.
func (w *Writer) Close() error {
	return w.entry("TRAILER!!!", 0, 0, 0, 0, nil)
}

func clean(name string) string {
	return strings.TrimPrefix(path.Clean("/"+name), "/")
}

func (w *Writer) parents(name string) error {
	if parent := path.Dir(name); parent != "." {
		return w.Dir(parent)
	}
	return nil
}

func (w *Writer) file(name string, perm fs.FileMode, size int64, r io.Reader) error {
	name = clean(name)
	if size > 0xFFFFFFFF {
		return fmt.Errorf("initramfs %s: %d bytes are too many", name, size)
	}
	if err := w.parents(name); err != nil {
		return err
	}
	return w.entry(name, modeReg|int(perm), size, 0, 0, r)
}

func (w *Writer) entry(name string, mode int, size int64, major, minor int, r io.Reader) error {
	if w.seen[name] {
		return fmt.Errorf("initramfs %s: added twice", name)
	}
	w.seen[name] = true
	w.ino++
	// magic, ino, mode, uid, gid, nlink, mtime, filesize, devmajor, devminor,
	// rdevmajor, rdevminor, namesize (with its NUL), check
	header := fmt.Sprintf("070701%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%08X%s\x00",
		w.ino, mode, 0, 0, 1, 0, size, 0, 0, major, minor, len(name)+1, 0, name)
	if err := w.padded(strings.NewReader(header), int64(len(header))); err != nil {
		return fmt.Errorf("initramfs %s: %w", name, err)
	}
	if r == nil {
		return nil
	}
	if err := w.padded(r, size); err != nil {
		return fmt.Errorf("initramfs %s: %w", name, err)
	}
	return nil
}

// padded copies exactly n bytes and pads to a multiple of four.
func (w *Writer) padded(r io.Reader, n int64) error {
	if _, err := io.CopyN(w.w, r, n); err != nil {
		return err
	}
	w.pos += n
	pad := -w.pos & 3
	w.pos += pad
	_, err := w.w.Write(make([]byte, pad))
	return err
}
