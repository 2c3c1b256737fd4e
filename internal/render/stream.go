package render

import (
	"io"

	"github.com/tcptrace/tcptrace/internal/events"
)

// Stream writes the lines of a trace. After an error of the writer, which Flush
// returns, nothing more is written. Arguments are not kept after a call.
type Stream interface {
	Header(h *events.Header)
	Transition(t *events.Transition)
	// Closed follows the last Transition of its connection.
	Closed(c *events.Closed)
	Lost(l *events.Lost)
	Resync(r *events.Resync)
	Limit(l *events.Limit)
	// Flush hands everything to the writer.
	Flush() error
}

// flushAt is the size at which output goes to the writer before a batch ends.
const flushAt = 64 << 10

// output collects lines for a writer.
type output struct {
	w   io.Writer
	buf []byte
	err error
}

func (o *output) Flush() error {
	if len(o.buf) > 0 && o.err == nil {
		_, o.err = o.w.Write(o.buf)
	}
	o.buf = o.buf[:0]
	return o.err
}

// added is called after each line.
func (o *output) added() {
	if len(o.buf) >= flushAt {
		o.Flush() // the error is kept
	}
}

// JSON writes the JSON lines of schema 1.
type JSON struct {
	output
	enc *events.Encoder
}

// NewJSON returns a Stream of JSON lines with wall times by clock.
func NewJSON(w io.Writer, clock events.Clock) *JSON {
	return &JSON{output: output{w: w}, enc: events.NewEncoder(clock)}
}

// Header writes the header line.
func (j *JSON) Header(h *events.Header) {
	j.buf = j.enc.AppendHeader(j.buf, h)
	j.added()
}

// Transition writes a transition line.
func (j *JSON) Transition(t *events.Transition) {
	j.buf = j.enc.AppendTransition(j.buf, t)
	j.added()
}

// Closed writes a closed line.
func (j *JSON) Closed(c *events.Closed) {
	j.buf = j.enc.AppendClosed(j.buf, c)
	j.added()
}

// Lost writes a lost line.
func (j *JSON) Lost(l *events.Lost) {
	j.buf = j.enc.AppendLost(j.buf, l)
	j.added()
}

// Resync writes a resync line.
func (j *JSON) Resync(r *events.Resync) {
	j.buf = j.enc.AppendResync(j.buf, r)
	j.added()
}

// Limit writes a limit line.
func (j *JSON) Limit(l *events.Limit) {
	j.buf = j.enc.AppendLimit(j.buf, l)
	j.added()
}
