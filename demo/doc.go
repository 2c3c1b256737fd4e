//go:build linux

// Command demo shows tcptrace at work on a leak: a server that never closes its
// connections, and a client that does, in a network namespace of their own.
//
// The namespace has no name and lives as long as its processes, and these die with
// the demo: there is nothing to clean up, however it ends.
package main
