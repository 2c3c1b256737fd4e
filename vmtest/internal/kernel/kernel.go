// Package kernel finds, fetches and keeps the kernels that test VMs boot:
// Debian's stock cloud kernels, by their series (6.12).
//
// Kernels come through apt from the Debian mirror that the machine is
// configured with, into a private state that leaves the system's own apt alone
// and needs no root. apt checks the archive's signature; the packages' SHA-256
// comes from the signed index.
package kernel

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"time"

	"golang.org/x/sys/unix"
)

// Newest asks for the newest series that Debian offers.
const Newest = "newest"

// MaxAge is how long a kernel serves before a newer package of its series is
// looked for.
const MaxAge = 7 * 24 * time.Hour

// Modules are what the guests load, with what these depend on.
var Modules = []string{"inet_diag", "tcp_diag", "tun", "veth", "sch_netem"}

// Kernel is one bootable kernel on this machine.
type Kernel struct {
	Asked   string `json:"-"` // as the user named it
	Image   string `json:"-"` // absolute path of the vmlinuz
	Dir     string `json:"-"`
	Series  string // 6.12; empty for a kernel given by path
	Arch    string // as Debian and Go name it
	Release string // uname -r
	Package string
	Version string // of the package
	SHA256  string // of the vmlinuz
	Modules []string
	Fetched time.Time
}

// Name names k in output: as asked, and what it turned out to be.
func (k *Kernel) Name() string {
	if k.Series == "" || k.Series == k.Asked {
		return k.Asked
	}
	return k.Asked + "=" + k.Series
}

// ModulePaths lists the files of k's modules in the order of loading.
func (k *Kernel) ModulePaths() []string {
	var list []string
	for _, m := range k.Modules {
		list = append(list, filepath.Join(k.Dir, "modules", m))
	}
	return list
}

// Store is the cache of kernels for one architecture.
type Store struct {
	Dir    string // of the cache
	Arch   string
	Notice func(string) // told what the user should know; one line each

	now func() time.Time
}

// DefaultDir is where kernels are kept: under the user's cache folder, which
// XDG_CACHE_HOME moves.
func DefaultDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("cache folder: %w", err)
	}
	return filepath.Join(base, "tcptrace", "vmtest"), nil
}

// NewStore returns the store of arch in dir.
func NewStore(dir, arch string, notice func(string)) *Store {
	return &Store{Dir: dir, Arch: arch, Notice: notice, now: time.Now}
}

var seriesForm = regexp.MustCompile(`^\d+\.\d+$`)

// resolution remembers which series a name led to: "newest", or a series that
// has left the archive.
type resolution struct {
	Series  string
	Checked time.Time
}

// Get returns a kernel for each spec: a series, Newest, or a path to a vmlinuz.
// Kernels that are missing, or older than MaxAge, are fetched; with refresh all
// series are looked up. What is in the cache serves when the archive cannot be
// reached.
func (s *Store) Get(ctx context.Context, specs []string, refresh bool) ([]*Kernel, error) {
	kernels := make([]*Kernel, len(specs))
	var missing []string
	for i, spec := range specs {
		switch {
		case spec == Newest || seriesForm.MatchString(spec):
			k, checked, err := s.cached(spec)
			if err != nil && !errors.Is(err, os.ErrNotExist) {
				s.Notice(fmt.Sprintf("kernel %s: %v: fetching it again", spec, err))
			}
			if err == nil && !refresh && s.now().Sub(checked) < MaxAge {
				kernels[i] = k
			} else {
				missing = append(missing, spec)
			}
		default:
			k, err := s.file(spec)
			if err != nil {
				return nil, err
			}
			kernels[i] = k
		}
	}
	if len(missing) == 0 {
		return kernels, nil
	}
	unlock, err := s.lock()
	if err != nil {
		return nil, err
	}
	defer unlock()
	fetchErr := s.fetch(ctx, missing)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	for i, spec := range specs {
		if kernels[i] != nil {
			continue
		}
		k, _, err := s.cached(spec)
		switch {
		case err != nil && fetchErr != nil:
			return nil, fmt.Errorf("kernel %s: %w", spec, fetchErr)
		case err != nil:
			return nil, fmt.Errorf("kernel %s: %w", spec, err)
		}
		kernels[i] = k
	}
	if fetchErr != nil {
		s.Notice(fmt.Sprintf("kernels could not be refreshed, those in the cache serve: %v", fetchErr))
	}
	return kernels, nil
}

// file takes a kernel by path. Modules are beside it if it lies in a cache
// folder; else there are none, and the guest has what is built in.
func (s *Store) file(path string) (*Kernel, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("kernel %s: neither a series such as 6.12, nor %q, nor a file", path, Newest)
	}
	abs, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		abs = filepath.Join(abs, "vmlinuz")
	}
	k := &Kernel{Image: abs, Arch: s.Arch, Dir: filepath.Dir(abs)}
	if meta, err := readKernel(k.Dir); err == nil && meta.Image == abs {
		k = meta
	}
	k.Asked = path
	return k, nil
}

func (s *Store) kernelDir(series string) string {
	return filepath.Join(s.Dir, "kernels", s.Arch, series)
}

func (s *Store) resolutionPath(spec string) string {
	return filepath.Join(s.Dir, "kernels", s.Arch, "asked-"+spec+".json")
}

// cached returns what the cache holds for spec, and when that was last compared
// with the archive.
func (s *Store) cached(spec string) (*Kernel, time.Time, error) {
	var r resolution
	if err := readJSON(s.resolutionPath(spec), &r); err != nil {
		return nil, time.Time{}, err
	}
	k, err := readKernel(s.kernelDir(r.Series))
	if err != nil {
		return nil, time.Time{}, err
	}
	sum, err := fileSHA256(k.Image)
	if err != nil {
		return nil, time.Time{}, err
	}
	if sum != k.SHA256 {
		return nil, time.Time{}, fmt.Errorf("%s: SHA-256 differs from the one recorded", k.Image)
	}
	k.Asked = spec
	return k, r.Checked, nil
}

// lock keeps two fetches apart; the second then finds the work done.
func (s *Store) lock() (func(), error) {
	if err := os.MkdirAll(s.Dir, 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(filepath.Join(s.Dir, "lock"), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EINTR {
			f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
	}
}

func readKernel(dir string) (*Kernel, error) {
	k := new(Kernel)
	if err := readJSON(filepath.Join(dir, "kernel.json"), k); err != nil {
		return nil, err
	}
	k.Dir, k.Image = dir, filepath.Join(dir, "vmlinuz")
	return k, nil
}

func readJSON(path string, v any) error {
	b, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(b, v); err != nil {
		return fmt.Errorf("%s: %w", path, err)
	}
	return nil
}

// writeJSON replaces the file at once: a reader sees the old or the new.
func writeJSON(path string, v any) error {
	b, err := json.MarshalIndent(v, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(path+".new", append(b, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

func fileSHA256(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer f.Close()
	h := sha256.New()
	if _, err := io.Copy(h, f); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}
