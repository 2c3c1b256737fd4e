//go:build linux

package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"strings"
)

// defaultKernels is the matrix: the oldest that is supported, Debian's stable
// ones, and what comes.
const defaultKernels = "5.10,6.1,6.12,newest"

// runFetch is the form that brings the cache up to date.
func runFetch(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	fl := flag.NewFlagSet("fetch", flag.ContinueOnError)
	kernels := fl.String("kernels", defaultKernels, "comma list of `series`")
	arch := fl.String("arch", hostArch, "architecture")
	if err := parse(fl, args, "fetch [flags]", stdout, stderr); err != nil {
		return err
	}
	if fl.NArg() > 0 {
		return usageError(stderr, "fetch takes no arguments: got %q", fl.Args())
	}
	store, err := openStore(*arch, func(s string) { fmt.Fprintf(stderr, "vmtest: %s\n", s) })
	if err != nil {
		return err
	}
	list, err := store.Get(ctx, splitList(*kernels), true)
	if err != nil {
		return err
	}
	for _, k := range list {
		if _, err := fmt.Fprintf(stdout, "%-8s %-32s %s %s\n", k.Asked, k.Release, k.SHA256, k.Image); err != nil {
			return err
		}
	}
	return nil
}

// splitList splits a comma list; empty entries do not count.
func splitList(s string) []string {
	var list []string
	for part := range strings.SplitSeq(s, ",") {
		if part = strings.TrimSpace(part); part != "" {
			list = append(list, part)
		}
	}
	return list
}
