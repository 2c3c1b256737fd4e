package events

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json"
	"github.com/go-json-experiment/json/jsontext"
)

// Line is one decoded JSON line: exactly one of the pointers is set.
type Line struct {
	Time       time.Time // wall time of the line
	TS         int64     // its monotonic time, ns
	Header     *Header
	Transition *Transition
	Closed     *Closed
	Lost       *Lost
	Resync     *Resync
	Limit      *Limit
}

// Clock returns the clock that the line was written with.
func (l *Line) Clock() Clock { return Clock{OffsetNS: l.Time.UnixNano() - l.TS} }

// ErrUnknownType says that a line is of a type that this package does not read:
// schema 1 may gain types, and a reader passes over those.
var ErrUnknownType = errors.New("unknown type of line")

// ErrNewerSchema says that a header announces a schema after Schema.
var ErrNewerSchema = errors.New("the schema is newer than this program")

// wireHead is what each line has.
type wireHead struct {
	Type string  `json:"type"`
	Time *string `json:"time"`
	TS   *int64  `json:"ts_ns"`
}

type wireHeader struct {
	Schema  int               `json:"schema"`
	Version string            `json:"version"`
	Kernel  string            `json:"kernel"`
	Hooks   string            `json:"hooks"`
	Filters map[string]string `json:"filters"`
}

type wireConn struct {
	Conn   string  `json:"conn"`
	Cookie *string `json:"cookie"`
	NetNS  *uint32 `json:"netns"`
	Family *uint8  `json:"family"`
	LAddr  *string `json:"laddr"`
	LPort  *uint16 `json:"lport"`
	RAddr  *string `json:"raddr"`
	RPort  *uint16 `json:"rport"`
	PID    *uint32 `json:"pid"`
	Comm   *string `json:"comm"`
	UID    *uint32 `json:"uid"`
	Owner  *string `json:"owner"`
	Cgroup *string `json:"cgroup"`
	MPTCP  bool    `json:"mptcp"`
	Exact  bool    `json:"exact"`
	Error  *string `json:"error"`
}

type wireTransition struct {
	wireConn
	Old      string `json:"old"`
	New      string `json:"new"`
	InOld    *int64 `json:"in_old_ns"`
	InOldMin *int64 `json:"in_old_min_ns"`
}

type wireProcess struct {
	PID  uint32 `json:"pid"`
	Comm string `json:"comm"`
}

type wireClosed struct {
	wireConn
	Opened   string       `json:"opened"`
	Closer   string       `json:"closer"`
	How      *string      `json:"how"`
	Reset    *string      `json:"reset"`
	ClosedBy *wireProcess `json:"closed_by"`
	States   wireStates   `json:"states"`
	TWEnd    *string      `json:"time_wait_end"`
	Overflow bool         `json:"time_wait_overflow"`
	TotalNS  *int64       `json:"total_ns"`
}

type wireLost struct {
	Count uint64  `json:"count"`
	Total uint64  `json:"total"`
	Since *string `json:"since"`
	Cause string  `json:"cause"`
}

type wireResync struct {
	Corrected uint64 `json:"corrected"`
	Removed   uint64 `json:"removed"`
	Added     uint64 `json:"added"`
}

type wireLimit struct {
	Max       uint64 `json:"max"`
	Count     uint64 `json:"count"`
	Total     uint64 `json:"total"`
	Untracked uint64 `json:"untracked"`
}

// wireStates is the states object; its order is the order in which the states
// were visited.
type wireStates []StateTime

// UnmarshalJSONFrom reads the object member by member.
func (w *wireStates) UnmarshalJSONFrom(dec *jsontext.Decoder) error {
	if kind := dec.PeekKind(); kind != '{' {
		return errors.New("states is not an object")
	}
	if _, err := dec.ReadToken(); err != nil {
		return err
	}
	for dec.PeekKind() != '}' {
		name, err := dec.ReadToken()
		if err != nil {
			return err
		}
		s, err := stateByName(name.String())
		if err != nil {
			return err
		}
		var ns *int64
		if err := json.UnmarshalDecode(dec, &ns); err != nil {
			return err
		}
		*w = append(*w, StateTime{State: s, NS: orUnknown(ns)})
	}
	_, err := dec.ReadToken()
	return err
}

// DecodeLine reads one line of schema 1, with or without its newline. It returns
// an error that wraps ErrUnknownType for a well-formed line of another type.
func DecodeLine(line []byte) (Line, error) {
	line = bytes.TrimSuffix(line, []byte("\n"))
	var head wireHead
	if err := json.Unmarshal(line, &head); err != nil {
		return Line{}, fmt.Errorf("decode line: %w", err)
	}
	if head.Type == "" {
		return Line{}, errors.New("decode line: it has no type")
	}
	l, err := decodeBody(line, head)
	if err != nil {
		return Line{}, fmt.Errorf("decode %s: %w", strings.ToValidUTF8(head.Type, "\uFFFD"), err)
	}
	return l, nil
}

func decodeBody(line []byte, head wireHead) (Line, error) {
	switch head.Type {
	case "header", "transition", "closed", "lost", "resync", "limit":
	default:
		return Line{}, ErrUnknownType
	}
	if head.Time == nil || head.TS == nil {
		return Line{}, errors.New("time or ts_ns is missing")
	}
	at, err := parseTime(*head.Time)
	if err != nil {
		return Line{}, err
	}
	l := Line{Time: at, TS: *head.TS}
	switch head.Type {
	case "header":
		l.Header, err = decodeHeader(line, l.TS)
	case "transition":
		l.Transition, err = decodeTransition(line, l.TS)
	case "closed":
		l.Closed, err = decodeClosed(line, l.TS)
	case "lost":
		l.Lost, err = decodeLost(line, l.Clock(), l.TS)
	case "resync":
		var w wireResync
		err = json.Unmarshal(line, &w)
		l.Resync = &Resync{TS: l.TS, Corrected: w.Corrected, Removed: w.Removed, Added: w.Added}
	case "limit":
		var w wireLimit
		err = json.Unmarshal(line, &w)
		l.Limit = &Limit{TS: l.TS, Max: w.Max, Count: w.Count, Total: w.Total, Untracked: w.Untracked}
	}
	if err != nil {
		return Line{}, err
	}
	return l, nil
}

func decodeHeader(line []byte, ts int64) (*Header, error) {
	var w wireHeader
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, err
	}
	if w.Schema > Schema {
		return nil, fmt.Errorf("%w: %d, want at most %d", ErrNewerSchema, w.Schema, Schema)
	}
	if w.Schema < 1 {
		return nil, fmt.Errorf("schema %d: want 1", w.Schema)
	}
	return &Header{Schema: w.Schema, Version: w.Version, Kernel: w.Kernel, Hooks: w.Hooks, TS: ts, Filters: w.Filters}, nil
}

func decodeTransition(line []byte, ts int64) (*Transition, error) {
	var w wireTransition
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, err
	}
	t := &Transition{TS: ts, InOld: orUnknown(w.InOld), InOldMin: orUnknown(w.InOldMin), Exact: w.Exact}
	var err error
	if t.Err, err = w.conn(&t.Conn); err != nil {
		return nil, err
	}
	if t.Old, err = stateByName(w.Old); err != nil {
		return nil, fmt.Errorf("old: %w", err)
	}
	if t.New, err = stateByName(w.New); err != nil {
		return nil, fmt.Errorf("new: %w", err)
	}
	return t, nil
}

func decodeClosed(line []byte, ts int64) (*Closed, error) {
	var w wireClosed
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, err
	}
	c := &Closed{TS: ts, States: w.States, Exact: w.Exact, TimeWaitOverflow: w.Overflow, TotalNS: orUnknown(w.TotalNS)}
	var err error
	if c.Err, err = w.conn(&c.Conn); err != nil {
		return nil, err
	}
	if w.ClosedBy != nil && w.ClosedBy.PID != 0 {
		c.ClosedBy = Process{PID: w.ClosedBy.PID, Comm: w.ClosedBy.Comm}
	}
	if c.Opened, err = lookup[Opened]("opened", openedNames[:], w.Opened); err != nil {
		return nil, err
	}
	if c.Closer, err = lookup[Side]("closer", sideNames[:], w.Closer); err != nil {
		return nil, err
	}
	if c.How, err = lookup[How]("how", howNames[:], orEmpty(w.How)); err != nil {
		return nil, err
	}
	if c.Reset, err = lookup[ResetKind]("reset", resetNames[:], orEmpty(w.Reset)); err != nil {
		return nil, err
	}
	if c.TimeWaitEnd, err = lookup[TimeWaitEnd]("time_wait_end", timeWaitEndNames[:], orEmpty(w.TWEnd)); err != nil {
		return nil, err
	}
	return c, nil
}

func decodeLost(line []byte, clock Clock, ts int64) (*Lost, error) {
	var w wireLost
	if err := json.Unmarshal(line, &w); err != nil {
		return nil, err
	}
	l := &Lost{TS: ts, Count: w.Count, Total: w.Total, Since: Unknown}
	if w.Cause == LostUnseen.String() {
		l.Cause = LostUnseen
	}
	if w.Since != nil {
		since, err := parseTime(*w.Since)
		if err != nil {
			return nil, err
		}
		l.Since = max(since.UnixNano()-clock.OffsetNS, Unknown)
	}
	return l, nil
}

// conn fills c and returns the line's errno.
func (w *wireConn) conn(c *Conn) (uint16, error) {
	var err error
	if c.ID, err = strconv.ParseUint(w.Conn, 10, 64); err != nil {
		return 0, fmt.Errorf("conn %q is not a number", w.Conn)
	}
	if w.Cookie != nil {
		if c.Cookie, err = strconv.ParseUint(*w.Cookie, 16, 64); err != nil {
			return 0, fmt.Errorf("cookie %q is not hexadecimal", *w.Cookie)
		}
	}
	c.NetNS = orZero(w.NetNS)
	c.Family = orZero(w.Family)
	if c.Local, err = parseEndpoint(w.LAddr, w.LPort); err != nil {
		return 0, fmt.Errorf("laddr: %w", err)
	}
	if c.Remote, err = parseEndpoint(w.RAddr, w.RPort); err != nil {
		return 0, fmt.Errorf("raddr: %w", err)
	}
	if pid := orZero(w.PID); pid != 0 {
		c.Owner = Process{PID: pid, Comm: orEmpty(w.Comm)}
	}
	c.UID = Unknown
	if w.UID != nil {
		c.UID = int64(*w.UID)
	}
	if c.OwnerSrc, err = lookup[OwnerSource]("owner", ownerNames[:], orEmpty(w.Owner)); err != nil {
		return 0, err
	}
	c.Cgroup = orEmpty(w.Cgroup)
	c.MPTCP = w.MPTCP
	if w.Error == nil {
		return 0, nil
	}
	errno, ok := parseErrno(*w.Error)
	if !ok {
		return 0, fmt.Errorf("unknown error %q", *w.Error)
	}
	return errno, nil
}

func parseEndpoint(addr *string, port *uint16) (netip.AddrPort, error) {
	var a netip.Addr
	if addr != nil {
		var err error
		if a, err = netip.ParseAddr(*addr); err != nil {
			return netip.AddrPort{}, fmt.Errorf("%q is no address", *addr)
		}
	}
	return netip.AddrPortFrom(a.Unmap(), orZero(port)), nil
}

// parseTime reads a time that a count of ns from 1970 can hold in an int64.
func parseTime(text string) (time.Time, error) {
	t, err := time.Parse(time.RFC3339Nano, text)
	if err != nil {
		return time.Time{}, fmt.Errorf("time %q is not as RFC 3339 has it", text)
	}
	if sec := t.Unix(); sec <= math.MinInt64/int64(time.Second) || sec >= math.MaxInt64/int64(time.Second) {
		return time.Time{}, fmt.Errorf("time %q is out of range", text)
	}
	return t.UTC(), nil
}

func stateByName(name string) (State, error) {
	for i, known := range stateNames {
		if known == name {
			return State(i), nil
		}
	}
	return 0, fmt.Errorf("unknown state %q", name)
}

func lookup[T ~uint8](field string, names []string, name string) (T, error) {
	for i, known := range names {
		if known == name {
			return T(i), nil
		}
	}
	return 0, fmt.Errorf("unknown %s %q", field, name)
}

func orUnknown(v *int64) int64 {
	if v == nil || *v < 0 {
		return Unknown
	}
	return *v
}

func orZero[T uint8 | uint16 | uint32](v *T) T {
	if v == nil {
		return 0
	}
	return *v
}

func orEmpty(v *string) string {
	if v == nil {
		return ""
	}
	return *v
}
