//go:build linux

package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

// report is what a run found out, as JSON.
type report struct {
	Time     time.Time `json:"time"`
	Kernel   string    `json:"kernel"`
	CPU      string    `json:"cpu"`
	CPUs     int       `json:"cpus"`
	LoadAvg  string    `json:"load_average"` // before the run
	Versions []string  `json:"versions"`
	Hooks    string    `json:"hooks"` // the tier that tcptrace chose
	Pairs    int       `json:"pairs"`
	Seconds  float64   `json:"seconds"`
	Notes    []string  `json:"notes"`
	Rows     []row     `json:"rows"`
}

// row is one figure: the median of its samples.
type row struct {
	Part    string  `json:"part"`
	What    string  `json:"what"`
	Who     string  `json:"who"`
	Unit    string  `json:"unit"`
	Median  float64 `json:"median"`
	Low     float64 `json:"low"`  // the lowest and ...
	High    float64 `json:"high"` // ... the highest sample
	Samples int     `json:"samples"`
	// Target is what to reach, at most or (AtLeast) at least; null: none.
	Target  *float64 `json:"target"`
	AtLeast bool     `json:"at_least,omitempty"`
	digits  int
}

// add adds a row of the samples. target NaN: none.
func (b *bench) add(part, what, who, unit string, digits int, s sample, target float64, atLeast bool) {
	r := row{Part: part, What: what, Who: who, Unit: unit, Median: s.median(), Low: s.quantile(0), High: s.quantile(1),
		Samples: len(s), AtLeast: atLeast, digits: digits}
	if !math.IsNaN(target) {
		r.Target = &target
	}
	b.report.Rows = append(b.report.Rows, r)
}

var none = math.NaN()

func (r *row) number(v float64) string { return fmt.Sprintf("%.*f", r.digits, v) }

func (r *row) verdict() (target, reached string) {
	if r.Target == nil {
		return "", ""
	}
	sign, ok := "<=", r.Median <= *r.Target
	if r.AtLeast {
		sign, ok = ">=", r.Median >= *r.Target
	}
	reached = "yes"
	if !ok {
		reached = "NO"
	}
	return sign + " " + r.number(*r.Target), reached
}

// text prints the report for a reader.
func (r *report) text(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s  Linux %s  %d x %s\n", r.Time.UTC().Format("2006-01-02 15:04 UTC"), r.Kernel, r.CPUs, r.CPU)
	fmt.Fprintf(out, "load average before: %s; hooks %s; %d pairs of %gs\n", r.LoadAvg, r.Hooks, r.Pairs, r.Seconds)
	for _, v := range r.Versions {
		fmt.Fprintln(out, v)
	}
	for _, n := range r.Notes {
		fmt.Fprintln(out, "note: "+n)
	}
	t := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	part, what := "", ""
	for i := range r.Rows {
		row := &r.Rows[i]
		if row.Part != part {
			part, what = row.Part, ""
			fmt.Fprintf(t, "\n%s\t\tmedian\tlow .. high\tto reach\t\n", strings.ToUpper(part))
		}
		if row.What != what {
			what = row.What
			fmt.Fprintf(t, "%s, %s\t\t\t\t\t\n", what, row.Unit)
		}
		target, reached := row.verdict()
		fmt.Fprintf(t, "  %s\t\t%s\t%s .. %s\t%s\t%s\n", row.Who, row.number(row.Median), row.number(row.Low), row.number(row.High), target, reached)
	}
	return errors.Join(t.Flush(), out.Flush())
}

// write prints the report and keeps it as text and JSON.
func (b *bench) write(out io.Writer) error {
	if err := os.MkdirAll(b.results, 0o755); err != nil {
		return err
	}
	raw, err := json.MarshalIndent(&b.report, "", "\t")
	if err != nil {
		return err
	}
	if err := os.WriteFile(filepath.Join(b.results, "results.json"), append(raw, '\n'), 0o644); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(b.results, "results.txt"))
	if err != nil {
		return err
	}
	return errors.Join(b.report.text(io.MultiWriter(out, f)), f.Close())
}

// describe notes the machine, the versions and the circumstances.
func (b *bench) describe() error {
	r := &b.report
	r.Time, r.CPUs, r.CPU = time.Now(), runtime.NumCPU(), runtime.GOARCH
	r.Pairs, r.Seconds = b.pairs, b.spell.Seconds()
	var name unix.Utsname
	if err := unix.Uname(&name); err != nil {
		return err
	}
	r.Kernel = unix.ByteSliceToString(name.Release[:])
	if raw, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(raw)) {
			if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
				r.CPU = strings.TrimSpace(value)
				break
			}
		}
	}
	raw, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return err
	}
	r.LoadAvg = strings.Join(strings.Fields(string(raw))[:3], " ")
	for _, c := range [][]string{{b.tcptrace, "--version"}, {b.ss, "-V"}, {b.bpftrace, "--version"}} {
		if c[0] == "" {
			continue
		}
		if text, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err == nil {
			first, _, _ := strings.Cut(string(text), "\n")
			r.Versions = append(r.Versions, first)
		}
	}
	if b.tcpstates != "" {
		version := "of unknown version"
		if text, err := exec.Command("dpkg-query", "-W", "-f", "${Version}", "libbpf-tools").Output(); err == nil {
			version = string(text)
		}
		r.Versions = append(r.Versions, "tcpstates of libbpf-tools "+version)
	}
	features, err := exec.Command(b.tcptrace, "--features", "-o", "json").Output()
	if err != nil {
		return fmt.Errorf("tcptrace --features: %w", err)
	}
	var f struct{ Hooks string }
	if json.Unmarshal(features, &f) == nil {
		r.Hooks = f.Hooks
	}
	return nil
}
