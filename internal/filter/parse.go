package filter

import (
	"fmt"
	"net/netip"
	"os/user"
	"path"
	"strconv"
	"strings"
)

const acceptedPrefixes = "want addresses or CIDR prefixes, such as 10.0.0.0/8,192.0.2.7,2001:db8::/32"

// ParsePrefixes reads a comma list of CIDR prefixes and bare addresses.
// IPv4-mapped IPv6 is IPv4.
func ParsePrefixes(list string) (Prefixes, error) {
	var prefixes Prefixes
	for item := range strings.SplitSeq(list, ",") {
		p, ok := parsePrefix(strings.TrimSpace(item))
		if !ok {
			return nil, fmt.Errorf("bad address %q: %s", item, acceptedPrefixes)
		}
		prefixes = append(prefixes, p)
	}
	return prefixes, nil
}

func parsePrefix(text string) (netip.Prefix, bool) {
	p, err := netip.ParsePrefix(text)
	if err != nil {
		a, err := netip.ParseAddr(text)
		if err != nil || a.Zone() != "" {
			return netip.Prefix{}, false
		}
		p = netip.PrefixFrom(a, a.BitLen())
	}
	if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), true
}

// ParsePIDs reads a comma list of process ids.
func ParsePIDs(list string) ([]uint32, error) {
	var pids []uint32
	for item := range strings.SplitSeq(list, ",") {
		// The kernel's limit is 2^22 (PID_MAX_LIMIT), the type's 2^31.
		pid, err := strconv.ParseUint(strings.TrimSpace(item), 10, 31)
		if err != nil || pid == 0 {
			return nil, fmt.Errorf("bad process id %q: want numbers from 1, such as 1234,5678", item)
		}
		pids = append(pids, uint32(pid))
	}
	return pids, nil
}

// ParseUIDs reads a comma list of user ids and user names.
func ParseUIDs(list string) ([]uint32, error) {
	var uids []uint32
	for item := range strings.SplitSeq(list, ",") {
		name := strings.TrimSpace(item)
		uid, err := strconv.ParseUint(name, 10, 32)
		if err != nil {
			u, lookupErr := user.Lookup(name)
			if name == "" || lookupErr != nil {
				return nil, fmt.Errorf("no user %q: want user ids or names of users of this machine, such as 0,www-data", item)
			}
			if uid, err = strconv.ParseUint(u.Uid, 10, 32); err != nil {
				return nil, fmt.Errorf("user %q has the id %q: want one that is a number", item, u.Uid)
			}
		}
		uids = append(uids, uint32(uid))
	}
	return uids, nil
}

// maxComm is the longest name of a task: TASK_COMM_LEN less the final NUL.
const maxComm = 15

// Comm returns name as the kernel would keep it.
func Comm(name string) (string, error) {
	if name == "" {
		return "", fmt.Errorf("empty name: want the name of a process, as ps -o comm shows it")
	}
	if len(name) > maxComm {
		name = name[:maxComm]
	}
	return name, nil
}

// CgroupPath returns the path below the cgroup2 mount, which is at mount: it is
// accepted with the mount point and without.
func CgroupPath(text, mount string) (string, error) {
	if text == "" {
		return "", fmt.Errorf("empty path: want a cgroup, such as /system.slice/nginx.service")
	}
	p := path.Clean("/" + text)
	if mount != "" && mount != "/" && Below(mount, p) {
		p = path.Clean("/" + strings.TrimPrefix(p, mount))
	}
	return p, nil
}

// NetNSSpec is one way to name a network namespace, checked in form only.
type NetNSSpec string

const acceptedNetNS = "want all, self, a name of ip netns, a path such as /proc/1/ns/net, or inode:N"

// ParseNetNS reads a comma list of network namespaces. Nil stands for all.
func ParseNetNS(list string) ([]NetNSSpec, error) {
	var specs []NetNSSpec
	all := false
	for item := range strings.SplitSeq(list, ",") {
		spec := strings.TrimSpace(item)
		inode, isInode := strings.CutPrefix(spec, "inode:")
		switch {
		case spec == "":
			return nil, fmt.Errorf("empty network namespace in %q: %s", list, acceptedNetNS)
		case spec == "all":
			all = true
			continue
		case isInode:
			if n, err := strconv.ParseUint(inode, 10, 32); err != nil || n == 0 {
				return nil, fmt.Errorf("bad network namespace %q: %s", item, acceptedNetNS)
			}
		case !strings.Contains(spec, "/") && (spec == "." || spec == ".."):
			return nil, fmt.Errorf("bad network namespace %q: %s", item, acceptedNetNS)
		}
		specs = append(specs, NetNSSpec(spec))
	}
	if all && specs != nil {
		return nil, fmt.Errorf("all beside %q: all has every network namespace already", specs[0])
	}
	return specs, nil
}
