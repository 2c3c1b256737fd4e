package main

import (
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// handleSignals makes SIGINT and SIGTERM the normal end of a trace; the second
// one ends the program at once, in the way of the signal.
//
// With a command they are the command's: it gets what we get, and the trace ends
// when it does. Before it is started they end the trace, and it is not started.
func handleSignals(cmd *command, cancel func()) (stop func()) {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, unix.SIGINT, unix.SIGTERM)
	if cmd != nil {
		signal.Notify(signals, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	}
	done := make(chan struct{})
	go func() {
		ending := false
		for {
			select {
			case <-done:
				return
			case sig := <-signals:
				switch {
				case cmd != nil && cmd.signal(sig.(unix.Signal)):
				case ending:
					signal.Reset(sig)
					unix.Kill(unix.Getpid(), sig.(unix.Signal))
				default:
					ending = true
					cancel()
				}
			}
		}
	}()
	return func() {
		// What asks for the end while the end is under way must not turn it into
		// a death by signal.
		signal.Ignore(unix.SIGINT, unix.SIGTERM)
		signal.Stop(signals)
		close(done)
	}
}
