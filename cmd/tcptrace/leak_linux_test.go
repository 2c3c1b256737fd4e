package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"time"
)

// leak is a program of the scripts: of the connections that it makes to itself, all
// closed by their peers, it leaks n of each kind: drained, unread, with the FIN not
// looked at, and not accepted. It writes the file named by its second argument when
// they are there, and waits for its end.
func leak() {
	if err := makeLeaks(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "leak:", err)
		os.Exit(99)
	}
}

func makeLeaks(args []string) error {
	if len(args) != 2 {
		return errors.New("want a number and a file")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	if err := raiseLoopback(); err != nil {
		return err
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:8080")
	if err != nil {
		return err
	}
	backlog, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:8081")
	if err != nil {
		return err
	}
	var leaked []net.Conn
	for range n {
		for _, data := range []string{"", "12345", "nothing"} {
			client, err := net.Dial("tcp4", "127.0.0.1:8080")
			if err != nil {
				return err
			}
			server, err := listener.Accept()
			if err != nil {
				return err
			}
			leaked = append(leaked, server)
			if data == "12345" {
				if _, err := client.Write([]byte(data)); err != nil {
					return err
				}
			}
			if err := client.Close(); err != nil {
				return err
			}
			if data == "" {
				if _, err := io.Copy(io.Discard, server); err != nil {
					return err
				}
			}
		}
		client, err := net.Dial("tcp4", "127.0.0.1:8081")
		if err != nil {
			return err
		}
		if err := client.Close(); err != nil {
			return err
		}
	}
	if err := os.WriteFile(args[1], nil, 0o600); err != nil {
		return err
	}
	time.Sleep(time.Minute) // a script that fails does not end it
	for _, c := range leaked {
		c.Close()
	}
	listener.Close()
	return backlog.Close()
}
