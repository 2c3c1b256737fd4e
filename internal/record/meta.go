package record

import (
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/tcptrace/tcptrace/internal/events"
)

// Meta is what was known when a recording began.
type Meta struct {
	// Header is the first line of the trace.
	Header events.Header
	// Clock is the distance of the machine's clocks.
	Clock events.Clock
	// Attrs is what else a replay needs: flags in a form that means the same on
	// any machine, sizes, limits. This package does not look at them.
	Attrs map[string]string
}

func appendMeta(b []byte, m *Meta) ([]byte, error) {
	b = binary.AppendVarint(b, int64(m.Header.Schema))
	var err error
	for _, text := range []string{m.Header.Version, m.Header.Kernel, m.Header.Hooks} {
		if b, err = appendText(b, text); err != nil {
			return nil, err
		}
	}
	b = binary.AppendVarint(b, m.Header.TS)
	b = binary.AppendVarint(b, m.Clock.OffsetNS)
	for _, pairs := range []map[string]string{m.Header.Filters, m.Attrs} {
		if b, err = appendMap(b, pairs); err != nil {
			return nil, err
		}
	}
	return b, nil
}

func appendText(b []byte, s string) ([]byte, error) {
	if len(s) > maxText {
		return nil, fmt.Errorf("a text of %d bytes: want at most %d", len(s), maxText)
	}
	return append(binary.AppendUvarint(b, uint64(len(s))), s...), nil
}

func appendMap(b []byte, m map[string]string) ([]byte, error) {
	if m == nil {
		return binary.AppendUvarint(b, 0), nil
	}
	b = binary.AppendUvarint(b, 1+uint64(len(m)))
	for _, key := range slices.Sorted(maps.Keys(m)) {
		var err error
		if b, err = appendText(b, key); err != nil {
			return nil, err
		}
		if b, err = appendText(b, m[key]); err != nil {
			return nil, err
		}
	}
	return b, nil
}

// decodeMeta reads a whole meta block.
func decodeMeta(p *parser) *Meta {
	m := &Meta{}
	m.Header.Schema = int(p.varint())
	m.Header.Version = string(p.text())
	m.Header.Kernel = string(p.text())
	m.Header.Hooks = string(p.text())
	m.Header.TS = p.varint()
	m.Clock.OffsetNS = p.varint()
	m.Header.Filters = p.pairs()
	m.Attrs = p.pairs()
	if p.err == "" && p.pos != len(p.b) {
		p.fail("more than the header in its block")
	}
	return m
}
