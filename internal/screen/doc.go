// Package screen owns the live screen of --watch: it shows one watch.Snapshot
// after another on a terminal, and lets its reader sort, filter, pause and look
// into a process. It computes nothing about sockets: what it says is in the
// snapshot.
//
// It stands on bubbletea v2, for these reasons. The terminal is restored in one
// place, after a panic and a signal too. The renderer compares cells and sends
// what changed, so a refresh over a slow line costs little and does not flicker;
// it reads window sizes and keys under every keyboard protocol in use. Colours
// are reduced to what the terminal has, down to none, while bold and reverse
// stay. And the model is a function of messages: it can be driven in a test
// without a terminal. Its list widgets are not used: they render every row, while
// here a view costs what is visible, whether the list has ten rows or 100,000.
//
// Nothing is told by colour alone, and the frame is plain ASCII. Every text that
// a process can choose goes through render.Escape.
package screen
