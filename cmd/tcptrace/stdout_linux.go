package main

import (
	"context"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// watchStdout calls gone when the reader of a pipe or socket goes away. A write
// would find that out too, but on a quiet machine there is none.
func watchStdout(ctx context.Context, stdout io.Writer, gone func()) {
	f, ok := stdout.(*os.File)
	if !ok {
		return
	}
	st, err := f.Stat()
	if err != nil || st.Mode()&(os.ModeNamedPipe|os.ModeSocket) == 0 {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		return // the next write will tell
	}
	context.AfterFunc(ctx, func() { w.Close() })
	go func() {
		defer r.Close()
		// Without requested events, poll(2) reports errors and hangups only.
		fds := []unix.PollFd{{Fd: int32(f.Fd())}, {Fd: int32(r.Fd())}}
		for {
			if _, err := unix.Poll(fds, -1); err != nil && err != unix.EINTR {
				return
			}
			if fds[1].Revents != 0 {
				return
			}
			if fds[0].Revents != 0 {
				gone()
				return
			}
		}
	}()
}
