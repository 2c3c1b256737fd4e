// Package advice owns what tcptrace tells people to do: rules that look at the
// measured numbers of a run (Facts) and say what to change, what that costs, and
// where it is written.
//
// A rule speaks only where a number crosses its threshold, and never about what is
// not known. It is a pure function: no clock, no I/O. docs/advice.md is made from
// the rules.
package advice
