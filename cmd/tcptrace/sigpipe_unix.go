//go:build unix

package main

import (
	"os"
	"os/signal"
	"syscall"
)

// takeSIGPIPE makes a write to a closed stdout return EPIPE instead of ending the
// program. The signal is taken, not ignored: a command would inherit that.
func takeSIGPIPE() {
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
}
