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

// lines writes those JSON lines of schema 1 that every mode has.
type lines struct {
	output
	enc *events.Encoder
}

func newLines(w io.Writer, clock events.Clock) lines {
	return lines{output: output{w: w}, enc: events.NewEncoder(clock)}
}

// Header writes the header line.
func (l *lines) Header(h *events.Header) {
	l.buf = l.enc.AppendHeader(l.buf, h)
	l.added()
}

// Lost writes a lost line.
func (l *lines) Lost(lost *events.Lost) {
	l.buf = l.enc.AppendLost(l.buf, lost)
	l.added()
}

// Resync writes a resync line.
func (l *lines) Resync(r *events.Resync) {
	l.buf = l.enc.AppendResync(l.buf, r)
	l.added()
}

// Limit writes a limit line.
func (l *lines) Limit(limit *events.Limit) {
	l.buf = l.enc.AppendLimit(l.buf, limit)
	l.added()
}

// JSON writes the JSON lines of schema 1.
type JSON struct{ lines }

// NewJSON returns a Stream of JSON lines with wall times by clock.
func NewJSON(w io.Writer, clock events.Clock) *JSON { return &JSON{newLines(w, clock)} }

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
