package cpio

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

type entry struct {
	name    string
	mode    int64
	content string
	rdev    [2]int64
}

// read is a second, independent reading of the format.
func read(t *testing.T, b []byte) []entry {
	t.Helper()
	var list []entry
	for pos := 0; ; {
		field := func(i int) int64 {
			v, err := strconv.ParseInt(string(b[pos+6+8*i:pos+14+8*i]), 16, 64)
			if err != nil {
				t.Fatalf("offset %d field %d: %v", pos, i, err)
			}
			return v
		}
		if magic := string(b[pos : pos+6]); magic != "070701" {
			t.Fatalf("offset %d: magic %q", pos, magic)
		}
		e := entry{mode: field(1), rdev: [2]int64{field(9), field(10)}}
		size, namesize := int(field(6)), int(field(11))
		e.name = strings.TrimSuffix(string(b[pos+110:pos+110+namesize]), "\x00")
		data := (pos + 110 + namesize + 3) &^ 3
		e.content = string(b[data : data+size])
		pos = (data + size + 3) &^ 3
		if e.name == "TRAILER!!!" {
			if pos != len(b) {
				t.Fatalf("%d bytes after the trailer", len(b)-pos)
			}
			return list
		}
		list = append(list, e)
	}
}

func TestArchive(t *testing.T) {
	host := t.TempDir()
	if err := os.WriteFile(filepath.Join(host, "prog"), []byte("odd"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(filepath.Join(host, "tree/sub"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(host, "tree/sub/x"), nil, 0o644); err != nil {
		t.Fatal(err)
	}
	var b bytes.Buffer
	w := NewWriter(&b)
	for _, err := range []error{
		w.Char("/dev/console", 5, 1),
		w.Copy("/bin/prog", filepath.Join(host, "prog")),
		w.Dir("/bin"),
		w.Copy("data", filepath.Join(host, "tree")),
		w.Symlink("/var/run", "/run"),
		w.Bytes("/etc/a b", 0o600, []byte("four")),
		w.Close(),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	want := []entry{
		{name: "dev", mode: 0o040755},
		{name: "dev/console", mode: 0o020600, rdev: [2]int64{5, 1}},
		{name: "bin", mode: 0o040755},
		{name: "bin/prog", mode: 0o100755, content: "odd"},
		{name: "data", mode: 0o040755},
		{name: "data/sub", mode: 0o040755},
		{name: "data/sub/x", mode: 0o100644},
		{name: "var", mode: 0o040755},
		{name: "var/run", mode: 0o120777, content: "/run"},
		{name: "etc", mode: 0o040755},
		{name: "etc/a b", mode: 0o100600, content: "four"},
	}
	got := read(t, b.Bytes())
	if len(got) != len(want) {
		t.Fatalf("got %d entries, want %d: %v", len(got), len(want), got)
	}
	for i := range want {
		if got[i] != want[i] {
			t.Errorf("entry %d: got %+v, want %+v", i, got[i], want[i])
		}
	}
}

func TestRefused(t *testing.T) {
	w := NewWriter(&bytes.Buffer{})
	if err := w.Bytes("/a", 0o644, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.Bytes("a", 0o644, nil); err == nil {
		t.Error("the same name twice: no error")
	}
	if err := w.Copy("/b", filepath.Join(t.TempDir(), "missing")); err == nil {
		t.Error("missing file: no error")
	}
	if err := w.Copy("/c", "/dev/null"); err == nil {
		t.Error("device: no error")
	}
}
