package render

import (
	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

// Watch writes one answer after the other about the sockets in the watched states.
// After an error of the writer, which Snapshot returns, nothing more is written.
type Watch interface {
	Header(h *events.Header)
	// Snapshot writes the answer of one moment, whole, and hands it to the
	// writer.
	Snapshot(s *watch.Snapshot) error
}
