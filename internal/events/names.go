package events

// The words of schema 1, by value. An empty word stands for null.
var (
	ownerNames       = [...]string{"", "scan", "listen", "close", "accept", "connect"}
	sideNames        = [...]string{"unknown", "local", "remote", "both", "none"}
	howNames         = [...]string{"", "fin", "rst", "timeout", "refused", "abort"}
	resetNames       = [...]string{"", "linger0", "unread", "peer", "other"}
	timeWaitEndNames = [...]string{"", "expired", "reused", "reset", "killed", "unknown"}
	openedNames      = [...]string{"unknown", "active", "passive"}
)

func word[T ~uint8](names []string, v T) string {
	if int(v) < len(names) {
		return names[v]
	}
	return ""
}

// String returns schema 1's word: scan, listen, close, accept or connect; empty
// when unknown.
func (o OwnerSource) String() string { return word(ownerNames[:], o) }

// String returns schema 1's word: unknown, local, remote, both or none.
func (s Side) String() string { return word(sideNames[:], s) }

// String returns schema 1's word: fin, rst, timeout, refused or abort; empty when
// unknown.
func (h How) String() string { return word(howNames[:], h) }

// String returns schema 1's word: linger0, unread, peer or other; empty without a
// reset.
func (r ResetKind) String() string { return word(resetNames[:], r) }

// String returns schema 1's word: expired, reused, reset, killed or unknown; empty
// without a TIME_WAIT.
func (e TimeWaitEnd) String() string { return word(timeWaitEndNames[:], e) }

// String returns schema 1's word: unknown, active or passive.
func (o Opened) String() string { return word(openedNames[:], o) }
