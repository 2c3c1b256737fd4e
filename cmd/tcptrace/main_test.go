package main

import (
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/pflag"
)

// definedFlags returns the long names of the flags, with their short ones.
func definedFlags() map[string]string {
	all := map[string]string{"help": "h"} // pflag's own
	newFlagSet(&options{}).VisitAll(func(f *pflag.Flag) { all[f.Name] = f.Shorthand })
	return all
}

func compareFlags(t *testing.T, where string, got map[string]string) {
	t.Helper()
	want := definedFlags()
	for name, short := range want {
		if have, ok := got[name]; !ok {
			t.Errorf("%s does not know --%s", where, name)
		} else if have != short {
			t.Errorf("%s has -%s for --%s, want -%s", where, have, name, short)
		}
	}
	for name := range got {
		if _, ok := want[name]; !ok {
			t.Errorf("%s tells of --%s, which does not exist", where, name)
		}
	}
}

// The help, the manual page and the program know the same flags.
func TestFlagsDocumented(t *testing.T) {
	help := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^ {2}(?:-(\w), |    )--([\w-]+)`).FindAllStringSubmatch(usage, -1) {
		help[m[2]] = m[1]
	}
	compareFlags(t, "--help", help)

	page, err := os.ReadFile("../../docs/tcptrace.8")
	if err != nil {
		t.Fatal(err)
	}
	manual := make(map[string]string)
	for _, m := range regexp.MustCompile(`(?m)^\.It (?:Fl (\w) , )?Fl -([\w-]+)`).FindAllStringSubmatch(string(page), -1) {
		manual[m[2]] = m[1]
	}
	compareFlags(t, "the manual page", manual)
}

func TestUsageFits(t *testing.T) {
	for line := range strings.Lines(usage) {
		if len(line) > 81 || strings.Contains(line, "\t") {
			t.Errorf("more than 80 columns: %s", line)
		}
	}
}

// A filter that the header line forgot would make a recording lie about itself.
func TestFilterFlagsInHeader(t *testing.T) {
	known := definedFlags()
	for _, name := range filterFlags {
		if _, ok := known[name]; !ok {
			t.Errorf("--%s does not exist", name)
		}
	}
	section := usage[strings.Index(usage, "Which connections:"):strings.Index(usage, "When to end:")]
	for _, m := range regexp.MustCompile(`--([\w-]+) `).FindAllStringSubmatch(section, -1) {
		if !slices.Contains(filterFlags, m[1]) {
			t.Errorf("the header does not tell of --%s", m[1])
		}
	}
}
