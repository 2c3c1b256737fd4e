package advice

// Sysctls that rules look at. Those of net are of the network namespace but for
// MachineSysctls.
const (
	finTimeout      = "net.ipv4.tcp_fin_timeout"
	twReuse         = "net.ipv4.tcp_tw_reuse"
	timestamps      = "net.ipv4.tcp_timestamps"
	twBuckets       = "net.ipv4.tcp_max_tw_buckets"
	portRange       = "net.ipv4.ip_local_port_range"
	reservedPorts   = "net.ipv4.ip_local_reserved_ports"
	somaxconn       = "net.core.somaxconn"
	synBacklogLimit = "net.ipv4.tcp_max_syn_backlog"
	syncookies      = "net.ipv4.tcp_syncookies"
	abortOnOverflow = "net.ipv4.tcp_abort_on_overflow"
	synRetries      = "net.ipv4.tcp_syn_retries"
	synackRetries   = "net.ipv4.tcp_synack_retries"
	retries2        = "net.ipv4.tcp_retries2"
	keepaliveTime   = "net.ipv4.tcp_keepalive_time"
	maxOrphans      = "net.ipv4.tcp_max_orphans"
	tcpMem          = "net.ipv4.tcp_mem"
	nrOpen          = "fs.nr_open"
)

// Sysctls returns the names of all sysctls that a rule looks at.
func Sysctls() []string {
	return []string{
		finTimeout, twReuse, timestamps, twBuckets, portRange, reservedPorts, somaxconn, synBacklogLimit, syncookies,
		abortOnOverflow, synRetries, synackRetries, retries2, keepaliveTime, maxOrphans, tcpMem, nrOpen,
	}
}

// MachineSysctls returns the names of those among them that are of the whole
// machine, and that the first network namespace alone has.
func MachineSysctls() []string { return []string{maxOrphans, tcpMem} }

var units = map[string]string{finTimeout: "s", keepaliveTime: "s"}

// Counters of /proc/net/netstat (TcpExt) and /proc/net/snmp (Tcp).
const (
	listenOverflows  = "ListenOverflows"
	listenDrops      = "ListenDrops"
	reqQFullCookies  = "TCPReqQFullDoCookies"
	reqQFullDrop     = "TCPReqQFullDrop"
	timeWaitOverflow = "TCPTimeWaitOverflow"
	abortOnClose     = "TCPAbortOnClose"
	abortOnData      = "TCPAbortOnData"
	abortOnMemory    = "TCPAbortOnMemory"
	abortOnTimeout   = "TCPAbortOnTimeout"
	rtos             = "TCPTimeouts"
	synRetrans       = "TCPSynRetrans"
	retransSegs      = "RetransSegs"
	outSegs          = "OutSegs"
)

// Counters returns the names of all counters that a rule looks at.
func Counters() []string {
	return []string{
		listenOverflows, listenDrops, reqQFullCookies, reqQFullDrop, timeWaitOverflow, abortOnClose, abortOnData,
		abortOnMemory, abortOnTimeout, rtos, synRetrans, retransSegs, outSegs,
	}
}

// Sources.
const (
	rfcHalfClosed  = "RFC 9293 section 3.6.1 (half-closed connections)"
	rfcTimeWait    = "RFC 9293 section 3.6.1 (TIME-WAIT lasts 2 MSL: MUST-13)"
	rfcUnread      = "RFC 9293 section 3.6.1 (RST for data not read: SHLD-3)"
	rfcUnreadBug   = "RFC 2525 section 2.17 (RST on close with data pending)"
	rfcReset       = "RFC 9293 section 3.5.2 (reset generation)"
	rfcFailures    = "RFC 9293 section 3.8.3 (connection failures)"
	rfcRTO         = "RFC 6298 (retransmission timer)"
	rfcHazards     = "RFC 1337 (TIME-WAIT assassination hazards)"
	rfcTimestamps  = "RFC 6191 (TIME-WAIT and timestamps)"
	rfcFlood       = "RFC 4987 (SYN flooding)"
	rfcPersistence = "RFC 9112 section 9.3 (HTTP persistence)"
	rfcTearDown    = "RFC 9112 section 9.6 (HTTP tear-down)"
	commitRecycle  = "Linux commit 4396e46187ca (tcp_tw_recycle removed, 4.12)"
	manSocket      = "socket(7): SO_REUSEADDR"
	manLinger      = "socket(7): SO_LINGER"
	manListen      = "listen(2)"
	manLimit       = "getrlimit(2): RLIMIT_NOFILE"
	manAccept      = "accept(2): EMFILE"
	manPorts       = "ip(7): ip_local_port_range, IP_BIND_ADDRESS_NO_PORT"
)

// kernelDoc cites the kernel's page about sysctls.
func kernelDoc(names string) string { return "Linux ip-sysctl.rst: " + names }

// counterDoc cites the kernel's page about counters.
func counterDoc(names string) string { return "Linux snmp_counter.rst: " + names }
