package owner

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

const fixture = "testdata/proc"

// id is a container's.
const id = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

func equal(a, b watch.Process) bool {
	return a.Comm == b.Comm && a.PPID == b.PPID && a.UID == b.UID && slices.Equal(a.Cmdline, b.Cmdline) &&
		(a.Cmdline == nil) == (b.Cmdline == nil) && a.NofileSoft == b.NofileSoft && a.OpenFDs == b.OpenFDs &&
		a.Unit == b.Unit && a.StartTS == b.StartTS
}

func TestProcess(t *testing.T) {
	const slept = int64(5e9)
	p := NewProcesses(fixture, slept)
	for _, tt := range []struct {
		pid  uint32
		want watch.Process
		ok   bool
	}{
		{1, watch.Process{
			Comm: "systemd", UID: 0, Cmdline: []string{"/sbin/init", "splash"}, NofileSoft: 1048576, OpenFDs: 3,
			Unit: watch.Unit{Kind: KindSystemd, Name: "init.scope", Path: "/init.scope"}, StartTS: 20e6 - slept,
		}, true},
		{700, watch.Process{
			Comm: "python3", PPID: 1, UID: 33, Cmdline: []string{"/usr/bin/python3", "-u", "server.py", "--name", "a b"},
			NofileSoft: 1024, OpenFDs: 7, StartTS: 123450e6 - slept,
			Unit: watch.Unit{Kind: KindSystemd, Name: "leaky-app.service", Path: "/system.slice/leaky-app.service"},
		}, true},
		{702, watch.Process{
			Comm: "we) R (ird", PPID: 700, UID: 1, NofileSoft: -1, OpenFDs: 1, StartTS: 124000e6 - slept,
			Unit: watch.Unit{Kind: KindDocker, Name: id, Path: "/docker/" + id},
		}, true},
		// Half of it vanished while it was read.
		{705, watch.Process{Comm: "bare", PPID: 1, UID: events.Unknown, NofileSoft: -1, OpenFDs: -1, StartTS: 5e9 - slept}, true},
		{703, watch.Process{}, false},
		{704, watch.Process{}, false},
		{799, watch.Process{}, false},
	} {
		for range 2 {
			got, ok := p.Process(tt.pid)
			if ok != tt.ok || !equal(got, tt.want) {
				t.Errorf("process %d\n got %+v, %v\nwant %+v, %v", tt.pid, got, ok, tt.want, tt.ok)
			}
		}
	}
	if notes := p.Notes(); notes != nil {
		t.Errorf("got notes %q of a /proc that hides nothing", notes)
	}
}

// tree copies process 700 of the fixture into a place where it may be changed.
func tree(t *testing.T) (root string, write func(name, text string)) {
	t.Helper()
	root = t.TempDir()
	if err := os.CopyFS(root, os.DirFS(fixture)); err != nil {
		t.Fatal(err)
	}
	return root, func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(root, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

func read(t *testing.T, name string) string {
	t.Helper()
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func TestRefresh(t *testing.T) {
	root, write := tree(t)
	p := NewProcesses(root, 0)
	ask := func() watch.Process {
		t.Helper()
		got, ok := p.Process(700)
		if !ok {
			t.Fatal("no process 700")
		}
		return got
	}
	ask()
	// Within a round nothing changes, in the next the command line and descriptors.
	write("700/cmdline", "/usr/bin/python3\x00other.py\x00")
	write("700/fd/99", "")
	write("700/limits", strings.ReplaceAll(read(t, fixture+"/700/limits"), "1024 ", "2048 "))
	if got := ask(); got.OpenFDs != 7 || len(got.Cmdline) != 5 {
		t.Errorf("got %+v within the round: want no change", got)
	}
	p.Refresh()
	if got := ask(); got.OpenFDs != 8 || !slices.Equal(got.Cmdline, []string{"/usr/bin/python3", "other.py"}) {
		t.Errorf("got %+v: want 8 descriptors and the new command line", got)
	}
	// The limits after some rounds.
	for range slowEvery {
		p.Refresh()
		ask()
	}
	if got := ask(); got.NofileSoft != 2048 {
		t.Errorf("got limit %d after %d rounds: want 2048", got.NofileSoft, slowEvery)
	}
	// Another process with the number: everything is read anew.
	p.Refresh()
	write("700/stat", strings.Replace(read(t, fixture+"/700/stat"), " 12345 ", " 99999 ", 1))
	write("700/cgroup", "0::/user.slice\n")
	write("700/limits", strings.ReplaceAll(read(t, fixture+"/700/limits"), "1024 ", "4096 "))
	if got := ask(); got.StartTS != 999990e6 || got.NofileSoft != 4096 || got.Unit.Path != "/user.slice" {
		t.Errorf("got %+v: want the new process", got)
	}
	// Gone, and there again.
	p.Refresh()
	write("700/stat", "")
	if _, ok := p.Process(700); ok {
		t.Error("got a process whose stat is empty")
	}
	p.Refresh()
	write("700/stat", read(t, fixture+"/700/stat"))
	if got := ask(); got.StartTS != 123450e6 {
		t.Errorf("got %+v: want the first process", got)
	}
	// Who is not asked about for a round is forgotten.
	p.Refresh()
	p.Refresh()
	if len(p.known) != 0 {
		t.Errorf("%d processes are kept: want none", len(p.known))
	}
}

func TestHiddenProcesses(t *testing.T) {
	root := t.TempDir()
	p := NewProcesses(root, 0)
	for range 3 {
		for pid := range uint32(5) {
			if _, ok := p.Process(pid + 1); ok {
				t.Fatal("got a process of an empty /proc")
			}
		}
		p.Refresh()
	}
	want := []string{"/proc hides other processes (hidepid): their command lines, limits and units are not known"}
	if got := p.Notes(); !slices.Equal(got, want) {
		t.Errorf("got notes %q: want %q", got, want)
	}
	if got := p.Notes(); got != nil {
		t.Errorf("got notes %q again: want each once", got)
	}
}

func TestDenied(t *testing.T) {
	p := NewProcesses(fixture, 0)
	denied := &fs.PathError{Op: "open", Path: "fd", Err: fs.ErrPermission}
	p.denied(denied)
	p.denied(denied)
	p.denied(fs.ErrNotExist)
	if got := p.Notes(); len(got) != 1 || !strings.Contains(got[0], "CAP_SYS_PTRACE") {
		t.Errorf("got notes %q: want one", got)
	}
	p.missing(denied)
	if got := p.Notes(); len(got) != 1 || !strings.Contains(got[0], "does not let") {
		t.Errorf("got notes %q: want one", got)
	}
}

func TestUnitOf(t *testing.T) {
	const uid = "0b1c2d3e-4f50-6172-8394-a5b6c7d8e9f0"
	under := strings.ReplaceAll(uid, "-", "_")
	for _, tt := range []struct{ path, kind, name string }{
		{"/", "", ""},
		{"", "", ""},
		{"/some/where", "", ""},
		{"/init.scope", KindSystemd, "init.scope"},
		{"/system.slice/nginx.service", KindSystemd, "nginx.service"},
		{"/system.slice/system-getty.slice/getty@tty1.service", KindSystemd, "getty@tty1.service"},
		{"/system.slice/nginx.service/workers", KindSystemd, "nginx.service"},
		{"/system.slice", KindSystemd, "system.slice"},
		{"/user.slice/user-1000.slice/session-3.scope", KindSystemd, "session-3.scope"},
		{"/user.slice/user-1000.slice/user@1000.service/app.slice/app-firefox-77.scope", KindSystemd, "app-firefox-77.scope"},
		{"/machine.slice/machine-web.scope/payload", KindSystemd, "machine-web.scope"},
		{"/.service", "", ""},
		{"/docker/" + id, KindDocker, id},
		{"/docker/short", "", ""},
		{"/system.slice/docker-" + id + ".scope", KindDocker, id},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/docker-" + id + ".scope", KindDocker, id},
		{"/system.slice/docker-" + id + ".scope/init.scope", KindDocker, id},
		{"/system.slice/docker.service", KindSystemd, "docker.service"},
		{"/default/" + id, KindContainerd, id},
		{"/system.slice/nerdctl-" + id + ".scope", KindContainerd, id},
		{"/system.slice/containerd.service", KindSystemd, "containerd.service"},
		{"/system.slice/crio-" + id + ".scope", KindCRIO, id},
		{"/system.slice/crio-conmon-" + id + ".scope", KindCRIO, id},
		{"/machine.slice/libpod-" + id + ".scope", KindPodman, id},
		{"/machine.slice/libpod-" + id + ".scope/container", KindPodman, id},
		{"/machine.slice/libpod-conmon-" + id + ".scope", KindPodman, id},
		{"/user.slice/user-1000.slice/user@1000.service/user.slice/libpod-" + id + ".scope/container", KindPodman, id},
		{"/libpod_parent/libpod-" + id, KindPodman, id},
		{"/kubepods/burstable/pod" + uid + "/" + id, KindKubernetes, uid},
		{"/kubepods/pod" + uid, KindKubernetes, uid},
		{"/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod" + under + ".slice/cri-containerd-" + id + ".scope", KindKubernetes, uid},
		{"/kubepods.slice/kubepods-pod" + under + ".slice/crio-" + id + ".scope", KindKubernetes, uid},
		{"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + strings.Repeat("ab", 16) + ".slice/x", KindKubernetes, strings.Repeat("ab", 16)},
		{"/system.slice/containerd.service/kubepods-burstable-pod" + under + ".slice:cri-containerd:" + id, KindKubernetes, uid},
		{"/kubelet/kubepods/besteffort/pod" + uid + "/" + id, KindKubernetes, uid},
		{"/system.slice:docker:" + id, KindDocker, id},
		{"/system.slice:other:" + id, KindContainerd, id},
		{"/podcast.service", KindSystemd, "podcast.service"},
		{"/lxc/web1", KindLXC, "web1"},
		{"/lxc.payload.web1/system.slice/cron.service", KindLXC, "web1"},
	} {
		got := UnitOf(tt.path)
		if want := (watch.Unit{Kind: tt.kind, Name: tt.name, Path: tt.path}); got != want {
			t.Errorf("%s\n got %+v\nwant %+v", tt.path, got, want)
		}
	}
}

func TestUnitOfProcess(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		want       watch.Unit
	}{
		{"version 2", "0::/system.slice/a.service\n", watch.Unit{Kind: KindSystemd, Name: "a.service", Path: "/system.slice/a.service"}},
		{"version 1", "9:memory:/system.slice/a.service\n1:name=systemd:/system.slice/b.service\n",
			watch.Unit{Kind: KindSystemd, Name: "b.service", Path: "/system.slice/b.service"}},
		{"version 1, docker", "9:memory:/docker/" + id + "\n2:cpu,cpuacct:/docker/" + id + "\n",
			watch.Unit{Kind: KindDocker, Name: id, Path: "/docker/" + id}},
		{"both", "4:memory:/box/7\n1:name=systemd:/\n0::/\n", watch.Unit{Path: "/box/7"}},
		{"colons", "0::/a:b:c\n", watch.Unit{Path: "/a:b:c"}},
		{"nothing", "", watch.Unit{}},
		{"nonsense", "x\n1:2\n", watch.Unit{}},
	} {
		if got := unitOf(tt.text); got != tt.want {
			t.Errorf("%s: got %+v: want %+v", tt.name, got, tt.want)
		}
	}
}

func TestPortRange(t *testing.T) {
	root, write := tree(t)
	got, err := PortRange(root)
	want := []watch.PortSpan{{Low: 8080, High: 8080}, {Low: 33000, High: 33009}, {Low: 60999, High: 60999}}
	if err != nil || got.PortSpan != (watch.PortSpan{Low: 32768, High: 60999}) || !slices.Equal(got.Reserved, want) {
		t.Errorf("got %+v, %v", got, err)
	}
	if n := got.Usable(); n != 28232-11 {
		t.Errorf("got %d usable: want %d", n, 28232-11)
	}
	for file, texts := range map[string][]string{
		"ip_local_port_range":     {"", "1", "a b", "1 70000", "1 2 3"},
		"ip_local_reserved_ports": {"x", "1-", "1,,70000"},
	} {
		path := "sys/net/ipv4/" + file
		for _, text := range texts {
			write(path, text)
			if r, err := PortRange(root); err == nil {
				t.Errorf("%s %q: got %+v: want an error", file, text, r)
			}
		}
		write(path, read(t, filepath.Join(fixture, path)))
	}
	write("sys/net/ipv4/ip_local_reserved_ports", "\n")
	if r, err := PortRange(root); err != nil || r.Reserved != nil {
		t.Errorf("got %+v, %v without reserved ports", r, err)
	}
	if _, err := PortRange(t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v without sysctls", err)
	}
}

func FuzzParse(f *testing.F) {
	for _, pid := range []int{1, 700, 702, 703, 704} {
		text, err := os.ReadFile(filepath.Join(fixture, strconv.Itoa(pid), "stat"))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(text)
	}
	f.Add([]byte("9:a:/docker/" + id + "\n0::/kubepods/pod\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if comm, _, start, ok := parseStat(text); ok {
			if int64(start)*tickNS < 0 || !strings.Contains(string(text), comm) {
				t.Errorf("got %q, start %d", comm, start)
			}
		}
		if u := unitOf(string(text)); (u.Kind == "") != (u.Name == "") || !strings.Contains(string(text), u.Path) {
			t.Errorf("got %+v", u)
		}
		args := strings.Split(string(text), "\x00")
		if !same(text, args) || same(append(text, 'x'), args) {
			t.Errorf("%q is not the same as %q, or x more is", text, args)
		}
	})
}
