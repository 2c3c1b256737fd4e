// Tcptrace shows the state changes of all TCP connections of the machine as they
// happen, with true times, owners, and who closed first.
package main

import (
	"context"
	"os"
)

func main() {
	err := run(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	os.Exit(report(os.Stderr, err))
}
