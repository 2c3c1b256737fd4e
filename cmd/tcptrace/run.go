package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"runtime/debug"
	"syscall"

	"github.com/spf13/pflag"
)

// version is set by the linker (-X main.version=...).
var version = ""

// stdio is what run was given to talk through.
type stdio struct {
	in  io.Reader
	out io.Writer // data
	err io.Writer // talk
}

// run is the program: it parses args and does what they say. report turns its
// error into messages and an exit status.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) error {
	takeSIGPIPE()
	std := stdio{in: stdin, out: stdout, err: stderr}
	opt, err := parseOptions(args)
	switch {
	case errors.Is(err, pflag.ErrHelp):
		_, err := io.WriteString(stdout, usage)
		return quietly(err)
	case err != nil:
		return err
	case opt.version:
		_, err := fmt.Fprintf(stdout, "tcptrace %s\n", versionText())
		return quietly(err)
	case opt.features:
		return showFeatures(opt, std)
	}
	limitHeap()
	switch {
	case opt.read != "":
		return runReplay(ctx, opt, std)
	}
	if err := opt.limitConns(""); err != nil {
		return err
	}
	switch {
	case opt.watch != 0:
		return runWatch(ctx, opt, std)
	default:
		return runStream(ctx, opt, std)
	}
}

// quietly drops the error of a reader that has seen enough, such as head(1).
func quietly(err error) error {
	if errors.Is(err, syscall.EPIPE) {
		return nil
	}
	return err
}

// versionText returns the version that the linker set, or the module's.
func versionText() string {
	if version != "" {
		return version
	}
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown)"
}
