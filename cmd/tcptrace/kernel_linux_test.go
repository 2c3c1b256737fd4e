package main

import (
	"bytes"
	"net"
	"testing"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/facts"
	"github.com/tcptrace/tcptrace/internal/record"
	"github.com/tcptrace/tcptrace/internal/sysctl"
	"github.com/tcptrace/tcptrace/internal/testnet"
)

// What a namespace's counters grew by is told live and from a recording alike.
func TestKernelSpaces(t *testing.T) {
	before, unwanted := testnet.NewNS(t, "kernel"), testnet.NewNS(t, "kernel")
	live := newKernelSpaces([]uint32{before.Inode(), 7})
	after := testnet.NewNS(t, "kernel")
	for _, ns := range []*testnet.NS{before, unwanted, after} {
		err := ns.Do(func() error {
			if c, err := net.Dial("tcp4", "127.0.0.1:9"); err == nil {
				c.Close()
				t.Error("somebody listens on 127.0.0.1:9")
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := before.SetSysctl("ipv4/tcp_fin_timeout", "7"); err != nil {
		t.Fatal(err)
	}

	var file bytes.Buffer
	w, err := record.NewWriter(&file, &record.Meta{Header: events.Header{Schema: events.Schema}})
	if err != nil {
		t.Fatal(err)
	}
	rec := &recording{Writer: w}
	recorded := rec.kernel(live.of)
	check := func(name string, of func(uint32) (facts.Kernel, bool)) {
		k, ok := of(before.Inode())
		if grew := sysctl.Growth(k.Start, k.End)["OutSegs"]; !ok || grew != 2 || k.Name != before.Name() || k.End.Sysctls["net.ipv4.tcp_fin_timeout"] != "7" {
			t.Errorf("%s: got %+v, OutSegs grew by %d: want 2, a SYN and an RST", name, k, grew)
		}
		for _, ns := range []*testnet.NS{unwanted, after} {
			k, ok := of(ns.Inode())
			if grew, known := sysctl.Growth(k.Start, k.End)["OutSegs"]; !ok || known {
				t.Errorf("%s: nobody looked at the start: got %+v, OutSegs grew by %d", name, k, grew)
			}
		}
		if k, ok := of(7); ok {
			t.Errorf("%s: no such namespace: got %+v", name, k)
		}
	}
	check("live", recorded)
	if err := rec.Close(); err != nil {
		t.Fatal(err)
	}
	r, err := record.NewReader(&file)
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	for {
		if _, err := r.Next(); err != nil {
			break
		}
	}
	asked := &replayedProcesses{p: &replay{Reader: r}}
	check("replay", asked.kernel)
	if asked.err != nil {
		t.Error(asked.err)
	}
}
