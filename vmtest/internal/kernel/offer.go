package kernel

import (
	"bufio"
	"bytes"
	"cmp"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

// offer is a kernel package in the archive.
type offer struct {
	Series  string
	Release string // 6.12.117+deb13-cloud-amd64
	Package string
	Version string
	Modules string // package of its modules; empty: in the same package
}

// minSize tells a kernel from a meta-package: from 6.19 on linux-image is 2 kB
// that depend on linux-binary.
const minSize = 1 << 20

// stanza is what matters of a package's entry in the index.
type stanza struct {
	Package, Version, Architecture string
	Size                           int64
}

// parseStanzas reads the output of apt-cache show.
func parseStanzas(text []byte) ([]stanza, error) {
	var list []stanza
	var s stanza
	flush := func() {
		if s.Package != "" {
			list = append(list, s)
		}
		s = stanza{}
	}
	lines := bufio.NewScanner(bytes.NewReader(text))
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		if line == "" {
			flush()
			continue
		}
		key, value, ok := strings.Cut(line, ": ")
		if !ok || strings.HasPrefix(line, " ") {
			continue
		}
		switch key {
		case "Package":
			s.Package = value
		case "Version":
			s.Version = value
		case "Architecture":
			s.Architecture = value
		case "Size":
			n, err := strconv.ParseInt(value, 10, 64)
			if err != nil {
				return nil, fmt.Errorf("package %s: size %q", s.Package, value)
			}
			s.Size = n
		}
	}
	flush()
	return list, lines.Err()
}

// kernelName matches the packages that hold a kernel, signed where the
// architecture has signed ones.
func kernelName(arch string) *regexp.Regexp {
	return regexp.MustCompile(`^linux-(?:image|binary)-((\d+\.\d+)[.+~\-\w]*-cloud-` + regexp.QuoteMeta(arch) + `)$`)
}

// findOffers picks the kernels among packages, best version first kept: one for
// each series.
func findOffers(arch string, packages []stanza) map[string]offer {
	name := kernelName(arch)
	modules := make(map[string]bool)
	for _, p := range packages {
		if strings.HasPrefix(p.Package, "linux-modules-") {
			modules[p.Package] = true
		}
	}
	best := make(map[string]offer)
	for _, p := range packages {
		m := name.FindStringSubmatch(p.Package)
		if m == nil || p.Architecture != arch || p.Size < minSize {
			continue
		}
		o := offer{Release: m[1], Series: m[2], Package: p.Package, Version: p.Version}
		if strings.HasPrefix(p.Package, "linux-binary-") && modules["linux-modules-"+o.Release] {
			o.Modules = "linux-modules-" + o.Release
		}
		if old, ok := best[o.Series]; !ok || compareVersions(o.Version, old.Version) > 0 {
			best[o.Series] = o
		}
	}
	return best
}

// newestOffer returns the offer of the highest series.
func newestOffer(offers map[string]offer) (offer, bool) {
	var best offer
	for _, o := range offers {
		if best.Series == "" || compareSeries(o.Series, best.Series) > 0 {
			best = o
		}
	}
	return best, best.Series != ""
}

// nextOffer returns the offer of the lowest series above the given one.
func nextOffer(offers map[string]offer, series string) (offer, bool) {
	var best offer
	for _, o := range offers {
		if compareSeries(o.Series, series) > 0 && (best.Series == "" || compareSeries(o.Series, best.Series) < 0) {
			best = o
		}
	}
	return best, best.Series != ""
}

func compareSeries(a, b string) int {
	amajor, aminor, _ := strings.Cut(a, ".")
	bmajor, bminor, _ := strings.Cut(b, ".")
	return cmp.Or(compareDigits(amajor, bmajor), compareDigits(aminor, bminor))
}

// compareVersions orders package versions as dpkg does (deb-version(7)).
func compareVersions(a, b string) int {
	split := func(v string) (epoch, upstream, revision string) {
		if e, rest, ok := strings.Cut(v, ":"); ok {
			epoch, v = e, rest
		}
		if i := strings.LastIndexByte(v, '-'); i >= 0 {
			return epoch, v[:i], v[i+1:]
		}
		return epoch, v, ""
	}
	ae, au, ar := split(a)
	be, bu, br := split(b)
	return cmp.Or(compareDigits(ae, be), compareParts(au, bu), compareParts(ar, br))
}

// compareParts compares runs of non-digits and of digits in turn. A tilde sorts
// before everything, the end included; letters before other characters.
func compareParts(a, b string) int {
	order := func(s string, i int) int {
		switch {
		case i >= len(s) || isDigit(s[i]):
			return 0
		case s[i] == '~':
			return -1
		case s[i]|0x20 >= 'a' && s[i]|0x20 <= 'z':
			return int(s[i])
		}
		return int(s[i]) + 256
	}
	for a != "" || b != "" {
		i := 0
		for ; i < len(a) && !isDigit(a[i]) || i < len(b) && !isDigit(b[i]); i++ {
			if c := cmp.Compare(order(a, i), order(b, i)); c != 0 {
				return c
			}
		}
		a, b = a[min(i, len(a)):], b[min(i, len(b)):]
		an, bn := digits(a), digits(b)
		if c := compareDigits(a[:an], b[:bn]); c != 0 {
			return c
		}
		a, b = a[an:], b[bn:]
	}
	return 0
}

func isDigit(c byte) bool { return c >= '0' && c <= '9' }

func digits(s string) int {
	n := 0
	for n < len(s) && isDigit(s[n]) {
		n++
	}
	return n
}

// compareDigits compares decimal numbers of any length; an empty one is 0.
func compareDigits(a, b string) int {
	a, b = strings.TrimLeft(a, "0"), strings.TrimLeft(b, "0")
	return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
}
