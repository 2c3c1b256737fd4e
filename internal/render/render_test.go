package render

import (
	"testing"
	"time"
	"unicode"
)

func TestEscape(t *testing.T) {
	for in, want := range map[string]string{
		"nginx":               "nginx",
		"":                    "",
		"a b":                 "a b",
		"\x1b[31mred":         `\x1b[31mred`,
		"a\nb\tc\r\x00\x7f":   `a\x0ab\x09c\x0d\x00\x7f`,
		"\u009b2J":            `\u009b2J`,
		"\u202etxt":           `\u202etxt`,
		"\U000e0041":          `\U000e0041`,
		"\xff\xfe":            `\xff\xfe`,
		"\xe6\x97":            `\xe6\x97`,
		`a\x1b`:               `a\\x1b`,
		"é日":                  "é日",
		"\uFFFD":              "\uFFFD",
		"no\u00a0break\u200b": `no\u00a0break\u200b`,
	} {
		if got := Escape(in); got != want {
			t.Errorf("%q: got %s, want %s", in, got, want)
		}
	}
}

func FuzzEscape(f *testing.F) {
	f.Add("a\x1b\xff", 3)
	f.Add("日本語", 2)
	f.Fuzz(func(t *testing.T, s string, n int) {
		got := Escape(s)
		for _, r := range got {
			if !unicode.IsPrint(r) {
				t.Fatalf("%q: %U comes through", s, r)
			}
		}
		if n > 0 && n < 100 && width(fit(got, n)) > n {
			t.Fatalf("%q does not fit %d cells: %q", s, n, fit(got, n))
		}
	})
}

func TestFit(t *testing.T) {
	for _, tc := range []struct {
		in   string
		n    int
		want string
	}{
		{"nginx", 5, "nginx"},
		{"postgres", 5, "post+"},
		{"日本語", 6, "日本語"},
		{"日本語", 5, "日本+"},
		{"日本語", 4, "日+"},
	} {
		if got := fit(tc.in, tc.n); got != tc.want {
			t.Errorf("%s in %d: got %s, want %s", tc.in, tc.n, got, tc.want)
		}
	}
}

func TestDuration(t *testing.T) {
	for _, tc := range []struct {
		d           time.Duration
		want, bound string
	}{
		{0, "0ns", ">=0ns"},
		{999, "999ns", ">=999ns"},
		{1000, "1.0us", ">=1us"},
		{23_456, "23.4us", ">=23us"},
		{999_999, "999.9us", ">=999us"},
		{time.Millisecond, "1.0ms", ">=1ms"},
		{600_123_456, "600.1ms", ">=600ms"},
		{999_999_999, "999.9ms", ">=999ms"},
		{time.Second, "1.000s", ">=1.00s"},
		{5_003_999_999, "5.003s", ">=5.00s"},
		{59_999 * time.Millisecond, "59.99s", ">=59.9s"},
		{60*time.Second + 1200*time.Millisecond, "61.20s", ">=61.2s"},
		{100*time.Second - 1, "99.99s", ">=99.9s"},
		{100 * time.Second, "1m40s", ">=1m40s"},
		{12*time.Minute + 4*time.Second, "12m04s", ">=12m04s"},
		{time.Hour - 1, "59m59s", ">=59m59s"},
		{3*time.Hour + 5*time.Minute, "3h05m", ">=3h05m"},
		{24 * time.Hour, "1d00h", ">=1d00h"},
		{12*24*time.Hour + 3*time.Hour, "12d03h", ">=12d03h"},
		{99*24*time.Hour + 23*time.Hour, "99d23h", ">=99d23h"},
	} {
		if got := string(appendDuration(nil, tc.d)); got != tc.want || len(got) > 7 {
			t.Errorf("%d: got %s, want %s", tc.d, got, tc.want)
		}
		if got := string(appendBound(nil, tc.d)); got != tc.bound || len(got) > 8 {
			t.Errorf("%d: got %s, want %s", tc.d, got, tc.bound)
		}
	}
}
