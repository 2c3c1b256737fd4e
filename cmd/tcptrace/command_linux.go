package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"github.com/tcptrace/tcptrace/internal/cgroup"
)

// findCommand returns the file to execute as execvp(3) and shells find it, or an
// error with the status that shells give: 127 for not found, 126 for found and
// not executable.
func findCommand(name string) (string, error) {
	if strings.Contains(name, "/") {
		return name, executable(name, name)
	}
	var denied error
	for _, dir := range filepath.SplitList(os.Getenv("PATH")) {
		if dir == "" {
			dir = "."
		}
		path := filepath.Join(dir, name)
		if dir == "." {
			path = "./" + name
		}
		err := executable(path, name)
		if err == nil {
			return path, nil
		}
		if e, ok := err.(*statusError); ok && e.status == exitNotExecutable && denied == nil {
			denied = err
		}
	}
	if denied != nil {
		return "", denied
	}
	return "", &statusError{status: exitNotFound, err: fmt.Errorf("%s: command not found", name)}
}

// executable returns an error unless path is a file that may be executed.
func executable(path, name string) error {
	st, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ENOTDIR):
		return &statusError{status: exitNotFound, err: fmt.Errorf("%s: command not found", name)}
	case err != nil:
		return &statusError{status: exitNotExecutable, err: fmt.Errorf("%s: %w", name, err)}
	case st.IsDir():
		return &statusError{status: exitNotExecutable, err: fmt.Errorf("%s: is a directory", name)}
	case unix.Access(path, unix.X_OK) != nil:
		return &statusError{status: exitNotExecutable, err: fmt.Errorf("%s: permission denied", name)}
	}
	return nil
}

// command is the command that is traced.
type command struct {
	program string
	args    []string
	std     stdio

	child  *cgroup.Child // nil: none could be made
	ended  chan struct{} // closed when the command has ended
	status int           // valid then
	tty    bool          // the terminal sends its signals to the command too

	mu      sync.Mutex  // guards process
	process *os.Process // nil: not started

	scope commandScope
}

// newCommand prepares to run program.
func newCommand(program string, args []string, std stdio) *command {
	c := &command{
		program: program, args: args, std: std,
		ended: make(chan struct{}),
	}
	if in, ok := std.in.(*os.File); ok {
		c.tty = term.IsTerminal(int(in.Fd()))
	}
	mount, err := cgroup.Mount()
	if err == nil {
		c.child, err = cgroup.NewChild(mount, fmt.Sprintf("tcptrace-%d", os.Getpid()))
	}
	if err == nil {
		c.scope.group, c.scope.path = c.child.ID, c.child.Path
	} else {
		warn(std.err, fmt.Sprintf("no cgroup for the command (%v): a connection whose owner is not known cannot be told to be the command's", err))
	}
	return c
}

// close removes what newCommand made.
func (c *command) close() {
	if c.child != nil {
		if err := c.child.Close(); err != nil {
			warn(c.std.err, err.Error())
		}
		c.child = nil
	}
}

// start starts the command; ended is called when it has ended.
func (c *command) start(ended func()) error {
	cmd := &exec.Cmd{Path: c.program, Args: c.args, Stdin: c.std.in, Stdout: c.std.out, Stderr: c.std.err}
	if c.child != nil {
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: c.child.FD()}
	}
	if err := cmd.Start(); err != nil {
		status := exitNotExecutable
		if errors.Is(err, fs.ErrNotExist) { // an interpreter that is missing
			status = exitNotFound
		}
		return &statusError{status: status, err: fmt.Errorf("%s: %w", c.args[0], errnoOf(err))}
	}
	c.mu.Lock()
	c.process = cmd.Process
	c.mu.Unlock()
	go c.reap(cmd, ended)
	return nil
}

// errnoOf takes the path off an error that names the command already.
func errnoOf(err error) error {
	var path *fs.PathError
	if errors.As(err, &path) {
		return path.Err
	}
	return err
}

// reap waits for the command.
func (c *command) reap(cmd *exec.Cmd, ended func()) {
	// An error of Wait's own cannot come from copying: the streams are files.
	_ = cmd.Wait()
	c.status = exitFailure
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); ok {
		if ws.Exited() {
			c.status = ws.ExitStatus()
		} else {
			c.status = exitSignal + int(ws.Signal())
		}
	}
	close(c.ended)
	ended()
}

// wait waits for the command and returns its status as a shell does: 128 and the
// signal's number where one killed it.
func (c *command) wait() int {
	<-c.ended
	return c.status
}

// started reports whether the command was started.
func (c *command) started() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.process != nil
}

// signal passes a signal on. It returns false before the start of the command.
func (c *command) signal(sig unix.Signal) bool {
	if !c.started() {
		return false
	}
	if c.tty && (sig == unix.SIGINT || sig == unix.SIGQUIT) {
		return true // it is in the foreground of the terminal as we are, and has it already
	}
	c.process.Signal(sig) // the error says that it has ended
	return true
}

// finishCommand waits for the command, if there is one, and returns how the program
// ends: with an error of the trace, or with the command's status.
func finishCommand(cmd *command, err error, std stdio) error {
	if cmd == nil || (err != nil && !cmd.started()) {
		return err
	}
	if !cmd.started() {
		return errors.New("ended before the command was started")
	}
	// The command goes on to its end, whatever became of the trace.
	if err != nil {
		complain(std.err, err)
	}
	status := cmd.wait()
	switch {
	case err != nil:
		return &statusError{status: exitFailure}
	case status != 0:
		return &statusError{status: status}
	default:
		return nil
	}
}
