package kernel

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

func TestModuleName(t *testing.T) {
	for path, want := range map[string]string{
		"kernel/net/ipv4/tcp_diag.ko":    "tcp_diag",
		"kernel/net/sched/sch-netem.ko":  "sch_netem",
		"kernel/drivers/net/tun.ko.xz":   "tun",
		"kernel/drivers/net/tun.ko.zst":  "tun",
		"modules.dep":                    "",
		"kernel/x.ko.sig":                "",
		"/boot/vmlinuz-6.12-cloud-amd64": "",
	} {
		if got := moduleName(path); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
	}
}

func TestParseModulesDep(t *testing.T) {
	text := "kernel/net/ipv4/tcp_diag.ko.xz: kernel/net/ipv4/inet_diag.ko.xz\nkernel/drivers/net/tun.ko:\nnonsense\n"
	want := map[string][]string{"tcp_diag": {"inet_diag"}, "tun": {}}
	if got := parseModulesDep([]byte(text)); !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestParseModinfo(t *testing.T) {
	data := []byte("license=GPL\x00depends=inet-diag,tcp_core\x00name=tcp_diag\x00depends=\x00")
	if got, want := parseModinfo(data), []string{"inet_diag", "tcp_core"}; !reflect.DeepEqual(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestOrder(t *testing.T) {
	depends := map[string][]string{"a": {"b", "c"}, "b": {"d"}, "c": {"d", "builtin"}, "d": nil, "loop": {"loop2"}, "loop2": {"loop"}}
	tree := make(moduleTree)
	for name := range depends {
		tree[name] = module{}
	}
	asked := make(map[string]int)
	list, absent, err := order([]string{"c", "a", "gone", "d", "loop"}, tree, func(name string) ([]string, error) {
		asked[name]++
		return depends[name], nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"d", "c", "b", "a", "loop2", "loop"}; !reflect.DeepEqual(list, want) {
		t.Errorf("got %v, want %v", list, want)
	}
	if want := []string{"builtin", "gone"}; !reflect.DeepEqual(absent, want) {
		t.Errorf("absent: got %v, want %v", absent, want)
	}
	for name, n := range asked {
		if n != 1 {
			t.Errorf("%s was asked %d times", name, n)
		}
	}
}

// An unpacked package with a plain and a compressed module, without the
// modules.dep that only an installed kernel has.
func TestInstallModules(t *testing.T) {
	if _, err := exec.LookPath("xz"); err != nil {
		t.Fatal("xz-utils is not installed: make deps")
	}
	root, out := t.TempDir(), filepath.Join(t.TempDir(), "modules")
	write := func(name string, content []byte) {
		t.Helper()
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	diag := moduleELF("depends=inet_diag\x00")
	xz := exec.Command("xz", "-c")
	xz.Stdin = bytes.NewReader(diag)
	compressed, err := xz.Output()
	if err != nil {
		t.Fatal(err)
	}
	write("lib/modules/1/kernel/tcp_diag.ko.xz", compressed)
	write("lib/modules/1/kernel/inet_diag.ko", moduleELF("depends=\x00"))
	write("lib/modules/1/kernel/other.ko", moduleELF("depends=\x00"))
	check := func(tree moduleTree, want []string) {
		t.Helper()
		files, absent, err := tree.install(t.Context(), []string{"tcp_diag", "tun"}, out)
		if err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(files, want) || strings.Join(absent, " ") != "tun" {
			t.Errorf("got %v, absent %v; want %v, absent tun", files, absent, want)
		}
		got, err := os.ReadFile(filepath.Join(out, "tcp_diag.ko"))
		if err != nil || !bytes.Equal(got, diag) {
			t.Errorf("tcp_diag.ko was not decompressed: %v", err)
		}
	}
	tree, err := findModules(root)
	if err != nil {
		t.Fatal(err)
	}
	check(tree, []string{"inet_diag.ko", "tcp_diag.ko"})
	write("lib/modules/1/modules.dep", []byte("kernel/tcp_diag.ko.xz: kernel/other.ko\n"))
	if tree, err = findModules(root); err != nil {
		t.Fatal(err)
	}
	check(tree, []string{"other.ko", "tcp_diag.ko"})
}

// moduleELF makes the smallest ELF object with a .modinfo section.
func moduleELF(modinfo string) []byte {
	names := "\x00.modinfo\x00.shstrtab\x00"
	const header, section = 64, 64
	data := uint64(header)
	strtab := data + uint64(len(modinfo))
	table := (strtab + uint64(len(names)) + 7) &^ 7
	var b bytes.Buffer
	put := func(v any) {
		if err := binary.Write(&b, binary.LittleEndian, v); err != nil {
			panic(err)
		}
	}
	put(elf.Header64{
		Ident: [16]byte{0x7f, 'E', 'L', 'F', byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1},
		Type:  uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1,
		Shoff: table, Ehsize: header, Shentsize: section, Shnum: 3, Shstrndx: 2,
	})
	b.WriteString(modinfo)
	b.WriteString(names)
	b.Write(make([]byte, int(table)-b.Len()))
	put(elf.Section64{})
	put(elf.Section64{Name: 1, Type: uint32(elf.SHT_PROGBITS), Off: data, Size: uint64(len(modinfo))})
	put(elf.Section64{Name: 10, Type: uint32(elf.SHT_STRTAB), Off: strtab, Size: uint64(len(names))})
	return b.Bytes()
}
