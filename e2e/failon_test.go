package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcptrace/tcptrace/internal/testnet"
)

// The command under --fail-on is this test binary (exitCommand), with these in its
// environment.
const (
	envLeaks  = envExit + "_LEAKS"  // the innermost process leaks so many sockets
	envHold   = envExit + "_HOLD"   // for so long
	envTruth  = envExit + "_TRUTH"  // and writes a file of this name about them
	envDaemon = envExit + "_DAEMON" // in a process that outlives the command
)

const leakerComm = "leaker"

// leakTruth is what the leaking process says of itself.
type leakTruth struct {
	PID             int
	Locals, Remotes []string
	FDs             []int
}

// commandLeaks leaks as the environment says.
func commandLeaks() error {
	n, err := strconv.Atoi(os.Getenv(envLeaks))
	if err != nil {
		return err
	}
	hold, err := time.ParseDuration(os.Getenv(envHold))
	if err != nil {
		return err
	}
	truth := os.Getenv(envTruth)
	if os.Getenv(envDaemon) != "" {
		// The daemon leaks; the command ends when it has for long enough.
		daemon := exec.Command("/proc/self/exe")
		daemon.Env = append(os.Environ(), envDaemon+"=", envHold+"=1m")
		daemon.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := daemon.Start(); err != nil {
			return err
		}
		if err := waitFile(truth, nil); err != nil {
			return err
		}
		time.Sleep(hold)
		return nil
	}
	if err := os.WriteFile("/proc/self/comm", []byte(leakerComm), 0); err != nil {
		return err
	}
	runtime.LockOSThread() // until the process ends: the thread is in the namespace
	a, resp := &actor{}, &response{}
	req := &request{Op: "leak", N: n, NetNS: os.Getenv(envExit + "_NETNS"), Addrs: []string{"127.0.0.1:0"}}
	if err := errors.Join(a.prepare(req), a.leak(req, resp)); err != nil {
		return err
	}
	text, err := json.Marshal(leakTruth{PID: os.Getpid(), Locals: resp.Locals, Remotes: resp.Remotes, FDs: resp.FDs})
	if err != nil {
		return err
	}
	if err := errors.Join(os.WriteFile(truth+".tmp", text, 0o600), os.Rename(truth+".tmp", truth)); err != nil {
		return err
	}
	time.Sleep(hold)
	return nil
}

// leakLine is a line of type leak.
type leakLine struct {
	watchSocket
	Type    string `json:"type"`
	PID     *int   `json:"pid"`
	LimitNS int64  `json:"limit_ns"`
	Left    bool   `json:"left"`
}

// TestFailOn: a command that leaks for too long fails, whatever its own end; the
// list names the sockets and the process that leaked.
func TestFailOn(t *testing.T) {
	const limit = 300 * time.Millisecond
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name, exit string
		limit      time.Duration
		env        []string
		want       int
		leaks      bool
		once       bool // in the first tier is enough
	}{
		{"leak", "0", limit, nil, 3, true, false},
		{"no leak", "7", time.Hour, nil, 7, false, true},
		{"a grandchild leaks", "5", limit, []string{envExit + "_DEPTH=2"}, 3, true, false},
		{"killed", "signal9", limit, nil, 3, true, false},
		{"killed without a leak", "signal9", time.Hour, nil, 128 + 9, false, true},
		{"daemon", "4", limit, []string{envDaemon + "=1"}, 3, true, false},
	} {
		for i, tier := range watchTiers() {
			if tc.once && i > 0 {
				continue
			}
			t.Run(tc.name+" "+tier, func(t *testing.T) {
				t.Parallel()
				ns := testnet.NewNS(t, "e2e-fail-on")
				truth := filepath.Join(t.TempDir(), "truth")
				env := append([]string{envExit + "=" + tc.exit, envExit + "_NETNS=" + ns.Path(), envLeaks + "=" + strconv.Itoa(prime),
					envTruth + "=" + truth, envHold + "=" + (2 * limit).String()}, tc.env...)
				tl := startTool(t, env, "--fail-on", "close_wait:"+tc.limit.String(), "-o", "json", "--netns", ns.Name(), "--hooks", tier, "--", self)
				out, err := io.ReadAll(tl.stdout)
				if err != nil {
					t.Fatal(err)
				}
				tl.wantStatus(tc.want)
				did := readTruth(t, truth)
				if tc.env != nil && strings.HasPrefix(tc.env[0], envDaemon) {
					if err := unix.Kill(did.PID, unix.SIGKILL); err != nil {
						t.Errorf("the daemon is gone: %v", err)
					}
				}
				list := leakLines(t, out)
				says := fmt.Sprintf("tcptrace: %d sockets stayed too long in CLOSE_WAIT ", prime)
				if strings.HasPrefix(tl.stderr.String(), says) != tc.leaks {
					t.Errorf("stderr: %s", &tl.stderr)
				}
				if !tc.leaks {
					if len(list) != 0 || tl.stderr.Len() != 0 {
						t.Errorf("%d leaks; stderr: %s", len(list), &tl.stderr)
					}
					return
				}
				checkFailed(t, list, did, ns, tc.limit)
			})
		}
	}
}

func readTruth(t *testing.T, path string) leakTruth {
	t.Helper()
	var did leakTruth
	text, err := os.ReadFile(path)
	if err == nil {
		err = json.Unmarshal(text, &did)
	}
	if err != nil {
		t.Fatalf("workload: %v", err)
	}
	return did
}

func leakLines(t *testing.T, out []byte) []*leakLine {
	t.Helper()
	var list []*leakLine
	for line := range bytes.Lines(out) {
		l := &leakLine{}
		if err := json.Unmarshal(line, l); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		if l.Type == "leak" {
			list = append(list, l)
		}
	}
	return list
}

// checkFailed demands that the leaks are those of the truth, each once.
func checkFailed(t *testing.T, list []*leakLine, did leakTruth, ns *testnet.NS, limit time.Duration) {
	t.Helper()
	bad := &problems{t: t, what: "leaks"}
	defer bad.end()
	want := map[string]int{}
	for i := range did.Locals {
		want[did.Locals[i]+" "+did.Remotes[i]] = did.FDs[i]
	}
	if len(want) != prime {
		t.Fatalf("workload: %d leaks", len(want))
	}
	for _, l := range list {
		key := sockName(l.LAddr, l.LPort) + " " + sockName(l.RAddr, l.RPort)
		fd, ok := want[key]
		if !ok {
			bad.addf("%s is not expected, or twice", key)
			continue
		}
		delete(want, key)
		if l.NetNS != ns.Inode() || l.State != "CLOSE_WAIT" || l.Reason == nil || *l.Reason != "drained" {
			bad.addf("%s: %s because %s in namespace %d", key, l.State, orNull(l.Reason), l.NetNS)
		}
		if l.AgeNS == nil || *l.AgeNS < int64(limit) || !l.AgeExact || l.LimitNS != int64(limit) {
			bad.addf("%s: %s ns (exact: %v) of %d", key, orNull(l.AgeNS), l.AgeExact, l.LimitNS)
		}
		if len(l.Holders) != 1 || *l.Holders[0].PID != did.PID || *l.Holders[0].Comm != leakerComm || len(l.Holders[0].FD) != 1 || l.Holders[0].FD[0] != fd {
			bad.addf("%s: held by %+v, want %d/%s by %d", key, l.Holders, did.PID, leakerComm, fd)
		}
	}
	for key := range want {
		bad.addf("%s is missing", key)
	}
}

func sockName(addr string, port uint16) string {
	ip, err := netip.ParseAddr(addr)
	if err != nil {
		return addr
	}
	return netip.AddrPortFrom(ip, port).String()
}
