package screen

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// tmux is a terminal of 80x24 with a shell in it, held by a tmux server of the
// test's own.
type tmux struct {
	t      *testing.T
	dir    string
	socket string
}

// flags is the state of the terminal that a program may leave changed.
const flags = "alternate=#{alternate_on} cursor=#{cursor_flag} insert=#{insert_flag} keypad=#{keypad_flag}#{keypad_cursor_flag}" +
	" mouse=#{mouse_any_flag} wrap=#{wrap_flag} origin=#{origin_flag} keys=#{pane_key_mode} region=#{scroll_region_upper}-#{scroll_region_lower}"

func startTmux(t *testing.T) *tmux {
	t.Helper()
	if _, err := exec.LookPath("tmux"); err != nil {
		t.Fatalf("this test needs tmux (Debian package tmux): %v", err)
	}
	dir, err := os.MkdirTemp("", "screen") // a socket's path must be short
	if err != nil {
		t.Fatal(err)
	}
	x := &tmux{t: t, dir: dir, socket: filepath.Join(dir, "tmux")}
	t.Cleanup(func() {
		x.run("kill-server")
		os.RemoveAll(dir)
	})
	shell := exec.Command("tmux", "-S", x.socket, "-f", "/dev/null", "new-session", "-d", "-x", "80", "-y", "24",
		"env", "PS1=$ ", "ENV=", "/bin/sh")
	shell.Env = append(os.Environ(), "TMUX=")
	shell.Dir = dir
	if out, err := shell.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	x.until("$")
	return x
}

// run executes a tmux command and returns what it prints.
func (x *tmux) run(args ...string) string {
	x.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	out, err := exec.CommandContext(ctx, "tmux", append([]string{"-S", x.socket}, args...)...).CombinedOutput()
	if err != nil {
		x.t.Errorf("tmux %q: %v: %s", args, err, out)
	}
	return string(out)
}

func (x *tmux) screen() string { return x.run("capture-pane", "-p") }

func (x *tmux) flags() string { return strings.TrimSpace(x.run("display-message", "-p", flags)) }

// wait waits for a condition of the terminal; what is asked for is asked again,
// as tmux does not tell.
func (x *tmux) wait(what string, ok func() bool) {
	x.t.Helper()
	deadline := time.Now().Add(30 * time.Second)
	for !ok() {
		if time.Now().After(deadline) {
			x.t.Fatalf("no %s; %s\n%s", what, x.flags(), x.screen())
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// until waits for a text on the terminal.
func (x *tmux) until(text string) {
	x.t.Helper()
	x.wait(strconv.Quote(text), func() bool { return strings.Contains(x.screen(), text) })
}

// untilFile waits for a file that the shell writes, and returns it.
func (x *tmux) untilFile(name string) string {
	x.t.Helper()
	var data []byte
	x.wait(name, func() bool {
		var err error
		data, err = os.ReadFile(filepath.Join(x.dir, name))
		return err == nil && strings.HasSuffix(string(data), "\n")
	})
	return string(data)
}

func (x *tmux) keys(keys ...string) { x.run(append([]string{"send-keys"}, keys...)...) }

// play starts the screen in the terminal and waits for it.
func (x *tmux) play(what, env string) (pid int) {
	x.t.Helper()
	bin, err := os.Executable()
	if err != nil {
		x.t.Fatal(err)
	}
	script := fmt.Sprintf("echo $$ > pid\n%s %s=%s exec %s\n", env, playEnv, what, bin)
	if err := os.WriteFile(filepath.Join(x.dir, "play"), []byte(script), 0o644); err != nil {
		x.t.Fatal(err)
	}
	x.run("send-keys", "-l", "stty -a > before; sh play; echo $? > status; stty -a > after; echo done > done")
	x.keys("Enter")
	pid, err = strconv.Atoi(strings.TrimSpace(x.untilFile("pid")))
	if err != nil {
		x.t.Fatal(err)
	}
	x.until("q quit")
	return pid
}

// ended waits for the end of the program and compares the terminal.
func (x *tmux) ended(flagsBefore, status, says string) {
	x.t.Helper()
	x.untilFile("done")
	if before, after := x.untilFile("before"), x.untilFile("after"); before != after {
		x.t.Errorf("stty before:\n%safter:\n%s", before, after)
	}
	if got := strings.TrimSpace(x.untilFile("status")); got != status {
		x.t.Errorf("exit status %s, want %s", got, status)
	}
	x.wait("prompt", func() bool { return strings.HasSuffix(strings.TrimRight(x.screen(), "\n "), "$") })
	if after := x.flags(); after != flagsBefore {
		x.t.Errorf("terminal before: %s\nafter:  %s", flagsBefore, after)
	}
	screen := x.screen()
	if !strings.Contains(screen, says) {
		x.t.Errorf("%q is not on the terminal:\n%s", says, screen)
	}
	// The main screen is as it was: the shell's line is there, nothing of
	// ours is.
	if !strings.Contains(screen, "sh play") || strings.Contains(screen, "q quit") {
		x.t.Errorf("the terminal's contents:\n%s", screen)
	}
	// And no answer of the terminal was left to the shell.
	x.run("send-keys", "-l", "echo all is ' 'well")
	x.keys("Enter")
	x.until("all is  well")
	if junk := regexp.MustCompile(`\$ [^e\n].*echo all`).FindString(x.screen()); junk != "" {
		x.t.Errorf("left in the input: %q", junk)
	}
}

func TestTerminalRestored(t *testing.T) {
	for _, tt := range []struct {
		name   string
		keys   string
		signal syscall.Signal
		status string
		says   string
	}{
		{"quit", "q", 0, "0", "ended well"},
		{"ctrl-c", "C-c", 0, "0", "ended well"},
		{"context", "C", 0, "0", "ended well"},
		{"SIGTERM", "", syscall.SIGTERM, "0", "ended well"},
		{"SIGINT", "", syscall.SIGINT, "0", "ended well"},
		{"SIGHUP", "", syscall.SIGHUP, "0", "ended well"},
		{"panic in Update", "U", 0, "1", "error: panic in the screen: runtime error: invalid memory address"},
		{"panic in View", "V", 0, "1", "error: panic in the screen: no such cell"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := startTmux(t)
			before := x.flags()
			pid := x.play("all", "")
			if during := x.flags(); during == before {
				t.Errorf("the screen changes nothing: %s", during)
			}
			if tt.keys != "" {
				x.keys(tt.keys)
			} else if err := syscall.Kill(pid, tt.signal); err != nil {
				t.Fatal(err)
			}
			x.ended(before, tt.status, tt.says)
		})
	}
}

func TestSuspend(t *testing.T) {
	x := startTmux(t)
	before := x.flags()
	x.play("all", "")
	x.keys("C-z")
	x.wait("shell", func() bool { return x.flags() == before && strings.Contains(x.screen(), "Stopped") })
	x.keys("fg", "Enter")
	x.until("q quit")
	x.until("nginx")
	x.keys("Down", "Enter")
	x.until("java[4321]  23 sockets")
	x.keys("q")
	x.wait("shell", func() bool { return x.flags() == before })
	x.until("ended well")
}

// TestTmux uses the screen as a reader does.
func TestTmux(t *testing.T) {
	x := startTmux(t)
	before := x.flags()
	x.play("many", "NO_COLOR=1")
	x.until("leaky")
	x.keys("Enter")
	x.until("leaky[4242]  10,000 sockets")
	x.keys("End")
	x.until("10,000 of 10,000")
	x.run("resize-window", "-x", "120", "-y", "40")
	x.until("WHY          5UNREAD")
	lines := strings.Split(strings.TrimRight(x.screen(), "\n"), "\n")
	if len(lines) != 40 || !strings.HasPrefix(lines[39], "q quit") {
		t.Errorf("%d lines at 120x40:\n%s", len(lines), x.screen())
	}
	x.until("10,000 of 10,000")
	x.run("resize-window", "-x", "40", "-y", "10")
	x.wait("10 lines", func() bool {
		lines := strings.Split(strings.TrimRight(x.screen(), "\n"), "\n")
		return len(lines) == 10 && strings.HasPrefix(lines[9], "q quit  ? help") && strings.Contains(lines[8], "10,000 of 10,000")
	})
	x.run("resize-window", "-x", "80", "-y", "24")
	x.until("1LOCAL                2REMOTE                    3AGE 4WHY")
	x.keys("/", "4", "0", "0", "0", "7")
	x.until("1-1 of 1")
	x.keys("Enter")
	x.until("filter: 40007")
	x.keys("Escape")
	x.until("worst first")
	x.keys("p")
	x.until("PAUSED")
	x.keys("?")
	x.until("KEYS")
	if out := x.run("capture-pane", "-p", "-e"); regexp.MustCompile(`\x1b\[(\d+;)*([349][0-7]|[34]8)[;m]`).MatchString(out) {
		t.Errorf("colours in spite of NO_COLOR: %q", out)
	}
	x.keys("q")
	x.ended(before, "0", "ended well")
}
