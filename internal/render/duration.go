package render

import (
	"strconv"
	"time"
)

// appendDuration appends d, not negative, as people read it, in at most 7 cells:
// 812ns, 23.4us, 600.1ms, 5.003s, 12m04s, 3h05m, 12d03h. All digits are true: the
// rest is cut, not rounded, so that a lower bound stays one.
func appendDuration(dst []byte, d time.Duration) []byte {
	switch {
	case d < time.Microsecond:
		dst = strconv.AppendInt(dst, int64(d), 10)
		return append(dst, "ns"...)
	case d < time.Millisecond:
		return append(appendTenths(dst, d, time.Microsecond, 1), "us"...)
	case d < time.Second:
		return append(appendTenths(dst, d, time.Millisecond, 1), "ms"...)
	case d < 10*time.Second:
		return append(appendTenths(dst, d, time.Second, 3), 's')
	case d < 100*time.Second: // TIME_WAIT is 60 s and some slack, which is worth seeing
		return append(appendTenths(dst, d, time.Second, 2), 's')
	case d < time.Hour:
		return appendPair(dst, d, time.Minute, 'm', time.Second, 's')
	case d < 24*time.Hour:
		return appendPair(dst, d, time.Hour, 'h', time.Minute, 'm')
	default:
		return appendPair(dst, d, 24*time.Hour, 'd', time.Hour, 'h')
	}
}

// appendBound appends a lower bound, in at most 8 cells where it is less than
// 100 days.
func appendBound(dst []byte, d time.Duration) []byte {
	dst = append(dst, ">="...)
	switch {
	case d >= time.Microsecond && d < time.Millisecond:
		d = d.Truncate(time.Microsecond)
		return append(strconv.AppendInt(dst, d.Microseconds(), 10), "us"...)
	case d >= time.Millisecond && d < time.Second:
		return append(strconv.AppendInt(dst, d.Milliseconds(), 10), "ms"...)
	case d >= time.Second && d < 10*time.Second:
		return append(appendTenths(dst, d, time.Second, 2), 's')
	case d >= 10*time.Second && d < 100*time.Second:
		return append(appendTenths(dst, d, time.Second, 1), 's')
	}
	return appendDuration(dst, d)
}

// appendTenths appends d in units with the given number of decimals.
func appendTenths(dst []byte, d, unit time.Duration, decimals int) []byte {
	dst = strconv.AppendInt(dst, int64(d/unit), 10)
	dst = append(dst, '.')
	rest := d % unit
	for range decimals {
		rest *= 10
		dst = append(dst, byte('0'+rest/unit))
		rest %= unit
	}
	return dst
}

// appendPair appends d in two units, the smaller with two digits.
func appendPair(dst []byte, d, big time.Duration, bigName byte, small time.Duration, smallName byte) []byte {
	dst = strconv.AppendInt(dst, int64(d/big), 10)
	dst = append(dst, bigName)
	n := d % big / small
	return append(dst, byte('0'+n/10), byte('0'+n%10), smallName)
}
