//go:build linux

// Command vmtest runs programs and tests in virtual machines with stock Debian
// kernels. The same static binary is the guest's init.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/tcptrace/tcptrace/vmtest/internal/guest"
)

func main() {
	if guest.Wanted() {
		guest.Run()
	}
	// Caught, not ignored: QEMU would inherit that. A reader of ours that went
	// away is an error of the write then, and machines end in good order.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	err := run(ctx, os.Args[1:], os.Stdout, os.Stderr)
	stop()
	os.Exit(status(err, os.Stderr))
}

// status turns run's error into an exit status, and says what has not been said.
func status(err error, stderr io.Writer) int {
	var exit exitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return int(exit)
	case !errors.Is(err, syscall.EPIPE):
		fmt.Fprintf(stderr, "vmtest: error: %v\n", err)
	}
	return 1
}

// exitError ends vmtest with this status and no message: the message has been
// given.
type exitError int

func (e exitError) Error() string { return fmt.Sprintf("exit status %d", int(e)) }

const usage = `Run programs and tests in virtual machines with stock Debian kernels.

usage: vmtest -kernel SERIES|PATH [flags] -- PROGRAM [ARG...]
       vmtest matrix [flags] PACKAGE...
       vmtest fetch [flags]

The first form runs one static program; its output and exit status are passed
through. It serves as go test's -exec. The second builds the packages' tests
and runs them in one machine for each kernel. The third fetches kernels.

A kernel is a series (6.12), "newest", or the path of a vmlinuz. The kernels of
series come from the Debian mirror that apt is configured with, and are kept
under XDG_CACHE_HOME.

environment:
  VMTEST_ACCEL            kvm or tcg, instead of what the machine suggests
  VMTEST_MIRROR           root of a Debian mirror, where apt knows none
  VMTEST_SECURITY_MIRROR  the same for debian-security

examples:
  vmtest -kernel 6.12 -- ./tcptrace --features
  CGO_ENABLED=0 go test -exec 'go tool vmtest -kernel 6.12 --' ./internal/tracer
  vmtest matrix -kernels 5.10,newest -run TestTimeWait -extra ./cmd/tcptrace ./e2e

vmtest -h, vmtest matrix -h and vmtest fetch -h list the flags.
`

// run is the host's side.
func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	if len(args) == 0 {
		fmt.Fprint(stderr, usage)
		return exitError(2)
	}
	switch args[0] {
	case "matrix":
		return runMatrix(ctx, args[1:], stdout, stderr)
	case "fetch":
		return runFetch(ctx, args[1:], stdout, stderr)
	}
	return runProgram(ctx, args, stdout, stderr)
}
