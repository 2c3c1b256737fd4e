package filter

import (
	"slices"
	"strings"
	"testing"
)

func TestParsePorts(t *testing.T) {
	for _, tc := range []struct {
		list string
		want Ports
	}{
		{"80", Ports{{80, 80}}},
		{"1", Ports{{1, 1}}},
		{"65535", Ports{{65535, 65535}}},
		{"8000-8100", Ports{{8000, 8100}}},
		{"443,80", Ports{{80, 80}, {443, 443}}},
		{" 80 , 443 ", Ports{{80, 80}, {443, 443}}},
		{"80-82,81-90,91", Ports{{80, 91}}},
		{"80,80", Ports{{80, 80}}},
		{"1-65535,7", Ports{{1, 65535}}},
		{"5-5", Ports{{5, 5}}},
	} {
		got, err := ParsePorts(tc.list)
		if err != nil || !slices.Equal(got, tc.want) {
			t.Errorf("%q: got %v, %v, want %v", tc.list, got, err, tc.want)
		}
	}
	for _, list := range []string{"", ",", "80,", "0", "65536", "-1", "1-", "-", "90-80", "http", "80-90-100", "+80", "8 0", "0-5", "0x50"} {
		got, err := ParsePorts(list)
		if err == nil || got != nil {
			t.Errorf("%q: got %v, %v, want an error alone", list, got, err)
		} else if !strings.Contains(err.Error(), acceptedPorts) {
			t.Errorf("%q: %v does not say what is accepted", list, err)
		}
	}
}

func TestPortsHas(t *testing.T) {
	p, err := ParsePorts("80,443,8000-8100,65535")
	if err != nil {
		t.Fatal(err)
	}
	for port, want := range map[uint16]bool{
		0: false, 79: false, 80: true, 81: false, 443: true, 7999: false,
		8000: true, 8050: true, 8100: true, 8101: false, 65534: false, 65535: true,
	} {
		if p.Has(port) != want {
			t.Errorf("Has(%d) = %v", port, !want)
		}
	}
	if !Ports(nil).Has(0) || !Ports(nil).Has(65535) {
		t.Error("nil is not every port")
	}
}

func FuzzParsePorts(f *testing.F) {
	for _, s := range []string{"80", "80,443", "8000-8100", "1-65535", "0", "-", "9-8"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, list string) {
		p, err := ParsePorts(list)
		if err != nil {
			if p != nil {
				t.Fatal("a value beside the error")
			}
			return
		}
		if p.Has(0) || len(p) == 0 {
			t.Fatalf("%q: %v", list, p)
		}
		again, err := ParsePorts(p.String())
		if err != nil || !slices.Equal(again, p) {
			t.Fatalf("%q: %v became %v, %v", list, p, again, err)
		}
	})
}
