package render

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// Duration writes a length of time (ns) in at most seven cells below 100 days:
// 23.4us, 600.1ms, 5.003s, 12m04s, 3h05m. A negative one is unknown: "-".
func Duration(ns int64) string {
	if ns < 0 {
		return "-"
	}
	return string(appendDuration(make([]byte, 0, 8), time.Duration(ns)))
}

// AtLeast writes a length of time (ns) that is a lower bound unless it is exact:
// >=12m04s, in at most eight cells below 100 days.
func AtLeast(ns int64, exact bool) string {
	if ns < 0 || exact {
		return Duration(ns)
	}
	return string(appendBound(make([]byte, 0, 10), time.Duration(ns)))
}

// Width returns the number of terminal cells of s, which Escape made.
func Width(s string) int { return width(s) }

// Cut returns s, which Escape made, in at most n cells; a + stands for what was
// left out.
func Cut(s string, n int) string { return fit(s, n) }

// Pad returns s, which Escape made, in exactly n cells, cut or filled up with
// spaces: behind it, or before it with right.
func Pad(s string, n int, right bool) string {
	s = fit(s, n)
	fill := n - width(s)
	if fill <= 0 {
		return s
	}
	if right {
		return strings.Repeat(" ", fill) + s
	}
	return s + strings.Repeat(" ", fill)
}

// Count writes a number in at most four characters (five from 10^15): 999, 1.2k,
// 12k, 123k, 1.2M. It cuts off, it does not round up. A negative number is
// unknown: "-".
func Count(n int64) string {
	if n < 0 {
		return "-"
	}
	if n < 1000 {
		return strconv.FormatInt(n, 10)
	}
	unit := int64(1000)
	letters := "kMGTPE"
	for n/unit >= 1000 && len(letters) > 1 {
		unit *= 1000
		letters = letters[1:]
	}
	if whole := n / unit; whole >= 10 {
		return strconv.FormatInt(whole, 10) + letters[:1]
	}
	tenths := n / (unit / 10)
	return strconv.FormatInt(tenths/10, 10) + "." + strconv.FormatInt(tenths%10, 10) + letters[:1]
}

// Thousands writes a number in full, its digits in groups: 1,234,567.
func Thousands(n int64) string {
	digits := strconv.FormatInt(n, 10)
	sign := ""
	if n < 0 {
		sign, digits = "-", digits[1:]
	}
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	return sign + digits
}

// Rate writes a signed change per unit of time: +7, +7.5, +1.2k, -3, 0.
func Rate(perUnit float64) string {
	if math.IsNaN(perUnit) || math.IsInf(perUnit, 0) {
		return "-"
	}
	sign := "+"
	if perUnit < 0 {
		sign, perUnit = "-", -perUnit
	}
	tenths := int64(math.Round(perUnit * 10))
	switch {
	case tenths == 0:
		return "0"
	case tenths < 100 && tenths%10 != 0:
		return sign + strconv.FormatInt(tenths/10, 10) + "." + strconv.FormatInt(tenths%10, 10)
	}
	return sign + Count(int64(math.Round(perUnit)))
}
