package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"math/bits"
	"os/exec"
	"reflect"
	"strconv"
	"sync"
	"testing"
	"unicode/utf8"
)

// Process is a process in the output, such as closed_by.
type Process struct {
	PID  *int    `json:"pid"`
	Comm *string `json:"comm"`
}

// Line is one JSON line, schema 1.
type Line struct {
	Type  string  `json:"type"`
	Time  string  `json:"time"`
	TS    *int64  `json:"ts_ns"`
	Conn  string  `json:"conn"`
	NetNS *uint32 `json:"netns"`

	Cookie *string `json:"cookie"`
	Family *int    `json:"family"`
	LAddr  *string `json:"laddr"`
	LPort  *uint16 `json:"lport"`
	RAddr  *string `json:"raddr"`
	RPort  *uint16 `json:"rport"`
	PID    *int    `json:"pid"`
	Comm   *string `json:"comm"`
	UID    *int    `json:"uid"`
	Owner  *string `json:"owner"`
	Error  *string `json:"error"`

	Old        string `json:"old"`
	New        string `json:"new"`
	InOldNS    *int64 `json:"in_old_ns"`
	InOldMinNS *int64 `json:"in_old_min_ns"`

	Opened           string            `json:"opened"`
	Closer           string            `json:"closer"`
	How              string            `json:"how"`
	Reset            *string           `json:"reset"`
	ClosedBy         *Process          `json:"closed_by"`
	States           map[string]*int64 `json:"states"`
	Exact            *bool             `json:"exact"`
	TimeWaitEnd      *string           `json:"time_wait_end"`
	TimeWaitOverflow bool              `json:"time_wait_overflow"`
	TotalNS          *int64            `json:"total_ns"`

	Count   int    `json:"count"` // of lost and resync
	Cause   string `json:"cause"` // of lost
	Schema  int    `json:"schema"`
	Version string `json:"version"`
	Kernel  string `json:"kernel"`
	Hooks   string `json:"hooks"`

	// Where the line's text is: in text, or else in file.
	text []byte
	file io.ReaderAt
	off  int64
	size int
}

// raw is the line's text. It is not kept: there may be very many lines.
func (l *Line) raw() string {
	if l.file == nil {
		return string(l.text)
	}
	buf := make([]byte, l.size)
	if _, err := l.file.ReadAt(buf, l.off); err != nil {
		return err.Error()
	}
	return string(buf)
}

// fieldsOf are the fields that every line of a type has, known or null.
var fieldsOf = map[string][]string{
	"header": {"schema", "version", "kernel", "hooks", "time", "filters"},
	"transition": {"time", "ts_ns", "conn", "cookie", "netns", "family", "laddr", "lport", "raddr", "rport", "old", "new",
		"in_old_ns", "in_old_min_ns", "pid", "comm", "uid", "owner", "cgroup"},
	"closed": {"conn", "cookie", "netns", "family", "laddr", "lport", "raddr", "rport", "pid", "comm", "uid", "owner", "cgroup",
		"opened", "closer", "how", "reset", "closed_by", "states", "exact", "time_wait_end", "total_ns"},
}

// fieldList are the fields that are read, or that lines of some type must have.
var fieldList = []struct {
	name string
	read func(p *lineParser, l *Line) error // nil: it need only be there
}{
	{"type", func(p *lineParser, l *Line) error { return p.string(&l.Type) }},
	{"time", func(p *lineParser, l *Line) error { return p.once(&l.Time) }},
	{"ts_ns", func(p *lineParser, l *Line) error { return p.int64(&l.TS) }},
	{"conn", func(p *lineParser, l *Line) error { return p.string(&l.Conn) }},
	{"netns", func(p *lineParser, l *Line) error { return p.uint32(&l.NetNS) }},
	{"cookie", func(p *lineParser, l *Line) error { return p.stringOrNull(&l.Cookie) }},
	{"family", func(p *lineParser, l *Line) error { return p.int32(&l.Family) }},
	{"laddr", func(p *lineParser, l *Line) error { return p.stringOrNull(&l.LAddr) }},
	{"lport", func(p *lineParser, l *Line) error { return p.uint16(&l.LPort) }},
	{"raddr", func(p *lineParser, l *Line) error { return p.stringOrNull(&l.RAddr) }},
	{"rport", func(p *lineParser, l *Line) error { return p.uint16(&l.RPort) }},
	{"pid", func(p *lineParser, l *Line) error { return p.int32(&l.PID) }},
	{"comm", func(p *lineParser, l *Line) error { return p.stringOrNull(&l.Comm) }},
	{"uid", func(p *lineParser, l *Line) error { return p.uid(&l.UID) }},
	{"owner", func(p *lineParser, l *Line) error { return p.stringOrNull(&l.Owner) }},
	{"error", func(p *lineParser, l *Line) error { return p.stringOrNull(&l.Error) }},
	{"old", func(p *lineParser, l *Line) error { return p.string(&l.Old) }},
	{"new", func(p *lineParser, l *Line) error { return p.string(&l.New) }},
	{"in_old_ns", func(p *lineParser, l *Line) error { return p.int64(&l.InOldNS) }},
	{"in_old_min_ns", func(p *lineParser, l *Line) error { return p.int64(&l.InOldMinNS) }},
	{"opened", func(p *lineParser, l *Line) error { return p.string(&l.Opened) }},
	{"closer", func(p *lineParser, l *Line) error { return p.string(&l.Closer) }},
	{"how", func(p *lineParser, l *Line) error { return p.string(&l.How) }},
	{"reset", func(p *lineParser, l *Line) error { return p.stringOrNull(&l.Reset) }},
	{"closed_by", func(p *lineParser, l *Line) error { return p.process(&l.ClosedBy) }},
	{"states", func(p *lineParser, l *Line) error { return p.durations(&l.States) }},
	{"exact", func(p *lineParser, l *Line) error { return p.flagOrNull(&l.Exact) }},
	{"time_wait_end", func(p *lineParser, l *Line) error { return p.stringOrNull(&l.TimeWaitEnd) }},
	{"time_wait_overflow", func(p *lineParser, l *Line) error { return p.flag(&l.TimeWaitOverflow) }},
	{"total_ns", func(p *lineParser, l *Line) error { return p.int64(&l.TotalNS) }},
	{"count", func(p *lineParser, l *Line) error { return p.count(&l.Count) }},
	{"cause", func(p *lineParser, l *Line) error { return p.string(&l.Cause) }},
	{"schema", func(p *lineParser, l *Line) error { return p.count(&l.Schema) }},
	{"version", func(p *lineParser, l *Line) error { return p.string(&l.Version) }},
	{"kernel", func(p *lineParser, l *Line) error { return p.string(&l.Kernel) }},
	{"hooks", func(p *lineParser, l *Line) error { return p.string(&l.Hooks) }},
	{"cgroup", nil},
	{"filters", nil},
}

// fieldIndex is the place of a name in fieldList. mustHave has a bit for each field of
// fieldsOf, by the type of the line.
var fieldIndex, mustHave = func() (map[string]int, map[string]uint64) {
	index := map[string]int{}
	for i, f := range fieldList {
		index[f.name] = i
	}
	must := map[string]uint64{}
	for kind, names := range fieldsOf {
		for _, name := range names {
			must[kind] |= 1 << index[name]
		}
	}
	return index, must
}()

// lineParser reads lines as encoding/json does, at a fraction of its price: in an emulated
// machine that was most of what the tests did. It is as strict, wants no field twice and
// no space between tokens, and leaves the rare text (not ASCII, or with escapes) to it.
type lineParser struct {
	text  []byte
	at    int                // of text
	next  []int              // the field that came after one of fieldList the last time
	texts map[string]*string // that came before: most do again

	ints    slab[int]
	int64s  slab[int64]
	uint16s slab[uint16]
	uint32s slab[uint32]
}

// slab has room for values that are asked for one by one.
type slab[T any] []T

func (s *slab[T]) put(v T) *T {
	if len(*s) == cap(*s) {
		*s = make([]T, 0, 1024)
	}
	*s = append(*s, v)
	return &(*s)[len(*s)-1]
}

var lineParsers = sync.Pool{New: func() any {
	return &lineParser{next: make([]int, len(fieldList)), texts: map[string]*string{}}
}}

// maxTexts bounds the texts that are kept.
const maxTexts = 1 << 16

// parseLine reads one line and demands the fields that its type must have.
func parseLine(text []byte) (*Line, error) {
	p := lineParsers.Get().(*lineParser)
	defer lineParsers.Put(p)
	l := &Line{text: text}
	seen, err := p.parse(bytes.TrimSuffix(text, []byte("\n")), l)
	if err != nil {
		return nil, fmt.Errorf("%w in %q", err, text)
	}
	if missing := mustHave[l.Type] &^ seen; missing != 0 {
		return nil, fmt.Errorf("%s line without %q: %s", l.Type, fieldList[bits.TrailingZeros64(missing)].name, text)
	}
	return l, nil
}

// parse returns the fields that were there, a bit for each of fieldList.
func (p *lineParser) parse(text []byte, l *Line) (seen uint64, err error) {
	p.text, p.at = text, 0
	last := len(fieldList) - 1
	err = p.object(func(name []byte) error {
		i := p.next[last]
		if fieldList[i].name != string(name) {
			var known bool
			if i, known = fieldIndex[string(name)]; !known {
				return p.skip()
			}
			p.next[last] = i
		}
		last = i
		if seen&(1<<i) != 0 {
			return errors.New("twice")
		}
		seen |= 1 << i
		if fieldList[i].read == nil {
			return p.skip()
		}
		return fieldList[i].read(p, l)
	})
	if err == nil && p.at < len(p.text) {
		err = errors.New("more than one value")
	}
	return seen, err
}

// peek returns the next byte, 0 at the end.
func (p *lineParser) peek() byte {
	if p.at < len(p.text) {
		return p.text[p.at]
	}
	return 0
}

// char reads the byte that must come next.
func (p *lineParser) char(want byte) error {
	if p.peek() != want {
		return fmt.Errorf("no %c at byte %d", want, p.at)
	}
	p.at++
	return nil
}

// take reads what must come next.
func (p *lineParser) take(want string) error {
	if !bytes.HasPrefix(p.text[p.at:], []byte(want)) {
		return fmt.Errorf("no %s at byte %d", want, p.at)
	}
	p.at += len(want)
	return nil
}

// null reads null, if that comes next.
func (p *lineParser) null() bool { return p.peek() == 'n' && p.take("null") == nil }

// object reads an object; member reads the value of each name.
func (p *lineParser) object(member func(name []byte) error) error {
	if err := p.char('{'); err != nil {
		return err
	}
	for first := true; p.peek() != '}'; first = false {
		if !first {
			if err := p.char(','); err != nil {
				return err
			}
		}
		name, err := p.quoted()
		if err == nil {
			err = p.char(':')
		}
		if err == nil {
			err = member(name)
		}
		if err != nil {
			return fmt.Errorf("%w (after %q)", err, name)
		}
	}
	return p.char('}')
}

// verbatim are the bytes that stand for themselves in a string.
var verbatim = func() (set [256]bool) {
	for c := ' '; c < utf8.RuneSelf; c++ {
		set[c] = c != '"' && c != '\\'
	}
	return set
}()

// quoted reads a string; it is valid until the line is changed.
func (p *lineParser) quoted() ([]byte, error) {
	if err := p.char('"'); err != nil {
		return nil, err
	}
	i := p.at
	for i < len(p.text) && verbatim[p.text[i]] {
		i++
	}
	if i == len(p.text) || p.text[i] != '"' {
		return p.rare()
	}
	text := p.text[p.at:i]
	p.at = i + 1
	return text, nil
}

// rare reads a string after its first quote as encoding/json does.
func (p *lineParser) rare() ([]byte, error) {
	for i, escaped := p.at, false; i < len(p.text); i++ {
		switch {
		case escaped:
			escaped = false
		case p.text[i] == '\\':
			escaped = true
		case p.text[i] == '"':
			quoted := p.text[p.at-1 : i+1]
			p.at = i + 1
			var text string
			err := json.Unmarshal(quoted, &text)
			if !utf8.Valid(quoted) {
				err = errors.New("not UTF-8")
			}
			return []byte(text), err
		}
	}
	return nil, errors.New("a string without end")
}

// skip reads any value.
func (p *lineParser) skip() error {
	switch p.peek() {
	case '"':
		_, err := p.quoted()
		return err
	case 'n':
		return p.take("null")
	case 't', 'f':
		var b bool
		return p.flag(&b)
	}
	d := json.NewDecoder(bytes.NewReader(p.text[p.at:]))
	var v json.RawMessage
	if err := d.Decode(&v); err != nil {
		return err
	}
	if !utf8.Valid(v) {
		return errors.New("not UTF-8")
	}
	return p.take(string(v))
}

// intern returns the text as it was kept when it came first.
func (p *lineParser) intern(text []byte) *string {
	s, ok := p.texts[string(text)]
	if !ok {
		if len(p.texts) >= maxTexts {
			clear(p.texts)
		}
		s = new(string(text))
		p.texts[*s] = s
	}
	return s
}

// once reads a string that will not come again; null leaves it empty, as encoding/json
// does.
func (p *lineParser) once(to *string) error {
	if p.null() {
		return nil
	}
	text, err := p.quoted()
	*to = string(text)
	return err
}

// string does the same with one of which there are many.
func (p *lineParser) string(to *string) error {
	var s *string
	err := p.stringOrNull(&s)
	if s != nil {
		*to = *s
	}
	return err
}

func (p *lineParser) stringOrNull(to **string) error {
	if p.null() {
		return nil
	}
	text, err := p.quoted()
	if err == nil {
		*to = p.intern(text)
	}
	return err
}

// whole reads a whole number between least and most.
func (p *lineParser) whole(least, most int64) (n int64, err error) {
	begin := p.at
	if p.peek() == '-' {
		p.at++
	}
	digits := p.at
	for c := p.peek(); '0' <= c && c <= '9'; c = p.peek() {
		p.at++
	}
	if p.at == digits || p.at > digits+1 && p.text[digits] == '0' {
		return 0, fmt.Errorf("no number at byte %d", begin)
	}
	n, err = strconv.ParseInt(string(p.text[begin:p.at]), 10, 64)
	if err == nil && (n < least || n > most) {
		err = fmt.Errorf("%d is not between %d and %d", n, least, most)
	}
	return n, err
}

// count reads a whole number from 0 on, or null.
func (p *lineParser) count(to *int) error {
	if p.null() {
		return nil
	}
	n, err := p.whole(0, math.MaxInt64)
	*to = int(n)
	return err
}

// number reads a whole number that T can hold, or null.
func number[T int | int64 | uint16 | uint32](p *lineParser, values *slab[T], to **T, least, most int64) error {
	if p.null() {
		return nil
	}
	n, err := p.whole(least, most)
	if err == nil {
		*to = values.put(T(n))
	}
	return err
}

func (p *lineParser) int64(to **int64) error {
	return number(p, &p.int64s, to, math.MinInt64, math.MaxInt64)
}
func (p *lineParser) int32(to **int) error {
	return number(p, &p.ints, to, math.MinInt32, math.MaxInt32)
}
func (p *lineParser) uint32(to **uint32) error { return number(p, &p.uint32s, to, 0, math.MaxUint32) }
func (p *lineParser) uint16(to **uint16) error { return number(p, &p.uint16s, to, 0, math.MaxUint16) }

// uid reads a user id, which is an int here and has 32 bits without sign.
func (p *lineParser) uid(to **int) error { return number(p, &p.ints, to, 0, math.MaxUint32) }

func (p *lineParser) flag(to *bool) error {
	if p.null() {
		return nil
	}
	*to = p.peek() == 't'
	if *to {
		return p.take("true")
	}
	return p.take("false")
}

func (p *lineParser) flagOrNull(to **bool) error {
	if p.null() {
		return nil
	}
	*to = new(bool)
	return p.flag(*to)
}

func (p *lineParser) process(to **Process) error {
	if p.null() {
		return nil
	}
	*to = &Process{}
	return p.object(func(name []byte) error {
		switch string(name) {
		case "pid":
			return p.int32(&(*to).PID)
		case "comm":
			return p.stringOrNull(&(*to).Comm)
		}
		return p.skip()
	})
}

// durations reads an object of whole numbers, some of them null.
func (p *lineParser) durations(to *map[string]*int64) error {
	if p.null() {
		return nil
	}
	all := map[string]*int64{}
	*to = all
	return p.object(func(name []byte) error {
		state := *p.intern(name)
		if _, ok := all[state]; ok {
			return errors.New("twice")
		}
		var ns *int64
		err := p.int64(&ns)
		all[state] = ns
		return err
	})
}

// TestParseLine compares the reader of lines with encoding/json, on what the example
// recording says and on lines that are wrong.
func TestParseLine(t *testing.T) {
	t.Parallel()
	out, err := exec.Command(tcptrace, "-r", "../examples/close-wait-leak.zst", "-o", "json").Output()
	if err != nil {
		t.Fatal(err)
	}
	types := map[string]int{}
	for text := range bytes.Lines(bytes.TrimSpace(out)) {
		got, err := parseLine(text)
		if err != nil {
			t.Fatal(err)
		}
		want := &Line{text: text}
		if err := json.Unmarshal(text, want); err != nil {
			t.Fatal(err)
		}
		if !reflect.DeepEqual(got, want) {
			t.Fatalf("got %+v\nof %s", got, text)
		}
		types[got.Type]++
	}
	for kind := range fieldsOf {
		if types[kind] == 0 {
			t.Errorf("no line of type %q among %v", kind, types)
		}
	}
	for _, text := range []string{
		``, `{`, `[]`, `{"type":"lost"}{}`, `{"type":"lost"},`, `{"type":1}`, `{"type":"lost","type":"lost"}`,
		`{"type":"lost","count":"1"}`, `{"type":"resync","lport":65536}`, `{"type":"resync","pid":1.5}`, `{"type":"transition"}`,
		`{"type":"resync","states":{"CLOSE":"1"}}`, `{"type":"resync","exact":1}`, `{"type":"resync","netns":-1}`,
		`{"type":"resync",}`, `{,"type":"resync"}`, `{"type":"resync"`, `{"type":"resync}`, `{"type":"res\"}`, `{"type":"res\q"}`,
		"{\"type\":\"re\tsync\"}", "{\"type\":\"re\xffsync\"}", "{\"type\":\"re\\u00e9\xffsync\"}", `{"type":"resync" }`, `{"type" :"resync"}`,
		`{"type":"resync","ts_ns":01}`, `{"type":"resync","ts_ns":-}`, `{"type":"resync","ts_ns":}`, `{"type":"resync","ts_ns":9223372036854775808}`,
		`{"type":"resync","exact":nul}`, `{"type":"resync","exact":tru}`, `{"type":"resync","cgroup":}`, `{"type":"resync","filters":{"a":}}`,
		`{"type":"resync","states":{"CLOSE":1,"CLOSE":2}}`, `{"type":"resync","uid":-1}`, `{"type":"resync","count":-1}`,
	} {
		if l, err := parseLine([]byte(text)); err == nil {
			t.Errorf("%s was read as %+v", text, l)
		}
	}
	for _, text := range []string{
		`{}`, `{"type":"resync","comm":"a\"b\\c\u001b[1md é","owner":"é"}`, `{"type":"resync","unknown":{"a":["}",1.5e3,{}]},"count":7}`,
		`{"type":"resync","ts_ns":-9223372036854775808,"lport":65535,"uid":4294967295,"pid":null,"exact":true,"closed_by":{"pid":1,"comm":null,"x":[]}}`,
		`{"type":"resync","states":{},"filters":{"a":"\\"},"cgroup":"/a","time_wait_overflow":true,"count":null}`,
	} {
		got, err := parseLine([]byte(text))
		want := &Line{text: []byte(text)}
		if err := errors.Join(err, json.Unmarshal([]byte(text), want)); err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("%s was read as %+v, %v", text, got, err)
		}
	}
}
