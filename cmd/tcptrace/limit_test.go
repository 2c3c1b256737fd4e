package main

import (
	"strings"
	"testing"
)

func TestMaxConnections(t *testing.T) {
	for _, tc := range []struct {
		args, recorded string
		want           int // 0: the default
	}{
		{"", "", 0},
		{"--max-connections 1000", "", 1000},
		{"--max-connections 1000", "2000", 1000},
		{"", "2000", 2000},
	} {
		opt, err := parseOptions(strings.Fields(tc.args))
		if err != nil {
			t.Fatal(err)
		}
		if err := opt.limitConns(tc.recorded); err != nil {
			t.Fatal(err)
		}
		if tc.want == 0 {
			if opt.maxConns < leastConns || opt.maxConns > mostConns {
				t.Errorf("the default is %d", opt.maxConns)
			}
		} else if opt.maxConns != tc.want {
			t.Errorf("%+v: got %d", tc, opt.maxConns)
		}
	}
	for _, bad := range []string{"x", "-1", "0", "99999999999"} {
		opt := &options{}
		if err := opt.limitConns(bad); err == nil || !strings.Contains(err.Error(), bad) {
			t.Errorf("recorded %q: %v", bad, err)
		}
		if _, err := parseOptions([]string{"--max-connections", bad}); err == nil || !strings.Contains(err.Error(), "1 to") {
			t.Errorf("--max-connections %s: %v", bad, err)
		}
	}
}

func TestDefaultMaxConns(t *testing.T) {
	for _, tc := range []struct {
		memory uint64
		want   int
	}{
		{0, unknownConns},
		{64 << 20, leastConns},
		{1 << 30, 1 << 18},
		{16 << 30, 1 << 22},
		{1 << 40, mostConns},
	} {
		if got := defaultMaxConns(tc.memory, connBytes); got != tc.want {
			t.Errorf("%d bytes of memory: got %d, want %d", tc.memory, got, tc.want)
		}
	}
}
