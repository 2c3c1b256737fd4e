package events

// The methods below write parts of lines for the types of line that other
// packages own: one spelling of each field for all of them.

// AppendType appends the beginning of a line of the type name, up to its times.
func (e *Encoder) AppendType(dst []byte, name string, ts int64) []byte {
	dst = append(dst, `{"type":"`...)
	dst = append(dst, name...)
	return e.appendTimes(append(dst, '"'), ts)
}

// AppendIdentity appends the members that tell connections and their owners apart,
// each with its comma in front.
func (e *Encoder) AppendIdentity(dst []byte, c *Conn) []byte {
	return e.appendOwner(e.appendEndpoints(dst, c), c)
}

// AppendTime appends the wall time of ts as a string.
func (e *Encoder) AppendTime(dst []byte, ts int64) []byte { return e.appendTime(dst, ts) }

// AppendText appends s as a string that is safe on a terminal.
func (e *Encoder) AppendText(dst []byte, s string) []byte { return appendText(dst, s) }

// AppendNS appends a number, or null for a negative one, which is unknown.
func (e *Encoder) AppendNS(dst []byte, v int64) []byte { return appendNS(dst, v) }
