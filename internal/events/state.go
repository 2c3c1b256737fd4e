package events

import (
	"fmt"
	"strings"
)

// State is a TCP state under the kernel's number (include/net/tcp_states.h).
type State uint8

// The states of RFC 9293 section 3.3.2, and the kernel's own two.
const (
	StateUnknown  State = 0
	Established   State = 1
	SynSent       State = 2
	SynRecv       State = 3
	FinWait1      State = 4
	FinWait2      State = 5
	TimeWait      State = 6
	Close         State = 7
	CloseWait     State = 8
	LastAck       State = 9
	Listen        State = 10
	Closing       State = 11
	NewSynRecv    State = 12 // a request socket; shown as SYN_RECV
	BoundInactive State = 13 // bound, neither listening nor connected (6.8+, diag only)

	// NumStates is one more than the highest number.
	NumStates = 14
)

var stateNames = [NumStates]string{
	"UNKNOWN", "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1", "FIN_WAIT2", "TIME_WAIT",
	"CLOSE", "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING", "NEW_SYN_RECV", "BOUND_INACTIVE",
}

// String returns the kernel's name, such as CLOSE_WAIT.
func (s State) String() string {
	if int(s) < len(stateNames) {
		return stateNames[s]
	}
	return fmt.Sprintf("STATE_%d", uint8(s))
}

// StateSet is a set of states: bit s stands for State s, as in the kernel's
// TCPF_ constants.
type StateSet uint16

// Set returns the set of the given states.
func Set(states ...State) StateSet {
	var set StateSet
	for _, s := range states {
		set |= 1 << s
	}
	return set
}

// Has reports whether s is in the set.
func (set StateSet) Has(s State) bool { return set&(1<<s) != 0 }

// ss's groups of states (ss(8), "STATE-FILTER").
var (
	AllStates          = Set(Established, SynSent, SynRecv, FinWait1, FinWait2, TimeWait, Close, CloseWait, LastAck, Listen, Closing)
	ConnectedStates    = AllStates &^ Set(Listen, Close)
	SynchronizedStates = ConnectedStates &^ Set(SynSent)
)

// stateAliases holds the spellings that are not the kernel's name with the
// separators removed: ss, netstat and RFC 9293 among them.
var stateAliases = map[string]StateSet{
	"ESTAB":        Set(Established),
	"SYNRECEIVED":  Set(SynRecv),
	"SYNRCVD":      Set(SynRecv),
	"NEWSYNRECV":   Set(SynRecv),
	"CLOSED":       Set(Close),
	"UNCONN":       Set(Close),
	"LISTENING":    Set(Listen),
	"ALL":          AllStates,
	"CONNECTED":    ConnectedStates,
	"SYNCHRONIZED": SynchronizedStates,
	"SYNCHRONISED": SynchronizedStates,
}

func init() {
	for _, s := range AllStates.List() {
		stateAliases[foldState(s.String())] = Set(s)
	}
}

// List returns the states of the set in the kernel's order.
func (set StateSet) List() []State {
	var list []State
	for s := range State(NumStates) {
		if set.Has(s) {
			list = append(list, s)
		}
	}
	return list
}

func (set StateSet) String() string {
	names := make([]string, 0, NumStates)
	for _, s := range set.List() {
		names = append(names, s.String())
	}
	return strings.Join(names, ",")
}

func foldState(name string) string {
	return strings.ToUpper(strings.NewReplacer("_", "", "-", "", " ", "").Replace(name))
}

// StateNames lists what ParseStates accepts, for error texts.
const StateNames = "ESTABLISHED, SYN_SENT, SYN_RECV, FIN_WAIT1, FIN_WAIT2, TIME_WAIT, CLOSE, CLOSE_WAIT, " +
	"LAST_ACK, LISTEN, CLOSING (or as ss spells them), all, connected, synchronized"

// ParseStates reads a comma list of states in any spelling that users know
// (CLOSE_WAIT, close-wait, FIN-WAIT-1, ESTAB) and ss's groups, in any case.
func ParseStates(list string) (StateSet, error) {
	var set StateSet
	for name := range strings.SplitSeq(list, ",") {
		s, ok := stateAliases[foldState(strings.TrimSpace(name))]
		if !ok {
			return 0, fmt.Errorf("unknown state %q: want one of %s", name, StateNames)
		}
		set |= s
	}
	return set, nil
}
