package kernel

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

func TestParseTargets(t *testing.T) {
	out := "Ubuntu|Ubuntu|http://ubuntu.example/ubuntu/\n" +
		"Debian|Debian Backports|http://backports.example/debian/\n" +
		"Debian|Debian|http://first.example/debian/\n" +
		"Debian|Debian|http://second.example/debian/\n" +
		"Debian|Debian-Security|http://security.example/debian-security/\n\n"
	want := mirrors{main: "http://first.example/debian/", security: "http://security.example/debian-security/"}
	if got := parseTargets(out); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := parseTargets("Ubuntu|Ubuntu|http://ubuntu.example/ubuntu/\n"); got != (mirrors{}) {
		t.Errorf("no Debian: got %+v, want none", got)
	}
}

func TestParsePrintedURIs(t *testing.T) {
	out := `'http://docker.example/linux/debian/dists/bookworm/InRelease' a 0 
'http://a.example/debian/dists/bookworm/InRelease' b 0 
'http://a.example/debian/dists/bookworm-updates/InRelease' c 0 
'http://s.example/debian-security/dists/bookworm-security/InRelease' d 0 
'http://z.example/debian/dists/bookworm/main/binary-amd64/Packages.xz' e 0 
`
	want := mirrors{main: "http://a.example/debian/", security: "http://s.example/debian-security/"}
	if got := parsePrintedURIs(out); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	ubuntu := "'http://u.example/ubuntu/dists/noble-updates/InRelease' a 0 \n'http://u.example/ubuntu/dists/noble-security/InRelease' b 0 \n"
	if got := parsePrintedURIs(ubuntu); got != (mirrors{}) {
		t.Errorf("no Debian: got %+v, want none", got)
	}
}

func TestParseDebootstrap(t *testing.T) {
	for script, want := range map[string]string{
		"case $ARCH in\n\t*)\n\t  default_mirror http://d.example/debian\n\t  ;;\n":   "http://d.example/debian",
		"VERSION=1\nDEF_MIRROR=\"http://d.example/debian\"\nDEF_HTTPS_MIRROR=\"x\"\n": "http://d.example/debian",
		"DEF_MIRROR=\"http://u.example/ubuntu\"\n":                                    "",
		"DEF_MIRROR=\"$1\"\n": "",
	} {
		if got := parseDebootstrap(script); got != want {
			t.Errorf("%q: got %q, want %q", script, got, want)
		}
	}
}

func TestSecurityBeside(t *testing.T) {
	for main, want := range map[string]string{
		"http://a.example/debian":         "http://a.example/debian-security/",
		"http://a.example/mirror/debian/": "http://a.example/mirror/debian-security/",
	} {
		if got := securityBeside(main); got != want {
			t.Errorf("%s: got %q, want %q", main, got, want)
		}
	}
}

func TestSourcesList(t *testing.T) {
	m := mirrors{main: "http://a.example/debian/", security: "http://s.example/debian-security/"}
	got := sourcesList(m, "arm64", "KEYS", []string{"sid", "bullseye-security", "trixie-security"})
	want := "deb [arch=arm64 target=Packages signed-by=KEYS] http://a.example/debian/ sid main\n" +
		"deb [arch=arm64 target=Packages signed-by=KEYS check-valid-until=no] http://s.example/debian-security/ bullseye-security main\n" +
		"deb [arch=arm64 target=Packages signed-by=KEYS] http://s.example/debian-security/ trixie-security main\n"
	if got != want {
		t.Errorf("got:\n%swant:\n%s", got, want)
	}
}

func TestAPTConfig(t *testing.T) {
	dump := `Acquire::http::Proxy "http://proxy.example:3128";
Acquire::AllowInsecureRepositories "true";
APT::Update::Post-Invoke:: "rm -rf /";
APT::Sandbox::User "_apt";
`
	got := aptConfig(dump, "/cache", "amd64")
	for _, want := range []string{
		`Acquire::http::Proxy "http://proxy.example:3128";`,
		`Acquire::AllowInsecureRepositories "false";`,
		`Dir::State "/cache";`,
		`APT::Architectures { "amd64"; };`,
	} {
		if !strings.Contains(got, want+"\n") {
			t.Errorf("%s is missing in:\n%s", want, got)
		}
	}
	for _, bad := range []string{"Post-Invoke", "_apt", `Repositories "true"`} {
		if strings.Contains(got, bad) {
			t.Errorf("%s of the system's configuration was taken over", bad)
		}
	}
}

func TestParseURI(t *testing.T) {
	const sum = "SHA256:03e41f1c34c16583462f029e81944a85ebcdb78098c258dedfa1cfdd680a27f8"
	got, err := parseURI("'http://a.example/pool/l/x_1%2b2_amd64.deb' x_1+2_amd64.deb 13717736 " + sum + "\n")
	want := source{URI: "http://a.example/pool/l/x_1%2b2_amd64.deb", File: "x_1+2_amd64.deb", Hash: sum}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	for _, bad := range []string{
		"",
		"'http://a.example/x.deb' x.deb 12 MD5Sum:0123456789abcdef\n",
		"'http://a.example/x.deb' ../x.deb 12 " + sum + "\n",
	} {
		if got, err := parseURI(bad); err == nil {
			t.Errorf("%q: got %+v, want an error", bad, got)
		}
	}
}

// A mirror that breaks off in the middle, twice: the download goes on where it
// stopped, and is compared with its hash.
func TestAcquireResumes(t *testing.T) {
	needAPT(t)
	content := bytes.Repeat([]byte("0123456789abcdef"), 1<<15)
	var ranges []string
	var requests atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		ranges = append(ranges, r.Header.Get("Range"))
		n := requests.Add(1)
		// If-Range holds while the file is not newer than the part.
		w.Header().Set("Last-Modified", "Mon, 02 Jan 2006 15:04:05 GMT")
		r.Header.Del("If-Range")
		if n <= 2 {
			w = &breakingWriter{ResponseWriter: w, left: 100_000}
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(content))
	}))
	defer server.Close()
	a := testAPT(t)
	sum := fmt.Sprintf("SHA256:%x", sha256.Sum256(content))
	path, err := a.acquire(t.Context(), source{URI: server.URL + "/x.deb", File: "x.deb", Hash: sum})
	if err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(got, content) {
		t.Errorf("got %d bytes, %v; want the %d that were served", len(got), err, len(content))
	}
	if n := requests.Load(); n != 3 || len(ranges) != 3 || ranges[0] != "" || ranges[1] == "" || ranges[2] == "" || ranges[1] == ranges[2] {
		t.Errorf("ranges asked for: %q, want none and then two different ones", ranges)
	}
}

func TestAcquireRefusesWrongContent(t *testing.T) {
	needAPT(t)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "not what was signed")
	}))
	defer server.Close()
	sum := fmt.Sprintf("SHA256:%x", sha256.Sum256([]byte("what was signed")))
	path, err := testAPT(t).acquire(t.Context(), source{URI: server.URL + "/x.deb", File: "x.deb", Hash: sum})
	if err == nil || !strings.Contains(err.Error(), "Hash") {
		t.Errorf("got %q, %v; want a complaint about the hash", path, err)
	}
}

// needAPT fails on Debian and what descends from it, of which apt is a part; other
// systems have nothing to test.
func needAPT(t *testing.T) {
	t.Helper()
	_, err := exec.LookPath(aptHelper)
	if err == nil {
		return
	}
	if _, noDebian := os.Stat("/etc/debian_version"); noDebian == nil {
		t.Fatal(err)
	}
	t.Skipf("no Debian or Ubuntu: %v", err)
}

// testAPT has a configuration that reaches the test's own server and nothing of
// the machine.
func testAPT(t *testing.T) *apt {
	t.Helper()
	a := &apt{dir: t.TempDir(), arch: "amd64"}
	a.config = filepath.Join(a.dir, "apt.conf")
	if err := os.Mkdir(filepath.Join(a.dir, "download"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(a.config, []byte(aptConfig("", a.dir, a.arch)), 0o644); err != nil {
		t.Fatal(err)
	}
	return a
}

// breakingWriter drops the connection after a number of bytes.
type breakingWriter struct {
	http.ResponseWriter
	left int
}

func (w *breakingWriter) Write(b []byte) (int, error) {
	if len(b) < w.left {
		w.left -= len(b)
		return w.ResponseWriter.Write(b)
	}
	_, _ = w.ResponseWriter.Write(b[:w.left])
	w.ResponseWriter.(http.Flusher).Flush()
	panic(http.ErrAbortHandler)
}

var testOffers = map[string]map[string]offer{
	"bullseye-security": {"5.10": {Series: "5.10", Version: "5.10.262-1"}, "6.1": {Series: "6.1", Version: "6.1.192-1~deb11u1"}},
	"bookworm-security": {"6.1": {Series: "6.1", Version: "6.1.192-2"}},
	"trixie":            {"6.12": {Series: "6.12", Version: "6.12.107-1"}},
	"trixie-security":   {},
	"trixie-backports":  {"6.19": {Series: "6.19", Version: "6.19.14-1~bpo13+1"}, "7.2": {Series: "7.2", Version: "7.2.12-1~bpo13+1"}},
	"forky":             {"7.2": {Series: "7.2", Version: "7.2.12-1"}},
	"sid":               {"7.2": {Series: "7.2", Version: "7.2.13-1"}, "7.10": {Series: "7.10", Version: "7.10.1-1"}},
}

func TestChoose(t *testing.T) {
	broken := errors.New("mirror is down")
	for _, test := range []struct {
		name   string
		specs  []string
		broken string // suite that cannot be read
		want   map[string]string
		unread bool
		err    string
	}{
		{name: "matrix", specs: []string{"5.10", "6.1", "6.12", Newest}, want: map[string]string{
			"5.10": "5.10.262-1", "6.1": "6.1.192-2", "6.12": "6.12.107-1", Newest: "7.10.1-1",
		}},
		{name: "series that left", specs: []string{"6.18"}, want: map[string]string{"6.18": "6.19.14-1~bpo13+1"}},
		{name: "backports first", specs: []string{"7.2"}, want: map[string]string{"7.2": "7.2.12-1~bpo13+1"}},
		{name: "too new", specs: []string{"8.0"}, want: map[string]string{}, err: "no suite offers kernel 8.0"},
		{name: "mirror down", specs: []string{"6.18"}, broken: "trixie-backports", want: map[string]string{}, err: "mirror is down"},
		{name: "security down", specs: []string{"6.12"}, broken: "trixie-security", want: map[string]string{"6.12": "6.12.107-1"}, unread: true},
	} {
		t.Run(test.name, func(t *testing.T) {
			chosen, unread, err := choose(test.specs, func(suites []string) (map[string]offer, error) {
				all := make(map[string]offer)
				var err error
				for _, suite := range suites {
					if suite == test.broken {
						err = broken
						continue
					}
					for series, o := range testOffers[suite] {
						if old, ok := all[series]; !ok || compareVersions(o.Version, old.Version) > 0 {
							all[series] = o
						}
					}
				}
				return all, err
			})
			got := make(map[string]string)
			for spec, o := range chosen {
				got[spec] = o.Version
			}
			if fmt.Sprint(got) != fmt.Sprint(test.want) {
				t.Errorf("got %v, want %v", got, test.want)
			}
			if (unread != nil) != test.unread {
				t.Errorf("unread: got %v, want %v", unread, test.unread)
			}
			if test.err == "" && err != nil || test.err != "" && (err == nil || !strings.Contains(err.Error(), test.err)) {
				t.Errorf("error: got %v, want %q", err, test.err)
			}
		})
	}
}

func TestGetFromCache(t *testing.T) {
	dir := t.TempDir()
	var notices []string
	s := NewStore(dir, "amd64", func(n string) { notices = append(notices, n) })
	kernelDir := s.kernelDir("6.12")
	if err := os.MkdirAll(kernelDir, 0o755); err != nil {
		t.Fatal(err)
	}
	image := filepath.Join(kernelDir, "vmlinuz")
	if err := os.WriteFile(image, []byte("kernel"), 0o644); err != nil {
		t.Fatal(err)
	}
	sum := fmt.Sprintf("%x", sha256.Sum256([]byte("kernel")))
	if err := writeJSON(filepath.Join(kernelDir, "kernel.json"), Kernel{Series: "6.12", SHA256: sum, Modules: []string{"a.ko"}}); err != nil {
		t.Fatal(err)
	}
	for _, spec := range []string{"6.12", Newest} {
		if err := writeJSON(s.resolutionPath(spec), resolution{Series: "6.12", Checked: time.Now()}); err != nil {
			t.Fatal(err)
		}
	}
	// No apt on the path: whatever asks the archive fails.
	t.Setenv("PATH", t.TempDir())
	get := func(refresh bool) []*Kernel {
		t.Helper()
		notices = nil
		list, err := s.Get(t.Context(), []string{Newest, "6.12", image}, refresh)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	list := get(false)
	if got, want := list[0].Name(), "newest=6.12"; got != want || list[0].Image != image {
		t.Errorf("newest: got %s %s, want %s %s", got, list[0].Image, want, image)
	}
	if got := list[2]; got.Name() != image+"=6.12" || len(got.ModulePaths()) != 1 {
		t.Errorf("by path: got %s with %d modules, want the cached one", got.Name(), len(got.ModulePaths()))
	}
	if len(notices) != 0 {
		t.Errorf("fresh cache: got notices %q", notices)
	}
	for _, stale := range []func(){
		func() { get(true) },
		func() {
			s.now = func() time.Time { return time.Now().Add(MaxAge + time.Hour) }
			get(false)
		},
	} {
		stale()
		if len(notices) != 1 || !strings.Contains(notices[0], "those in the cache serve") {
			t.Errorf("without the archive: got notices %q, want one", notices)
		}
	}
	if err := os.WriteFile(image, []byte("damaged"), 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Get(context.Background(), []string{"6.12"}, false); err == nil {
		t.Error("damaged kernel without the archive: no error")
	}
	if _, err := s.Get(context.Background(), []string{"six"}, false); err == nil || !strings.Contains(err.Error(), "neither a series") {
		t.Errorf("no such kernel: got %v", err)
	}
}
