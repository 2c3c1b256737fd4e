// Package hint owns errors that say what to do about them.
package hint

import "errors"

// Error is an error with advice: what the user can do about it.
type Error struct {
	Err    error
	Advice string
}

// New returns an error with advice.
func New(text, advice string) error { return &Error{Err: errors.New(text), Advice: advice} }

// Wrap adds advice to err, or returns nil for nil.
func Wrap(err error, advice string) error {
	if err == nil {
		return nil
	}
	return &Error{Err: err, Advice: advice}
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Hint returns the advice.
func (e *Error) Hint() string { return e.Advice }

// Of returns the advice of the outermost error in err's chain that has one, or an
// empty text.
func Of(err error) string {
	var h interface{ Hint() string }
	if errors.As(err, &h) {
		return h.Hint()
	}
	return ""
}
