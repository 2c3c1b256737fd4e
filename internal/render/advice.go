package render

import (
	"strconv"
	"strings"

	"github.com/tcptrace/tcptrace/internal/advice"
	"github.com/tcptrace/tcptrace/internal/events"
)

// Columns of advice.
const (
	adviceLabelAt = 2
	adviceTextAt  = 12
	adviceName    = 44 // widest name of evidence beside its value
)

// AppendAdvice appends the section with the advice in lines of at most width
// columns (0: 80), or nothing where there is none.
func AppendAdvice(dst []byte, items []advice.Item, columns int, color bool) []byte {
	if len(items) == 0 {
		return dst
	}
	if columns <= 0 {
		columns = minWidth
	}
	p := advicePage{buf: dst, columns: max(columns, 40), color: color}
	p.colored(bold, "ADVICE")
	for i := range items {
		p.buf = append(p.buf, '\n')
		p.item(&items[i])
	}
	return p.buf
}

type advicePage struct {
	buf     []byte
	columns int
	color   bool
}

func (p *advicePage) colored(code, line string) {
	if p.color {
		line = code + line + reset
	}
	p.buf = append(append(p.buf, line...), '\n')
}

func (p *advicePage) item(it *advice.Item) {
	code := bold
	if it.Severity == advice.Critical {
		code = bold + red
	}
	indent := ""
	for _, line := range wrapText(it.Severity.String()+": "+Escape(it.Title), p.columns-adviceLabelAt) {
		p.colored(code, indent+line)
		indent = "  "
	}
	p.evidence(it.Evidence)
	p.paragraph("change", it.Change)
	p.paragraph("cost", it.Cost)
	p.paragraph("source", strings.Join(it.Sources, "; "))
	p.paragraph("rule", it.Rule)
}

// paragraph writes text behind a label.
func (p *advicePage) paragraph(label, text string) {
	if text == "" {
		return
	}
	for _, line := range wrapText(Escape(text), p.columns-adviceTextAt) {
		p.buf = pad(fill(p.buf, adviceLabelAt), label, adviceTextAt-adviceLabelAt)
		p.buf = append(append(p.buf, line...), '\n')
		label = ""
	}
}

// evidence writes a table: names, numbers to the right, units.
func (p *advicePage) evidence(list []advice.Evidence) {
	type row struct{ name, number, unit string }
	var rows []row
	names, numbers := 0, 0
	for i := range list {
		r := row{name: Escape(list[i].Name)}
		r.number, r.unit = evidenceValue(&list[i])
		if w := width(r.name); w <= adviceName {
			names = max(names, w)
		}
		if list[i].Text == "" {
			numbers = max(numbers, width(r.number))
		}
		rows = append(rows, r)
	}
	label := "measured"
	for i, r := range rows {
		p.buf = pad(fill(p.buf, adviceLabelAt), label, adviceTextAt-adviceLabelAt)
		label = ""
		at := names
		if width(r.name) > at {
			// A long name stands alone.
			p.buf = append(append(p.buf, r.name...), '\n')
			p.buf = fill(p.buf, adviceTextAt+at)
		} else {
			p.buf = append(p.buf, Pad(r.name, at, false)...)
		}
		p.buf = append(p.buf, "  "...)
		if list[i].Text == "" {
			p.buf = append(p.buf, Pad(r.number, numbers, true)...)
		} else {
			p.buf = append(p.buf, r.number...)
		}
		if r.unit != "" {
			p.buf = append(append(p.buf, ' '), r.unit...)
		}
		p.buf = append(p.buf, '\n')
	}
}

// evidenceValue writes the value as people read it, and what stands behind it.
func evidenceValue(e *advice.Evidence) (number, unit string) {
	if e.Text != "" {
		return Escape(e.Text), ""
	}
	switch e.Unit {
	case advice.UnitNS:
		return AtLeast(int64(e.Value), !e.AtLeast), ""
	case advice.UnitPerSec:
		number, unit = decimal(e.Value), "per second"
	case advice.UnitPerMin:
		number, unit = Rate(e.Value), "per minute"
	default:
		number, unit = decimal(e.Value), e.Unit
		if e.Value == 1 && len(unit) > 1 {
			unit = strings.TrimSuffix(unit, "s")
		}
	}
	if e.AtLeast {
		number = ">=" + number
	}
	return number, unit
}

// decimal writes a number in full, with a decimal if it has any.
func decimal(v float64) string {
	whole := int64(v)
	text := Thousands(whole)
	if rest := v - float64(whole); rest > 0 {
		text += strings.TrimPrefix(strconv.FormatFloat(rest, 'f', 1, 64), "0")
	}
	return text
}

// wrapText breaks text at spaces into lines of at most room cells; a longer word
// has a line of its own.
func wrapText(text string, room int) []string {
	var lines []string
	line, used := "", 0
	for word := range strings.FieldsSeq(text) {
		w := width(word)
		if used > 0 && used+1+w > room {
			lines = append(lines, line)
			line, used = "", 0
		}
		if used > 0 {
			line += " "
			used++
		}
		line += word
		used += w
	}
	return append(lines, line)
}

// AppendAdviceJSON appends the advice as a JSON array: rule, severity, title,
// evidence (name, value, unit; at_least where the value is a lower bound), change,
// cost, sources. A value is a number, or a text where it is not one number.
func AppendAdviceJSON(dst []byte, enc *events.Encoder, items []advice.Item) []byte {
	member := func(name, text string) {
		dst = append(append(append(dst, ',', '"'), name...), '"', ':')
		dst = enc.AppendText(dst, text)
	}
	dst = append(dst, '[')
	for i := range items {
		it := &items[i]
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = append(dst, `{"rule":`...)
		dst = enc.AppendText(dst, it.Rule)
		member("severity", it.Severity.String())
		member("title", it.Title)
		dst = append(dst, `,"evidence":[`...)
		for j := range it.Evidence {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = appendEvidence(dst, enc, &it.Evidence[j])
		}
		dst = append(dst, ']')
		member("change", it.Change)
		member("cost", it.Cost)
		dst = append(dst, `,"sources":[`...)
		for j, source := range it.Sources {
			if j > 0 {
				dst = append(dst, ',')
			}
			dst = enc.AppendText(dst, source)
		}
		dst = append(dst, `]}`...)
	}
	return append(dst, ']')
}

func appendEvidence(dst []byte, enc *events.Encoder, e *advice.Evidence) []byte {
	dst = append(dst, `{"name":`...)
	dst = enc.AppendText(dst, e.Name)
	dst = append(dst, `,"value":`...)
	if e.Text != "" {
		dst = enc.AppendText(dst, e.Text)
	} else {
		dst = strconv.AppendFloat(dst, e.Value, 'f', -1, 64)
	}
	dst = append(dst, `,"unit":`...)
	if e.Unit == "" {
		dst = append(dst, "null"...)
	} else {
		dst = enc.AppendText(dst, e.Unit)
	}
	if e.AtLeast {
		dst = append(dst, `,"at_least":true`...)
	}
	return append(dst, '}')
}
