//go:build !linux

package main

import (
	"context"

	"github.com/tcptrace/tcptrace/internal/hint"
)

var errNotLinux = hint.New("this system cannot be traced", "run tcptrace on Linux")

func runStream(context.Context, *options, stdio) error { return errNotLinux }

func runWatch(context.Context, *options, stdio) error { return errNotLinux }

func showFeatures(*options, stdio) error { return errNotLinux }

func cgroupMount() string { return "" }
