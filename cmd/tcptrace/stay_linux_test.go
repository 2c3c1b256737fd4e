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

// stay is a program of the scripts: it keeps n connections in CLOSE_WAIT for a time,
// drained, closes them and exits with a status.
func stay() {
	status, err := makeStay(os.Args[1:])
	if err != nil {
		fmt.Fprintln(os.Stderr, "stay:", err)
		os.Exit(99)
	}
	os.Exit(status)
}

func makeStay(args []string) (status int, err error) {
	if len(args) != 3 {
		return 0, errors.New("want a number, a time and a status")
	}
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return 0, err
	}
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return 0, err
	}
	if status, err = strconv.Atoi(args[2]); err != nil {
		return 0, err
	}
	if err := raiseLoopback(); err != nil {
		return 0, err
	}
	var config net.ListenConfig
	config.SetMultipathTCP(false)
	listener, err := config.Listen(context.Background(), "tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer listener.Close()
	for range n {
		client, err := net.Dial("tcp4", listener.Addr().String())
		if err != nil {
			return 0, err
		}
		server, err := listener.Accept()
		if err != nil {
			return 0, err
		}
		defer server.Close()
		if err := client.Close(); err != nil {
			return 0, err
		}
		if _, err := io.Copy(io.Discard, server); err != nil {
			return 0, err
		}
	}
	time.Sleep(d) // the time that is measured
	return status, nil
}
