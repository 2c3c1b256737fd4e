package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/bits"
	"os/exec"
	"reflect"
	"strconv"
	"sync"
	"testing"

	"github.com/go-json-experiment/json/jsontext"
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
	{"type", func(p *lineParser, l *Line) error { return p.text(&l.Type) }},
	{"time", func(p *lineParser, l *Line) error { return p.text(&l.Time) }},
	{"ts_ns", func(p *lineParser, l *Line) error { return number(p, &l.TS, 64) }},
	{"conn", func(p *lineParser, l *Line) error { return p.text(&l.Conn) }},
	{"netns", func(p *lineParser, l *Line) error { return number(p, &l.NetNS, 32) }},
	{"cookie", func(p *lineParser, l *Line) error { return p.textOrNull(&l.Cookie) }},
	{"family", func(p *lineParser, l *Line) error { return number(p, &l.Family, 32) }},
	{"laddr", func(p *lineParser, l *Line) error { return p.textOrNull(&l.LAddr) }},
	{"lport", func(p *lineParser, l *Line) error { return number(p, &l.LPort, 16) }},
	{"raddr", func(p *lineParser, l *Line) error { return p.textOrNull(&l.RAddr) }},
	{"rport", func(p *lineParser, l *Line) error { return number(p, &l.RPort, 16) }},
	{"pid", func(p *lineParser, l *Line) error { return number(p, &l.PID, 32) }},
	{"comm", func(p *lineParser, l *Line) error { return p.textOrNull(&l.Comm) }},
	{"uid", func(p *lineParser, l *Line) error { return number(p, &l.UID, 64) }},
	{"owner", func(p *lineParser, l *Line) error { return p.textOrNull(&l.Owner) }},
	{"error", func(p *lineParser, l *Line) error { return p.textOrNull(&l.Error) }},
	{"old", func(p *lineParser, l *Line) error { return p.text(&l.Old) }},
	{"new", func(p *lineParser, l *Line) error { return p.text(&l.New) }},
	{"in_old_ns", func(p *lineParser, l *Line) error { return number(p, &l.InOldNS, 64) }},
	{"in_old_min_ns", func(p *lineParser, l *Line) error { return number(p, &l.InOldMinNS, 64) }},
	{"opened", func(p *lineParser, l *Line) error { return p.text(&l.Opened) }},
	{"closer", func(p *lineParser, l *Line) error { return p.text(&l.Closer) }},
	{"how", func(p *lineParser, l *Line) error { return p.text(&l.How) }},
	{"reset", func(p *lineParser, l *Line) error { return p.textOrNull(&l.Reset) }},
	{"closed_by", func(p *lineParser, l *Line) error { return p.process(&l.ClosedBy) }},
	{"states", func(p *lineParser, l *Line) error { return p.durations(&l.States) }},
	{"exact", func(p *lineParser, l *Line) error { return p.flagOrNull(&l.Exact) }},
	{"time_wait_end", func(p *lineParser, l *Line) error { return p.textOrNull(&l.TimeWaitEnd) }},
	{"time_wait_overflow", func(p *lineParser, l *Line) error { return p.flag(&l.TimeWaitOverflow) }},
	{"total_ns", func(p *lineParser, l *Line) error { return number(p, &l.TotalNS, 64) }},
	{"count", func(p *lineParser, l *Line) error { return p.count(&l.Count) }},
	{"cause", func(p *lineParser, l *Line) error { return p.text(&l.Cause) }},
	{"schema", func(p *lineParser, l *Line) error { return p.count(&l.Schema) }},
	{"version", func(p *lineParser, l *Line) error { return p.text(&l.Version) }},
	{"kernel", func(p *lineParser, l *Line) error { return p.text(&l.Kernel) }},
	{"hooks", func(p *lineParser, l *Line) error { return p.text(&l.Hooks) }},
	{"cgroup", nil},
	{"filters", nil},
}

// fieldIndex is the place in fieldList of a name, which has its quotes still.
// mustHave has a bit for each field of fieldsOf, by the type of the line.
var fieldIndex, mustHave = func() (map[string]int, map[string]uint64) {
	index := map[string]int{}
	for i, f := range fieldList {
		index[`"`+f.name+`"`] = i
	}
	must := map[string]uint64{}
	for kind, names := range fieldsOf {
		for _, name := range names {
			must[kind] |= 1 << index[`"`+name+`"`]
		}
	}
	return index, must
}()

// lineParser reads lines as encoding/json does, at a third of its price: in an emulated
// machine that was most of what the tests did.
type lineParser struct {
	src   bytes.Reader
	dec   *jsontext.Decoder
	texts map[string]string // that came before: most do again
}

var lineParsers = sync.Pool{New: func() any {
	p := &lineParser{texts: map[string]string{}}
	p.dec = jsontext.NewDecoder(&p.src)
	return p
}}

// maxTexts bounds the texts that are kept.
const maxTexts = 1 << 16

// parseLine reads one line and demands the fields that its type must have.
func parseLine(text []byte) (*Line, error) {
	p := lineParsers.Get().(*lineParser)
	defer lineParsers.Put(p)
	l := &Line{text: text}
	seen, err := p.parse(text, l)
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
	p.src.Reset(text)
	p.dec.Reset(&p.src, jsontext.AllowDuplicateNames(true)) // what is read is checked below
	err = p.object(func(name jsontext.Value) error {
		i, ok := fieldIndex[string(name)]
		if !ok {
			return p.dec.SkipValue()
		}
		if seen&(1<<i) != 0 {
			return errors.New("twice")
		}
		seen |= 1 << i
		if fieldList[i].read == nil {
			return p.dec.SkipValue()
		}
		return fieldList[i].read(p, l)
	})
	if err != nil {
		return 0, err
	}
	if _, err := p.dec.ReadToken(); err != io.EOF {
		return 0, fmt.Errorf("more than one value (%w)", err)
	}
	return seen, nil
}

// object reads an object; member reads the value that follows the name, which is valid
// until then and has its quotes.
func (p *lineParser) object(member func(name jsontext.Value) error) error {
	if tok, err := p.dec.ReadToken(); err != nil || tok.Kind() != '{' {
		return errors.Join(errors.New("want an object"), err)
	}
	for p.dec.PeekKind() == '"' {
		name, err := p.dec.ReadValue()
		if err != nil {
			return err
		}
		if err := member(name); err != nil {
			return fmt.Errorf("%w at %s", err, p.dec.StackPointer())
		}
	}
	_, err := p.dec.ReadToken()
	return err
}

// value reads the next value and wants it to be of that kind, as jsontext has them; the
// result is valid until the next call.
func (p *lineParser) value(kind jsontext.Kind) (jsontext.Value, error) {
	v, err := p.dec.ReadValue()
	if err == nil && v.Kind() != kind {
		err = fmt.Errorf("%s is not of kind %v", v, kind)
	}
	return v, err
}

// null reports whether the next value is null, and then reads it.
func (p *lineParser) null() bool { return p.dec.PeekKind() == 'n' && p.dec.SkipValue() == nil }

// text reads a string; null leaves it empty, as encoding/json does.
func (p *lineParser) text(to *string) error {
	if p.null() {
		return nil
	}
	v, err := p.value('"')
	if err != nil {
		return err
	}
	s, ok := p.texts[string(v)]
	if !ok {
		text, err := jsontext.AppendUnquote(nil, v)
		if err != nil {
			return err
		}
		if len(p.texts) >= maxTexts {
			clear(p.texts)
		}
		s = string(text)
		p.texts[string(v)] = s
	}
	*to = s
	return nil
}

func (p *lineParser) textOrNull(to **string) error {
	if p.null() {
		return nil
	}
	*to = new(string)
	return p.text(*to)
}

// count reads a whole number from 0 on, or null.
func (p *lineParser) count(to *int) error {
	if p.null() {
		return nil
	}
	v, err := p.value('0')
	if err != nil {
		return err
	}
	n, err := strconv.ParseUint(string(v), 10, 63)
	*to = int(n)
	return err
}

// number reads a whole number of so many bits, or null.
func number[T int | int64 | uint16 | uint32](p *lineParser, to **T, size int) error {
	if p.null() {
		return nil
	}
	v, err := p.value('0')
	if err != nil {
		return err
	}
	var n T
	if n--; n < 0 {
		i, err := strconv.ParseInt(string(v), 10, size)
		if err != nil {
			return err
		}
		n = T(i)
	} else {
		u, err := strconv.ParseUint(string(v), 10, size)
		if err != nil {
			return err
		}
		n = T(u)
	}
	*to = &n
	return nil
}

func (p *lineParser) flag(to *bool) error {
	if p.null() {
		return nil
	}
	tok, err := p.dec.ReadToken()
	if err != nil {
		return err
	}
	if kind := tok.Kind(); kind != 't' && kind != 'f' {
		return fmt.Errorf("%s is no boolean", tok)
	}
	*to = tok.Bool()
	return nil
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
	return p.object(func(name jsontext.Value) error {
		switch string(name) {
		case `"pid"`:
			return number(p, &(*to).PID, 32)
		case `"comm"`:
			return p.textOrNull(&(*to).Comm)
		}
		return p.dec.SkipValue()
	})
}

// durations reads an object of whole numbers, some of them null.
func (p *lineParser) durations(to *map[string]*int64) error {
	if p.null() {
		return nil
	}
	all := map[string]*int64{}
	*to = all
	return p.object(func(name jsontext.Value) error {
		state, err := jsontext.AppendUnquote(nil, name)
		if err != nil {
			return err
		}
		var ns *int64
		err = number(p, &ns, 64)
		all[string(state)] = ns
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
	} {
		if l, err := parseLine([]byte(text)); err == nil {
			t.Errorf("%s was read as %+v", text, l)
		}
	}
}
