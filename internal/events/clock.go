package events

import "time"

// Clock turns the kernel's monotonic time into wall time. The offset is taken
// once: the lines of one run keep their distances even where the wall clock is
// set meanwhile.
type Clock struct {
	OffsetNS int64 // CLOCK_REALTIME - CLOCK_MONOTONIC
}

// Time returns the wall time of ts, in UTC.
func (c Clock) Time(ts int64) time.Time {
	return time.Unix(0, ts+c.OffsetNS).UTC()
}
