//go:build linux

package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
)

// Names that the children show in ps, ss and tcptrace; 8 bytes fit into the
// narrowest table.
const (
	serverName = "leakysrv"
	clientName = "client"
)

// setComm names the process: exec took the name from the file.
func setComm(name string) error {
	return os.WriteFile("/proc/self/comm", []byte(name), 0)
}

// plain is TCP alone: where the kernel has it, Go's listeners are MPTCP.
func plain() net.ListenConfig {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	return lc
}

// serve is the leaking server. It answers each connection and then forgets it: the
// descriptor stays open, and nobody reads from it again.
func serve(in io.Reader, out io.Writer) error {
	if err := setComm(serverName); err != nil {
		return err
	}
	var leaked []net.Conn
	commands := bufio.NewScanner(in)
	for commands.Scan() {
		lc := plain()
		l, err := lc.Listen(context.Background(), "tcp4", "127.0.0.1:8080")
		if err != nil {
			return err
		}
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				// Kept, or the garbage collector would close it.
				leaked = append(leaked, conn)
				if _, err := bufio.NewReader(conn).ReadString('\n'); err == nil {
					fmt.Fprintln(conn, "bye")
				}
			}
		}()
		fmt.Fprintln(out, l.Addr())
	}
	return commands.Err()
}

// talk is the client. It exchanges a line on each connection, and closes them all
// when it is asked to.
func talk(in io.Reader, out io.Writer) error {
	if err := setComm(clientName); err != nil {
		return err
	}
	var conns []net.Conn
	commands := bufio.NewScanner(in)
	for commands.Scan() {
		verb, addr, _ := strings.Cut(commands.Text(), " ")
		switch verb {
		case "connect":
			for range connections {
				conn, err := net.Dial("tcp4", addr)
				if err != nil {
					return err
				}
				if _, err := fmt.Fprintln(conn, "hello"); err != nil {
					return err
				}
				if _, err := bufio.NewReader(conn).ReadString('\n'); err != nil {
					return err
				}
				conns = append(conns, conn)
			}
		case "close":
			for _, conn := range conns {
				if err := conn.Close(); err != nil {
					return err
				}
			}
			conns = nil
		}
		fmt.Fprintln(out, "done")
	}
	return commands.Err()
}
