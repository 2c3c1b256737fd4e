package kernel

import (
	"reflect"
	"strings"
	"testing"
)

func TestCompareVersions(t *testing.T) {
	// In rising order, by deb-version(7).
	list := []string{
		"5.10.9-1", "5.10.46-1", "5.10.262-1", "6.1.192-1~deb11u1", "6.1.192-1", "6.1.192-2",
		"6.12~rc7-1", "6.12.9-1", "6.12.117-1~deb12u1", "6.12.117-1", "6.12.117-1+b1", "6.12.117a-1", "7.2.13-1", "1:1.0-1",
	}
	for i, a := range list {
		for j, b := range list {
			got := compareVersions(a, b)
			if want := map[bool]int{true: -1, false: 1}[i < j]; i != j && got != want || i == j && got != 0 {
				t.Errorf("%s against %s: got %d", a, b, got)
			}
		}
	}
}

// stanzas as apt-cache show prints them: 7.2 is split, 6.18 is a meta-package,
// 6.12 has two versions and a backport.
const index = `Package: linux-image-6.12.117+deb13-cloud-amd64
Version: 6.12.117-1
Architecture: amd64
Description: Linux 6.12 for x86-64 cloud (signed)
 Size: 12
 The Linux kernel.
Size: 34671208

Package: linux-image-6.12.117+deb12-cloud-amd64
Architecture: amd64
Version: 6.12.117-1~deb12u1
Size: 34671209

Package: linux-image-6.12.107+deb13-cloud-amd64
Architecture: amd64
Version: 6.12.107-1
Size: 34671210

Package: linux-image-6.1-cloud-amd64
Architecture: amd64
Version: 6.1.192-2
Size: 1500

Package: linux-image-6.1.0-56-cloud-amd64
Architecture: amd64
Version: 6.1.192-2
Size: 30000000

Package: linux-image-7.2.13+deb14-cloud-amd64
Architecture: amd64
Version: 7.2.13-1
Size: 1916

Package: linux-binary-7.2.13+deb14-cloud-amd64
Architecture: amd64
Version: 7.2.13-1
Size: 13717736

Package: linux-binary-unsigned-7.3.4+deb14-cloud-amd64
Architecture: amd64
Version: 7.3.4-1
Size: 13717736

Package: linux-modules-7.2.13+deb14-cloud-amd64
Architecture: amd64
Version: 7.2.13-1
Size: 23451956

Package: linux-image-6.16.3+deb13-cloud-arm64
Architecture: arm64
Version: 6.16.3-1
Size: 34671208
`

func TestFindOffers(t *testing.T) {
	packages, err := parseStanzas([]byte(index))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := len(packages), strings.Count(index, "Package: "); got != want {
		t.Fatalf("got %d packages, want %d", got, want)
	}
	offers := findOffers("amd64", packages)
	want := map[string]offer{
		"6.1":  {Series: "6.1", Release: "6.1.0-56-cloud-amd64", Package: "linux-image-6.1.0-56-cloud-amd64", Version: "6.1.192-2"},
		"6.12": {Series: "6.12", Release: "6.12.117+deb13-cloud-amd64", Package: "linux-image-6.12.117+deb13-cloud-amd64", Version: "6.12.117-1"},
		"7.2": {Series: "7.2", Release: "7.2.13+deb14-cloud-amd64", Package: "linux-binary-7.2.13+deb14-cloud-amd64", Version: "7.2.13-1",
			Modules: "linux-modules-7.2.13+deb14-cloud-amd64"},
	}
	if !reflect.DeepEqual(offers, want) {
		t.Errorf("got  %+v\nwant %+v", offers, want)
	}
	if o, ok := newestOffer(offers); !ok || o.Series != "7.2" {
		t.Errorf("newest: got %q, want 7.2", o.Series)
	}
	for series, want := range map[string]string{"5.10": "6.1", "6.1": "6.12", "6.9": "6.12", "6.18": "7.2", "7.2": ""} {
		if o, ok := nextOffer(offers, series); o.Series != want || ok != (want != "") {
			t.Errorf("after %s: got %q, want %q", series, o.Series, want)
		}
	}
	if _, err := parseStanzas([]byte("Package: x\nSize: big\n")); err == nil {
		t.Error("size that is no number: no error")
	}
}
