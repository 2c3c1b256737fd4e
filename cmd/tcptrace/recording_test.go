package main

import (
	"reflect"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/watch"
)

func TestRecordFlags(t *testing.T) {
	for args, quiet := range map[string]bool{
		"-w f": true, "-w f -o json": false, "-w f -o text": false, "-w f --watch all": false, "-w -": true,
	} {
		opt, err := parseOptions(strings.Fields(args))
		if err != nil {
			t.Errorf("%s: %v", args, err)
		} else if opt.quiet != quiet {
			t.Errorf("%s: quiet is %v", args, opt.quiet)
		}
	}
	for args, want := range map[string]string{
		"-w - -o json":              "-w - and -o contradict",
		"-w - --watch all":          "-w - and --watch contradict",
		"-r f -w g":                 "-r and --write contradict",
		"-r f --hooks poll":         "-r and --hooks contradict",
		"-r f --duration 1s":        "-r and --duration contradict",
		"-r f --ready-file g":       "-r and --ready-file contradict",
		"-r f -- true":              "-r and a command contradict",
		"--features -w f":           "--features and --write contradict",
		"--write=":                  "path of a file",
		"-r f --features --version": "-r and --features contradict",
	} {
		if _, err := parseOptions(strings.Fields(args)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", args, err, want)
		}
	}
}

func TestRecordedProcess(t *testing.T) {
	for _, want := range []watch.Process{
		{},
		{UID: -1, NofileSoft: -1, OpenFDs: -1, StartTS: -1},
		{
			Comm: "ng\xffinx", PPID: 1<<32 - 1, UID: 1<<32 - 2, NofileSoft: 1 << 40, OpenFDs: 7, StartTS: -5,
			Unit: watch.Unit{Kind: "systemd", Name: "nginx.service", Path: "/system.slice/nginx.service"}, Cmdline: []string{"nginx", "", "-g"},
		},
	} {
		got, err := decodeProcess(encodeProcess(&want))
		if err != nil || !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v, %v, want %+v", got, err, want)
		}
	}
	for _, text := range []string{"x", strings.Repeat("\x00", 8), strings.Replace(encodeProcess(&watch.Process{}), "0", "4294967296", 1)} {
		if got, err := decodeProcess(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}

func TestRecordedPorts(t *testing.T) {
	want := watch.PortRange{PortSpan: watch.PortSpan{Low: 32768, High: 60999}, Reserved: []watch.PortSpan{{Low: 33000, High: 33000}, {Low: 40000, High: 65535}}}
	got, err := decodePorts(encodePorts(want))
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v, %v, want %+v", got, err, want)
	}
	for _, text := range []string{"1", "1-", "-", "1-65536", "1-2,", "1-2,x-3"} {
		if got, err := decodePorts(text); err == nil {
			t.Errorf("%q: got %+v", text, got)
		}
	}
}
