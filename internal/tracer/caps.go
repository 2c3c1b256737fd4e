//go:build linux

package tracer

import "golang.org/x/sys/unix"

// Cap is a capability and whether the process has it in effect.
type Cap struct {
	Name string
	Held bool
	Use  string // what it is needed for
}

// capabilities returns those that matter, as capget(2) tells them.
func capabilities() []Cap {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		data = [2]unix.CapUserData{}
	}
	held := func(bit int) bool { return data[bit/32].Effective&(1<<(bit%32)) != 0 }
	admin := held(unix.CAP_SYS_ADMIN)
	return []Cap{
		{"CAP_BPF", held(unix.CAP_BPF) || admin, "load BPF programs"},
		{"CAP_PERFMON", held(unix.CAP_PERFMON) || admin, "attach them and read kernel structures"},
		{"CAP_SYS_ADMIN", admin, "enter other network namespaces"},
		{"CAP_SYS_PTRACE", held(unix.CAP_SYS_PTRACE), "look into processes of other users"},
	}
}

// missingCaps returns the names without which nothing can be traced.
func missingCaps() []string {
	var missing []string
	for _, c := range capabilities()[:2] {
		if !c.Held {
			missing = append(missing, c.Name)
		}
	}
	return missing
}
