package render

import (
	"math"
	"testing"
)

func TestUnknownDuration(t *testing.T) {
	if got := Duration(-1); got != "-" {
		t.Errorf("Duration(-1) = %q", got)
	}
	if got := AtLeast(-1, false); got != "-" {
		t.Errorf("AtLeast(-1) = %q", got)
	}
	if got := Duration(724e9); got != "12m04s" {
		t.Errorf("Duration = %q", got)
	}
	if got := AtLeast(724e9, false); got != ">=12m04s" {
		t.Errorf("AtLeast = %q", got)
	}
	if got := AtLeast(724e9, true); got != "12m04s" {
		t.Errorf("exact AtLeast = %q", got)
	}
}

func TestCount(t *testing.T) {
	for _, tt := range []struct {
		in   int64
		want string
	}{
		{-1, "-"}, {0, "0"}, {999, "999"}, {1000, "1.0k"}, {1299, "1.2k"}, {9999, "9.9k"},
		{10000, "10k"}, {999999, "999k"}, {1 << 20, "1.0M"}, {1e9, "1.0G"}, {math.MaxInt64, "9.2E"},
	} {
		if got := Count(tt.in); got != tt.want {
			t.Errorf("Count(%d) = %q, want %q", tt.in, got, tt.want)
		}
	}
	for in, want := range map[int64]string{0: "0", 999: "999", 1000: "1,000", 1234567: "1,234,567", -1000: "-1,000"} {
		if got := Thousands(in); got != want {
			t.Errorf("Thousands(%d) = %q, want %q", in, got, want)
		}
	}
}

func TestRate(t *testing.T) {
	for in, want := range map[float64]string{
		0: "0", 0.04: "0", 7: "+7", 7.25: "+7.3", -3: "-3", 420: "+420", 1234: "+1.2k", 12.6: "+13", math.Inf(1): "-",
	} {
		if got := Rate(in); got != want {
			t.Errorf("Rate(%v) = %q, want %q", in, got, want)
		}
	}
}

func TestPad(t *testing.T) {
	for _, tt := range []struct {
		in    string
		n     int
		right bool
		want  string
	}{
		{"abc", 5, false, "abc  "},
		{"abc", 5, true, "  abc"},
		{"abc", 3, true, "abc"},
		{"abcd", 3, false, "ab+"},
		{"日本語", 5, false, "日本+"},
		{"日本語", 4, false, "日+ "},
		{"日本語", 4, true, " 日+"},
		{"abc", 0, false, ""},
		{"abc", 1, false, "+"},
	} {
		got := Pad(tt.in, tt.n, tt.right)
		if got != tt.want || Width(got) != tt.n {
			t.Errorf("Pad(%q, %d, %v) = %q of width %d, want %q", tt.in, tt.n, tt.right, got, Width(got), tt.want)
		}
	}
}

func TestEscapeJoiners(t *testing.T) {
	// What joins its neighbour has no width of its own.
	for in, want := range map[string]string{
		"e\u0301":              `e\u0301`,
		"\U0001f1e9\U0001f1ea": `\U0001f1e9\U0001f1ea`,
		"\U0001f44b\U0001f3fd": "\U0001f44b" + `\U0001f3fd`,
		"\u1100\u1161":         `\u1100\u1161`,
		"한":                    "한",
	} {
		if got := Escape(in); got != want {
			t.Errorf("Escape(%q) = %q, want %q", in, got, want)
		}
	}
}
