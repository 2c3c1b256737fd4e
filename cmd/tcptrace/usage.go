package main

// usage is what --help prints. Each flag is in the manual page too; a test holds
// the two together.
const usage = `usage: tcptrace [flags] [-- command [arg ...]]

Show each TCP state transition of the machine as it happens, in all network
namespaces, with the time that the connection spent in the state it leaves, the
process that owns it, and how it ended. TIME_WAIT and FIN_WAIT2 included.

With --watch: show the sockets that are in some states now, by the process that
holds them, worst first, with how long and why; on a terminal as a live screen
with help behind the key ?, elsewhere as a table after the other.

With --summary: collect, and print at the end where connections spent their
time, who closed first and how, what became of the TIME_WAITs, and what to do.

With -w: record it, to be shown later, or elsewhere, with -r.

With a command: show what it and its descendants open, end when it ends, and
exit with its status.

Output:
  -o, --output FORMAT       text (default), or json: one object on each line
  -T, --time                the time of day in front of each line
  -t, --timestamp           the seconds since the start in front of each line
      --wide                every column in full width
      --color WHEN          auto (default: on a terminal, without NO_COLOR),
                            always or never

Recordings:
  -w, --write FILE          record to FILE, compressed if named .zst or .gz, or
                            to stdout (-); shown as well only with -o,
                            --watch or --summary
  -r, --read FILE           show the recording in FILE, or stdin (-), as the
                            trace would have; on any system, unprivileged

What sits there now:
      --watch STATES        the sockets in these states: close_wait,time_wait
      --once                look once and exit
      --interval D          the time between two looks (default 2s)

The account of it all:
      --summary             at the end (Ctrl-C, --duration, the command's):
                            sockets and times per state, who closed first
      --by WHAT             by process (default), remote, local-port, cgroup or
                            netns

Which connections:
  -4, --ipv4                only IPv4, IPv4-mapped IPv6 addresses included
  -6, --ipv6                only IPv6
  -L, --local-port LIST     local ports: 80,443,8000-8100
  -D, --remote-port LIST    remote ports
      --port LIST           ports of either side
      --local CIDR          local addresses: 10.0.0.0/8,2001:db8::1
      --remote CIDR         remote addresses
      --pid PID             owned, or closed, by these processes
      --comm NAME           owned by processes of this name
      --uid USER            of these users, by number or name
      --netns NETNS         in these network namespaces: a name of ip netns, a
                            path, inode:N, self or all (default)
      --cgroup PATH         created in this cgroup or below

Which lines:
      --state STATES        transitions from or to these: close_wait,time-wait
      --min-age D           out of a state that lasted as long or longer: 2m;
                            with --watch: sockets in it for as long or longer

When to end:
      --duration D          after this time
      --count N             after N lines; with --watch: after N looks

For tests and CI:
      --fail-on STATES:AGE  exit 3, with a list, if a socket stays that long in
                            one of these states: close_wait:5s; with a command
                            nothing else is shown but with -o or --watch

Tuning and tests:
      --hooks TIER          auto (default), fentry, kprobe or poll
      --buffer SIZE         buffer between kernel and tcptrace (default 8M)
      --max-connections N   connections to track at most (default: what a
                            sixteenth of the memory holds)
      --ready-file PATH     write this file once everything is traced
      --features            show what this kernel supports and exit
      --version             print the version and exit
  -h, --help                print this and exit

Lists are separated by commas; a flag that takes one may be given again to add
to it. States are accepted in every usual spelling, and as all, connected or
synchronized.

Exit status: 0, also after Ctrl-C; 1 for a failure; 2 for wrong usage; 3 for
--fail-on; with a command its own, 126 if it cannot be executed, 127 if it is
not found.

Examples:
  sudo tcptrace                            everything
  sudo tcptrace --watch close_wait         who leaks sockets, and why
  sudo tcptrace --watch time_wait --once
  sudo tcptrace --summary --duration 60s
  sudo tcptrace -L 443 --state close_wait  the stuck side of an HTTPS server
  sudo tcptrace --comm nginx -T --min-age 30s
  sudo tcptrace --fail-on close_wait:5s -- ./integration-test
  sudo tcptrace -o json -- curl -s https://example.com >/dev/null
  sudo tcptrace -w today.zst               and then:
  tcptrace -r today.zst -L 443
`
