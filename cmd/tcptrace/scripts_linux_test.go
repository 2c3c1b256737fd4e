package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"tcptrace": main, "traffic": traffic, "leak": leak, "stay": stay})
}

// Each script is one subject of the command line. None needs more of the kernel
// than what every Linux has.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Getuid() == 0, nil
			}
			return false, nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){"quiet": quiet},
	})
}

// toldUnseen is said of what the kernel passed over, as 6.18 was seen to do in a timer's
// softirq of a virtual machine whose processors are overcommitted.
var toldUnseen = regexp.MustCompile(`^tcptrace: lost \d+ events \(\d+ in all\): the kernel ran no program for them\n$`)

// quiet demands that nothing was said on stderr but that.
func quiet(ts *testscript.TestScript, _ bool, _ []string) {
	for line := range strings.Lines(ts.ReadFile("stderr")) {
		if !toldUnseen.MatchString(line) {
			ts.Fatalf("stderr: %s", line)
		}
	}
}
