package main

import (
	"bytes"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/tcptrace/tcptrace/internal/account"
	"github.com/tcptrace/tcptrace/internal/events"
)

func TestParseOptions(t *testing.T) {
	opt, err := parseOptions(strings.Fields("-o json -4 -L 80 -L 443 -D 1-9 --port 7 --local 10.0.0.0/8 --local 192.0.2.1" +
		" --remote ::ffff:1.2.3.4 --pid 1,2 --pid 3 --comm nginx --comm systemd-resolved --uid root,5 --netns self,inode:7" +
		" --cgroup system.slice --state CLOSE-WAIT,time_wait --state estab --min-age 1m30s --duration 2.5 --count 3" +
		" --hooks poll --buffer 64K --ready-file r -- cmd -4 -- x"))
	if err != nil {
		t.Fatal(err)
	}
	f := &opt.filter
	if !opt.json || f.Family != 4 || f.LocalPorts.String() != "80,443" || f.RemotePorts.String() != "1-9" || f.Ports.String() != "7" {
		t.Errorf("got %+v", opt)
	}
	if !f.Local.Has(netip.MustParseAddr("192.0.2.1")) || !f.Local.Has(netip.MustParseAddr("10.9.9.9")) || !f.Remote.Has(netip.MustParseAddr("1.2.3.4")) {
		t.Errorf("addresses %v %v", f.Local, f.Remote)
	}
	if !slices.Equal(f.PIDs, []uint32{1, 2, 3}) || !slices.Equal(f.Comms, []string{"nginx", "systemd-resolve"}) || !slices.Equal(f.UIDs, []uint32{0, 5}) {
		t.Errorf("owners %v %v %v", f.PIDs, f.Comms, f.UIDs)
	}
	if len(opt.netns) != 2 || f.Cgroup != "/system.slice" || f.States != events.Set(events.CloseWait, events.TimeWait, events.Established) {
		t.Errorf("got %v %q %v", opt.netns, f.Cgroup, f.States)
	}
	if f.MinAge != 90*time.Second || opt.duration != 2500*time.Millisecond || opt.count != 3 || opt.hooks != "poll" || opt.buffer != 64<<10 || opt.readyFile != "r" {
		t.Errorf("got %+v", opt)
	}
	if !slices.Equal(opt.command, []string{"cmd", "-4", "--", "x"}) {
		t.Errorf("command %q", opt.command)
	}
	want := map[string]string{
		"ipv4": "true", "local-port": "80,443", "remote-port": "1-9", "port": "7", "local": "10.0.0.0/8,192.0.2.1",
		"remote": "::ffff:1.2.3.4", "pid": "1,2,3", "comm": "nginx,systemd-resolved", "uid": "root,5", "netns": "self,inode:7",
		"cgroup": "system.slice", "state": "CLOSE-WAIT,time_wait,estab", "min-age": "1m30s",
	}
	if !maps.Equal(opt.filters, want) {
		t.Errorf("filters %v, want %v", opt.filters, want)
	}
}

func TestParseOptionsDefaults(t *testing.T) {
	opt, err := parseOptions(nil)
	if err != nil {
		t.Fatal(err)
	}
	if opt.json || opt.color != "auto" || opt.hooks != "auto" || opt.netns != nil || opt.command != nil || len(opt.filters) != 0 {
		t.Errorf("got %+v", opt)
	}
	if !opt.filter.Transition(&events.Transition{Conn: events.Conn{UID: -1}}) {
		t.Error("not everything passes")
	}
}

func TestParseWatch(t *testing.T) {
	opt, err := parseOptions(strings.Fields("--watch CLOSE-WAIT --watch time_wait,fin-wait-2 --interval 0.5 --min-age 1m --pid 1 --count 3"))
	if err != nil {
		t.Fatal(err)
	}
	if opt.watch != events.Set(events.CloseWait, events.TimeWait, events.FinWait2) || opt.interval != 500*time.Millisecond || opt.once || opt.count != 3 {
		t.Errorf("got %+v", opt)
	}
	want := map[string]string{"watch": "CLOSE-WAIT,time_wait,fin-wait-2", "min-age": "1m", "pid": "1"}
	if !maps.Equal(opt.filters, want) {
		t.Errorf("filters %v, want %v", opt.filters, want)
	}
	if opt, err = parseOptions(strings.Fields("--watch close_wait --once -o json")); err != nil || !opt.once || !opt.json {
		t.Errorf("got %+v, %v", opt, err)
	}
}

func TestParseSummary(t *testing.T) {
	for args, want := range map[string]account.By{
		"--summary": account.ByProcess, "--summary --by process": account.ByProcess, "--summary --by remote": account.ByRemote,
		"--summary --by local-port": account.ByLocalPort, "--by cgroup --summary": account.ByCgroup, "--summary --by netns": account.ByNetNS,
		"--summary -w f": account.ByProcess,
		"--summary --fail-on close_wait:5s -- true": account.ByProcess,
	} {
		opt, err := parseOptions(strings.Fields(args))
		if err != nil || !opt.summary || opt.by != want || opt.quiet || opt.leaksOnly {
			t.Errorf("%s: got %+v, %v", args, opt, err)
		}
	}
}

// Wrong usage names the flag, the value and what is accepted, and ends with 2.
func TestUsageErrors(t *testing.T) {
	for _, tc := range []struct {
		args string
		want []string
	}{
		{"--state nosuch", []string{"--state", `"nosuch"`, "CLOSE_WAIT", "synchronized"}},
		{"--state close_wait,", []string{"--state", "CLOSE_WAIT"}},
		{"-L 80-70", []string{"--local-port", `"80-70"`, "8000-8100"}},
		{"-D http", []string{"--remote-port", `"http"`, "1 to 65535"}},
		{"--port 0", []string{"--port", `"0"`, "1 to 65535"}},
		{"--local 10.0.0/8", []string{"--local", `"10.0.0/8"`, "CIDR"}},
		{"--remote example.com", []string{"--remote", `"example.com"`, "CIDR"}},
		{"--pid x", []string{"--pid", `"x"`, "1234"}},
		{"--comm=", []string{"--comm", "name of a process"}},
		{"--uid no-such-user", []string{"--uid", `"no-such-user"`, "user ids"}},
		{"--netns inode:x", []string{"--netns", `"inode:x"`, "inode:N"}},
		{"--netns all --netns self", []string{"--netns", "self", "all"}},
		{"--netns self --netns all", []string{"--netns", "self", "all"}},
		{"--cgroup=", []string{"--cgroup", "/system.slice"}},
		{"--cgroup a --cgroup b", []string{"--cgroup", `"b"`}},
		{"--min-age -1s", []string{"--min-age", `"-1s"`, "500ms"}},
		{"--duration soon", []string{"--duration", `"soon"`, "30s"}},
		{"--count 0", []string{"--count", `"0"`, "from 1"}},
		{"--count -1", []string{"--count", `"-1"`}},
		{"--hooks best", []string{"--hooks", `"best"`, "auto, fentry, kprobe or poll"}},
		{"--buffer 1K", []string{"--buffer", `"1K"`, "4K to 1G"}},
		{"--buffer 2G", []string{"--buffer", `"2G"`, "4K to 1G"}},
		{"-o xml", []string{"--output", `"xml"`, "text or json"}},
		{"--color sometimes", []string{"--color", `"sometimes"`, "auto, always or never"}},
		{"--ready-file=", []string{"--ready-file", "path"}},
		{"--wide=perhaps", []string{"--wide", `"perhaps"`}},
		{"-4 -6", []string{"-4", "-6"}},
		{"-4 --local ::1", []string{"-4", "--local", "::1", "IPv4"}},
		{"-6 --remote 10.0.0.1", []string{"-6", "--remote", "10.0.0.1", "IPv6"}},
		{"-o json -T", []string{"-T", "-o json"}},
		{"-o json -t", []string{"-t", "-o json"}},
		{"-o json --wide", []string{"--wide", "-o json"}},
		{"-o json --color always", []string{"--color always", "-o json"}},
		{"--features --pid 1", []string{"--features", "--pid"}},
		{"--features -- true", []string{"--features", "command"}},
		{"--nosuch", []string{"--nosuch"}},
		{"-x", []string{"-x"}},
		{"-L", []string{"-L"}},
		{"curl example.com", []string{`"curl"`, "--"}},
		{"curl -- example.com", []string{`"curl"`, "--"}},
		{"--", []string{"--", "command"}},
		{"--watch nosuch", []string{"--watch", `"nosuch"`, "CLOSE_WAIT"}},
		{"--watch=", []string{"--watch", "CLOSE_WAIT"}},
		{"--once", []string{"--once", "--watch"}},
		{"--interval 1s", []string{"--interval", "--watch"}},
		{"--watch close_wait --interval never", []string{"--interval", `"never"`, "30s"}},
		{"--watch close_wait --interval 1ms", []string{"--interval", `"1ms"`, "50ms"}},
		{"--watch close_wait --state listen", []string{"--watch", "--state"}},
		{"--watch close_wait -T", []string{"--watch", "--time"}},
		{"--watch close_wait --wide", []string{"--watch", "--wide"}},
		{"--watch close_wait --once --interval 1s", []string{"--once", "--interval"}},
		{"--watch close_wait --once --count 2", []string{"--once", "--count"}},
		{"--watch close_wait --once -- true", []string{"--once", "command"}},
		{"--features --watch close_wait", []string{"--features", "--watch"}},
		{"--fail-on close_wait", []string{"close_wait", "--fail-on", "want STATE:AGE"}},
		{"--fail-on close_wait:", []string{"--fail-on", "want STATE:AGE"}},
		{"--fail-on :5s", []string{"--fail-on", "unknown state"}},
		{"--fail-on close_wait:5s:", []string{"--fail-on", "the age \"5s:\""}},
		{"--by remote", []string{"--by", "--summary"}},
		{"--summary --by colour", []string{"--by", `"colour"`, "process, remote, local-port, cgroup or netns"}},
		{"--summary --watch close_wait", []string{"--summary", "--watch"}},
		{"--summary --once", []string{"--once", "--watch"}},
		{"--summary --state close_wait", []string{"--summary", "--state", "every state"}},
		{"--summary --min-age 1s", []string{"--summary", "--min-age"}},
		{"--summary --count 5", []string{"--summary", "--count", "--duration"}},
		{"--summary -T", []string{"--summary", "--time"}},
		{"--summary -t", []string{"--summary", "--timestamp"}},
		{"--summary --wide", []string{"--summary", "--wide"}},
		{"--summary -w -", []string{"--summary", "-w -", "stdout"}},
		{"--summary --features", []string{"--features", "--summary"}},
	} {
		opt, err := parseOptions(strings.Fields(tc.args))
		if err == nil || opt != nil {
			t.Errorf("%s: accepted", tc.args)
			continue
		}
		var out bytes.Buffer
		if status := report(&out, err); status != exitUsage {
			t.Errorf("%s: status %d, want %d", tc.args, status, exitUsage)
		}
		text := out.String()
		for _, want := range tc.want {
			if !strings.Contains(text, want) {
				t.Errorf("%s: %q is not in: %s", tc.args, want, text)
			}
		}
		if !strings.HasPrefix(text, "tcptrace: error: ") || !strings.Contains(text, "\ntcptrace: hint: ") || strings.Count(text, "\n") != 2 {
			t.Errorf("%s: not an error and a hint: %s", tc.args, text)
		}
	}
	if _, err := parseOptions([]string{"--state", "nosuch", "--help"}); errors.Is(err, pflag.ErrHelp) {
		t.Error("--help hides an error before it")
	}
}

func TestParseDuration(t *testing.T) {
	for text, want := range map[string]time.Duration{
		"5": 5 * time.Second, "0.5": 500 * time.Millisecond, "500ms": 500 * time.Millisecond, "1h30m": 90 * time.Minute, "1ns": 1,
	} {
		if got, err := parseDuration(text); err != nil || got != want {
			t.Errorf("%q: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "0", "-1", "0s", "x", "NaN", "Inf", "1e300", "5 s", "1d"} {
		if got, err := parseDuration(text); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestParseSize(t *testing.T) {
	for text, want := range map[string]int{
		"4096": 4096, "4K": 4096, "8M": 8 << 20, "8MiB": 8 << 20, "8mb": 8 << 20, "1G": 1 << 30, "1073741824": 1 << 30,
	} {
		if got, err := parseSize(text); err != nil || got != want {
			t.Errorf("%q: got %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "K", "0", "4095", "3K", "2G", "1073741825", "-8M", "8T", "8 M", "1.5M", "99999999999G"} {
		if got, err := parseSize(text); err == nil {
			t.Errorf("%q: got %d", text, got)
		}
	}
}

func FuzzParseOptions(f *testing.F) {
	f.Add("-o json -4 -L 80")
	f.Add("--netns self,all -- x")
	f.Add("--buffer 8M --duration 5")
	f.Fuzz(func(t *testing.T, line string) {
		opt, err := parseOptions(strings.Split(line, " "))
		if (opt == nil) == (err == nil) {
			t.Fatalf("%q: %v, %v", line, opt, err)
		}
	})
}

func TestReport(t *testing.T) {
	var out bytes.Buffer
	if status := report(&out, nil); status != 0 || out.Len() != 0 {
		t.Errorf("status %d, %s", status, &out)
	}
	if status := report(&out, &statusError{status: 42}); status != 42 || out.Len() != 0 {
		t.Errorf("status %d, %s", status, &out)
	}
	if status := report(&out, errors.New("open \x1b[2J\nx \"\\x1b\": no")); status != 1 || out.String() != "tcptrace: error: open \\x1b[2J\\x0ax \"\\x1b\": no\n" {
		t.Errorf("status %d, %q", status, &out)
	}
}
