package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/go-json-experiment/json"

	"github.com/tcptrace/tcptrace/internal/render"
	"github.com/tcptrace/tcptrace/internal/tracer"
)

// showFeatures prints what the kernel and the process can do.
func showFeatures(opt *options, std stdio) error {
	f, err := tracer.Probe()
	if err != nil {
		return err
	}
	if opt.json {
		return quietly(featuresJSON(std.out, f))
	}
	_, isTerminal := terminal(std.out)
	_, err = io.WriteString(std.out, featuresText(f, wantColor(opt.color, isTerminal)))
	return quietly(err)
}

// nullable is a text of which the empty one is null.
type nullable string

// MarshalJSON returns null for the empty text.
func (n nullable) MarshalJSON() ([]byte, error) {
	if n == "" {
		return []byte("null"), nil
	}
	return json.Marshal(string(n))
}

type wireFeatures struct {
	Type       string        `json:"type"`
	Version    string        `json:"version"`
	Kernel     string        `json:"kernel"`
	Arch       string        `json:"arch"`
	BTF        bool          `json:"btf"`
	Lockdown   nullable      `json:"lockdown"`
	Hooks      nullable      `json:"hooks"`
	Why        string        `json:"why"`
	Privileges []wireCap     `json:"privileges"`
	Features   []wireFeature `json:"features"`
}

type wireCap struct {
	Name string `json:"name"`
	Held bool   `json:"held"`
	Use  string `json:"use"`
}

type wireFeature struct {
	Name   string   `json:"name"`
	Tier   nullable `json:"tier"`
	Status string   `json:"status"` // yes, no or unknown
	Detail nullable `json:"detail"`
	Cost   string   `json:"cost"`
}

// featuresJSON writes one object on one line.
func featuresJSON(w io.Writer, f *tracer.Features) error {
	wire := wireFeatures{
		Type: "features", Version: versionText(), Kernel: f.Kernel, Arch: f.Arch, BTF: f.BTF, Lockdown: nullable(f.Lockdown),
		Hooks: nullable(f.Tier), Why: f.Why,
	}
	for _, c := range f.Privileges {
		wire.Privileges = append(wire.Privileges, wireCap{c.Name, c.Held, c.Use})
	}
	for _, x := range f.Features {
		wire.Features = append(wire.Features, wireFeature{x.Name, nullable(x.Tier), string(x.Status), nullable(x.Detail), x.Cost})
	}
	line, err := json.Marshal(wire)
	if err != nil {
		return fmt.Errorf("encode features: %w", err)
	}
	_, err = w.Write(append(line, '\n'))
	return err
}

// featuresText returns the same for people: what is there, and what the absence
// of the rest costs.
func featuresText(f *tracer.Features, color bool) string {
	var b strings.Builder
	item := func(name, value string) { b.WriteString(wrap(fmt.Sprintf("%-12s", name), render.Escape(value))) }
	item("tcptrace", versionText())
	item("kernel", f.Kernel+" "+f.Arch)
	item("BTF", yesNo(f.BTF))
	if f.Lockdown == "" {
		item("lockdown", "not told")
	} else {
		item("lockdown", f.Lockdown)
	}
	if f.Tier == "" {
		item("hooks", "none can be chosen")
	} else {
		item("hooks", f.Tier)
	}
	item("because", f.Why)
	b.WriteString("\nprivileges\n")
	for _, c := range f.Privileges {
		fmt.Fprintf(&b, "  %s %-15s %s\n", mark(yesNo(c.Held), color), c.Name, c.Use)
	}
	for i, x := range f.Features {
		if i == 0 || f.Features[i-1].Tier != x.Tier {
			title := "needed always"
			if x.Tier != "" {
				title = "hooks of " + x.Tier
			}
			fmt.Fprintf(&b, "\n%s\n", title)
		}
		fmt.Fprintf(&b, "  %s %s\n", mark(string(x.Status), color), render.Escape(x.Name))
		// What is the same for several is said once, below the last of them.
		if i+1 < len(f.Features) {
			next := f.Features[i+1]
			if next.Tier == x.Tier && next.Status == x.Status && next.Detail == x.Detail && next.Cost == x.Cost {
				continue
			}
		}
		const indent = "          "
		if x.Detail != "" {
			b.WriteString(wrap(indent, render.Escape(x.Detail)))
		}
		if x.Status == tracer.No && x.Cost != "" {
			b.WriteString(wrap(indent, "without: "+x.Cost))
		}
	}
	return b.String()
}

// wrap breaks text at spaces into lines of at most 80 cells, the first after
// lead, the others below it.
func wrap(lead, text string) string {
	const columns = 80
	var b strings.Builder
	line, empty := lead, true
	for word := range strings.FieldsSeq(text) {
		if !empty && render.Width(line)+1+render.Width(word) > columns {
			b.WriteString(line + "\n")
			line, empty = strings.Repeat(" ", render.Width(lead)), true
		}
		if !empty {
			line += " "
		}
		line, empty = line+word, false
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
	return b.String()
}

func yesNo(v bool) string {
	if v {
		return "yes"
	}
	return "no"
}

// mark fills a status up to the width of the longest.
func mark(status string, color bool) string {
	text := fmt.Sprintf("%-7s", status)
	if !color {
		return text
	}
	switch status {
	case "yes":
		return "\x1b[32m" + text + "\x1b[0m"
	case "no":
		return "\x1b[31m" + text + "\x1b[0m"
	default:
		return "\x1b[33m" + text + "\x1b[0m"
	}
}
