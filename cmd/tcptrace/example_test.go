package main

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"
	"time"
)

// The recording that newcomers begin with is read without privileges, and shows the
// leak that is in it.
func TestExample(t *testing.T) {
	const file = "../../examples/close-wait-leak.zst"
	local := time.Local
	time.Local = time.UTC
	defer func() { time.Local = local }()
	for name, args := range map[string]string{
		"example-watch.txt":    "--watch close_wait --once",
		"example-summary.txt":  "--summary",
		"example-remote.txt":   "--summary --by remote",
		"example-summary.json": "--summary -o json",
	} {
		t.Run(name, func(t *testing.T) {
			var stdout, stderr bytes.Buffer
			args := append([]string{"-r", file}, strings.Fields(args)...)
			if err := run(context.Background(), args, strings.NewReader(""), &stdout, &stderr); err != nil || stderr.Len() > 0 {
				t.Fatalf("%v; stderr: %s", err, &stderr)
			}
			golden(t, name, stdout.String())
		})
	}
	st, err := os.Stat(file)
	if err != nil {
		t.Fatal(err)
	}
	if st.Size() > 16<<10 {
		t.Errorf("%d bytes: too much for an example", st.Size())
	}
}
