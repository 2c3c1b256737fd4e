package render

import (
	"net/netip"

	"github.com/tcptrace/tcptrace/internal/account"
	"github.com/tcptrace/tcptrace/internal/events"
)

// Summary writes the account of a trace. After an error of the writer, which
// Summary returns, nothing more is written.
type Summary interface {
	Header(h *events.Header)
	// Lost, Resync and Limit are called when it happens.
	Lost(l *events.Lost)
	Resync(r *events.Resync)
	Limit(l *events.Limit)
	// Summary writes the account and hands it to the writer. It is called once, at
	// the end.
	Summary(s *account.Summary) error
	Flush() error
}

// The words for what the schema has null for.
const unknownWord = "unknown"

func howWord(h events.How) string {
	if h == events.HowUnknown {
		return unknownWord
	}
	return h.String()
}

// sides are in the order in which they are shown.
var sides = []events.Side{events.SideLocal, events.SideRemote, events.SideBoth, events.SideNone, events.SideUnknown}

var hows = []events.How{
	events.HowFIN, events.HowRST, events.HowTimeout, events.HowRefused, events.HowAbort, events.HowUnknown,
}

var resetKinds = []events.ResetKind{events.ResetLinger0, events.ResetUnread, events.ResetOther, events.ResetPeer}

var timeWaitEnds = []events.TimeWaitEnd{
	events.TimeWaitExpired, events.TimeWaitReused, events.TimeWaitReset, events.TimeWaitKilled, events.TimeWaitUnknown,
}

// remoteText writes an address, with its port unless that is 0; empty: unknown.
func remoteText(a netip.AddrPort) string {
	switch {
	case !a.Addr().IsValid():
		return ""
	case a.Port() == 0:
		return a.Addr().Unmap().String()
	}
	return netip.AddrPortFrom(a.Addr().Unmap(), a.Port()).String()
}
