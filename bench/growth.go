//go:build linux

package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/record"
)

// sizes of the table, of which the machine could not hold the largest.
var sizes = []int{1_000, 10_000, 100_000, 1_000_000}

// growth replays made-up recordings in which so many connections are opened and stay:
// the table holds all of them at the end. The same without any is subtracted.
func (b *bench) growth() error {
	type result struct{ cpu, rss, perConn, perRecord sample }
	all := make([]result, len(sizes))
	var empty struct{ cpu, rss sample }
	path := filepath.Join(b.dir, "growth.rec")
	runs := max(1, b.pairs/2)
	for range runs {
		if err := writeOpened(path, 0); err != nil {
			return err
		}
		u, rss, err := b.replay(path)
		if err != nil {
			return err
		}
		empty.cpu, empty.rss = append(empty.cpu, u), append(empty.rss, rss)
	}
	for i, n := range sizes {
		if err := writeOpened(path, n); err != nil {
			return err
		}
		for range runs {
			u, rss, err := b.replay(path)
			if err != nil {
				return err
			}
			r := &all[i]
			r.cpu = append(r.cpu, (u-empty.cpu.median())*1e3)
			r.rss = append(r.rss, rss/(1<<20))
			r.perConn = append(r.perConn, (rss-empty.rss.median())/float64(n))
			r.perRecord = append(r.perRecord, (u-empty.cpu.median())*1e9/float64(n*recordsOpened))
		}
	}
	const part = "growth"
	name := func(n int) string { return fmt.Sprintf("%d connections", n) }
	curves := make([]curve, 2)
	curves[0].title, curves[1].title = "memory (RSS), MiB", "CPU time of the replay, ms"
	for i, n := range sizes {
		b.add(part, "memory (greatest RSS)", name(n), "MiB", 1, all[i].rss, none, false)
		curves[0].add(float64(n), all[i].rss.median())
	}
	for i, n := range sizes {
		target := none
		if n >= 1_000_000 {
			target = 200
		}
		b.add(part, "memory for each connection, less that of an empty replay", name(n), "bytes", 0, all[i].perConn, target, false)
	}
	for i, n := range sizes {
		b.add(part, "CPU time of the replay", name(n), "ms", 1, all[i].cpu, none, false)
		curves[1].add(float64(n), all[i].cpu.median())
	}
	for i, n := range sizes {
		b.add(part, "CPU time for each record", name(n), "ns", 0, all[i].perRecord, none, false)
	}
	if err := os.MkdirAll(b.results, 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(b.results, "growth.svg"), drawCurves(curves), 0o644)
}

// replay reads a recording into the table and shows none of it; it returns seconds of
// CPU and the greatest RSS in bytes.
func (b *bench) replay(path string) (seconds, rss float64, err error) {
	cmd := command(b.tcptrace, "-r", path, "--state", "listen")
	var talk strings.Builder
	cmd.Stderr = &talk
	if err := cmd.Run(); err != nil {
		return 0, 0, fmt.Errorf("replay: %w: %s", err, talk.String())
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	return (cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()).Seconds(), float64(usage.Maxrss << 10), nil
}

const recordsOpened = 3

// writeOpened writes a recording of n outgoing connections that stay open, as the
// hooks tell them.
func writeOpened(path string, n int) error {
	w, err := record.Create(path, &record.Meta{Header: events.Header{
		Schema: events.Schema, Version: "bench", Kernel: "none", Hooks: "fentry", TS: 1,
	}})
	if err != nil {
		return err
	}
	defer w.Abort()
	ts := int64(1)
	for i := range uint64(n) {
		var local [4]byte
		binary.BigEndian.PutUint32(local[:], 10<<24|uint32(i/28_000))
		from := netip.AddrFrom4(local)
		r := events.Record{
			SK: 0xffff888000000000 + i*2304, Cookie: i + 1, CgroupID: 77, UID: 1000, NetNS: 4026531840, Family: 4,
			Local: netip.AddrPortFrom(from, 0), Remote: netip.MustParseAddrPort("10.255.0.1:443"),
			Kind: events.KindTransition, Old: events.Close, New: events.SynSent,
			PID: uint32(100 + i%64), Comm: "client", Flags: events.FlagActor | events.FlagHasSocket,
		}
		for step := range recordsOpened {
			r.TS = ts
			ts += 10_000
			switch step {
			case 1:
				r.Kind, r.Old, r.New = events.KindConnect, 0, 0
				r.Local = netip.AddrPortFrom(from, uint16(32_768+i%28_000))
			case 2:
				r.Kind, r.Old, r.New = events.KindTransition, events.SynSent, events.Established
				r.PID, r.Comm, r.Flags = 0, "", events.FlagHasSocket|events.FlagPendingKnown
			}
			w.Record(&r)
		}
		if i%1024 == 1023 {
			if err := w.EndBatch(); err != nil {
				return err
			}
		}
	}
	if err := w.EndBatch(); err != nil {
		return err
	}
	return w.Close()
}
