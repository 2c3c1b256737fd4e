//go:build linux

package tracer

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestPreflight(t *testing.T) {
	btf := write(t, "")
	absent := filepath.Join(t.TempDir(), "absent")
	for _, tt := range []struct {
		name          string
		missing       []string
		lockdown, btf string
		want, hint    string
	}{
		{"all there", nil, absent, btf, "", ""},
		{"lockdown none", nil, write(t, "[none] integrity confidentiality\n"), btf, "", ""},
		{"lockdown integrity", nil, write(t, "none [integrity] confidentiality\n"), btf, "", ""},
		{"lockdown confidentiality", nil, write(t, "none integrity [confidentiality]\n"), btf, "locked down", "integrity is no obstacle"},
		{"no BTF", nil, absent, absent, "no BTF", "CONFIG_DEBUG_INFO_BTF"},
		{"no privileges", []string{"CAP_BPF", "CAP_PERFMON"}, absent, btf, "missing CAP_BPF, CAP_PERFMON", "sudo"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			checkHinted(t, preflight(tt.missing, tt.lockdown, tt.btf), tt.want, tt.hint)
		})
	}
}

func TestExplainLoad(t *testing.T) {
	checkHinted(t, explainLoad(fmt.Errorf("map records: %w", ebpf.ErrNotSupported)), "map records", "needs Linux 5.8")
	checkHinted(t, explainLoad(fmt.Errorf("load program: %w", unix.EPERM)), "load program", "container")
	if err := errors.New("anything else"); explainLoad(err) != err {
		t.Error("an error that is not understood was changed")
	}
}

func checkHinted(t *testing.T, err error, want, hint string) {
	t.Helper()
	if want == "" {
		if err != nil {
			t.Errorf("got %v, want no error", err)
		}
		return
	}
	var hinted interface{ Hint() string }
	if err == nil || !strings.Contains(err.Error(), want) || !errors.As(err, &hinted) || !strings.Contains(hinted.Hint(), hint) {
		t.Errorf("got %v, want %q with the hint %q", err, want, hint)
	}
}
