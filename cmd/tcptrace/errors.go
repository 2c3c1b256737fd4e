package main

import (
	"fmt"
	"io"
	"strings"

	"github.com/tcptrace/tcptrace/internal/hint"
	"github.com/tcptrace/tcptrace/internal/render"
)

// Exit statuses. A command's own status is passed through.
const (
	exitFailure       = 1
	exitUsage         = 2
	exitLeak          = 3 // --fail-on
	exitNotExecutable = 126
	exitNotFound      = 127
	exitSignal        = 128 // plus the signal's number
)

// statusError ends the program with a status of its own. Without Err there is
// nothing to say.
type statusError struct {
	status int
	err    error
}

func (e *statusError) Error() string {
	if e.err == nil {
		return fmt.Sprintf("exit status %d", e.status)
	}
	return e.err.Error()
}

func (e *statusError) Unwrap() error { return e.err }

// usageErrorf returns an error about how the program was called.
func usageErrorf(format string, args ...any) error {
	return &statusError{
		status: exitUsage,
		err:    hint.Wrap(fmt.Errorf(format, args...), "tcptrace --help lists the flags"),
	}
}

// report tells the user about err and returns the exit status.
func report(stderr io.Writer, err error) int {
	if err == nil {
		return 0
	}
	status := exitFailure
	if e, ok := err.(*statusError); ok {
		status = e.status
		err = e.err
	}
	complain(stderr, err)
	return status
}

// complain writes an error and what to do about it. Texts may hold what a process
// or a file name chose.
func complain(stderr io.Writer, err error) {
	if err == nil {
		return
	}
	fmt.Fprintf(stderr, "tcptrace: error: %s\n", escapeMessage(err.Error()))
	if h := hint.Of(err); h != "" {
		fmt.Fprintf(stderr, "tcptrace: hint: %s\n", escapeMessage(h))
	}
}

// warn writes what the user should know though the program goes on.
func warn(stderr io.Writer, text string) {
	fmt.Fprintf(stderr, "tcptrace: warning: %s\n", escapeMessage(text))
}

// escapeMessage escapes a message, which is quoted already where it holds a
// backslash: those stay as they are.
func escapeMessage(text string) string {
	parts := strings.Split(text, `\`)
	for i, part := range parts {
		parts[i] = render.Escape(part)
	}
	return strings.Join(parts, `\`)
}
