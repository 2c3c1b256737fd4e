// Package filter owns what the user wants to see: the values of the filter flags,
// parsed, and the exact decision about each line. The kernel side may leave out
// what cannot match, but only this package decides.
//
// Errors of the parsers name the value and what is accepted; the caller adds the
// flag.
package filter
