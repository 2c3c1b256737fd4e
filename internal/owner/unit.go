package owner

import (
	"strings"

	"github.com/tcptrace/tcptrace/internal/watch"
)

// Kinds of watch.Unit.
const (
	KindSystemd    = "systemd"
	KindDocker     = "docker"
	KindContainerd = "containerd"
	KindCRIO       = "cri-o"
	KindPodman     = "podman"
	KindKubernetes = "kubernetes"
	KindLXC        = "lxc"
)

// unitOf reads /proc/PID/cgroup (cgroups(7)): a line for each hierarchy,
// id:controllers:path. That of version 2, where there is one, is 0::path; with
// version 1 the containers' runtimes put a process into the same path of each
// hierarchy, the service manager into name=systemd.
func unitOf(text string) watch.Unit {
	var v2, systemd string
	var others []string
	for line := range strings.Lines(text) {
		parts := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(parts) != 3 {
			continue
		}
		switch {
		case parts[0] == "0" && parts[1] == "":
			v2 = parts[2]
		case parts[1] == "name=systemd":
			systemd = parts[2]
		default:
			others = append(others, parts[2])
		}
	}
	path := ""
	for _, candidate := range append([]string{v2, systemd}, others...) {
		if candidate == "" {
			continue
		}
		if u := UnitOf(candidate); u.Kind != "" {
			return u
		}
		if path == "" || path == "/" {
			path = candidate
		}
	}
	return watch.Unit{Path: path}
}

// UnitOf tells from the path of a cgroup what the service manager or the container
// runtime calls it: Kind is one of the constants, Name the id of the container, the
// uid of the pod or the name of the unit, whichever is innermost; empty where the
// path has none of their names.
func UnitOf(path string) watch.Unit {
	u := watch.Unit{Path: path}
	parts := strings.Split(strings.Trim(path, "/"), "/")
	// A pod names its containers' runtime in the parts below: the pod is what
	// its owner knows.
	for _, part := range parts {
		if uid := podUID(part); uid != "" {
			u.Kind, u.Name = KindKubernetes, uid
			return u
		}
	}
	for i := len(parts) - 1; i >= 0; i-- {
		outer := ""
		if i > 0 {
			outer = parts[i-1]
		}
		if kind, name := containerOf(parts[i], outer); kind != "" {
			u.Kind, u.Name = kind, name
			return u
		}
	}
	for i := len(parts) - 1; i >= 0; i-- {
		if isUnit(parts[i]) {
			u.Kind, u.Name = KindSystemd, parts[i]
			return u
		}
	}
	return u
}

// podUID returns the uid of the pod that a part names, as pod<uid> of the cgroupfs
// driver or kubepods-<class>-pod<uid>.slice of the systemd driver, whose dashes are
// underscores there. The slice may be followed by :runtime:container.
func podUID(part string) string {
	part, _, _ = strings.Cut(part, ":")
	if name, ok := strings.CutSuffix(part, ".slice"); ok {
		if !strings.HasPrefix(name, "kubepods") {
			return ""
		}
		_, uid, ok := cutLast(name, "-pod")
		if !ok {
			return ""
		}
		part = "pod" + strings.ReplaceAll(uid, "_", "-")
	}
	uid, ok := strings.CutPrefix(part, "pod")
	// A UUID, or 32 digits of a static pod's hash.
	if !ok || len(strings.ReplaceAll(uid, "-", "")) != 32 || !isHex(strings.ReplaceAll(uid, "-", "")) {
		return ""
	}
	return uid
}

// prefixes are how runtimes name the scope or directory of a container.
var prefixes = []struct{ prefix, kind string }{
	{"docker-", KindDocker},
	{"cri-containerd-", KindContainerd},
	{"nerdctl-", KindContainerd},
	{"crio-conmon-", KindCRIO},
	{"crio-", KindCRIO},
	{"libpod-conmon-", KindPodman},
	{"libpod-", KindPodman},
}

// containerOf returns the runtime and the container that a part names, given the
// part around it.
func containerOf(part, outer string) (kind, id string) {
	name := strings.TrimSuffix(part, ".scope")
	for _, p := range prefixes {
		if id, ok := strings.CutPrefix(name, p.prefix); ok && isID(id) {
			return p.kind, id
		}
	}
	if strings.Contains(part, ":") {
		// slice:prefix:id of runc's systemd driver, where the runtime passed it
		// on to another.
		fields := strings.Split(part, ":")
		if id := fields[len(fields)-1]; len(fields) == 3 && isID(id) {
			for _, p := range prefixes {
				if fields[1]+"-" == p.prefix {
					return p.kind, id
				}
			}
			return KindContainerd, id
		}
	}
	if name, ok := strings.CutPrefix(part, "lxc.payload."); ok && name != "" {
		return KindLXC, name
	}
	switch outer {
	case "docker":
		if isID(part) {
			return KindDocker, part
		}
	case "lxc":
		if part != "" {
			return KindLXC, part
		}
	case "default", "moby", "k8s.io", "buildkit":
		// The directory of containerd's namespace.
		if isID(part) {
			return KindContainerd, part
		}
	}
	return "", ""
}

// isID reports whether s is a container id: 64 hexadecimal digits.
func isID(s string) bool { return len(s) == 64 && isHex(s) }

func isHex(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// isUnit reports whether the part is a unit of systemd that holds processes
// (systemd.unit(5)), or a slice that does so exceptionally.
func isUnit(part string) bool {
	for _, suffix := range []string{".service", ".scope", ".slice", ".socket", ".mount", ".swap"} {
		if name, ok := strings.CutSuffix(part, suffix); ok && (name != "" || part == "-.slice") {
			return true
		}
	}
	return false
}

// cutLast is strings.Cut at the last sep.
func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}
