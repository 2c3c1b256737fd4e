package e2e

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// kernelTick is the longest jiffy of the usual kernels (HZ=100): a timer of
	// jiffies may run that much short.
	kernelTick = 10 * time.Millisecond
	// lateness is allowed to a timer softirq on an emulated, busy machine.
	lateness = 500 * time.Millisecond
	// walkHold is the longest time that a walk over descriptors may hold a file.
	walkHold = 200 * time.Millisecond
)

// scanSlack is the scan interval of --hooks poll, and the time that a scan may
// take: of some dozens of namespaces, each a walk over all sockets of the machine.
var scanSlack = func() time.Duration {
	if inVM {
		return 5 * time.Second // emulated, with three tracers
	}
	return 2 * time.Second
}()

// jiffiesLag is how far behind the time the kernel's jiffies may be, in which it
// notes when a segment came and when a timer ends: on a virtual processor that gets no
// time the ticks come late, and then many at once. 34 ms were seen on a busy virtual
// machine.
const jiffiesLag = 100 * time.Millisecond

// slackOf is what the kernel's timer wheel may add to a timer of d: 1/8 at most
// (kernel/time/timer.c), and to 60 s 2.05 s at HZ=250, 4.1 s at HZ=1000.
func slackOf(d time.Duration) time.Duration { return min(d/8, 4100*time.Millisecond) }

// legal lists where each state may lead; TIME_WAIT and the hidden part of
// FIN_WAIT2 included.
var legal = map[string]string{
	"SYN_SENT":    "ESTABLISHED CLOSE SYN_RECV",
	"SYN_RECV":    "ESTABLISHED FIN_WAIT1 CLOSE_WAIT CLOSE",
	"ESTABLISHED": "FIN_WAIT1 CLOSE_WAIT CLOSE",
	"FIN_WAIT1":   "FIN_WAIT2 CLOSING TIME_WAIT CLOSE",
	"FIN_WAIT2":   "TIME_WAIT CLOSE",
	"CLOSING":     "TIME_WAIT CLOSE",
	"TIME_WAIT":   "CLOSE",
	"CLOSE_WAIT":  "LAST_ACK CLOSE",
	"LAST_ACK":    "CLOSE",
}

// Problem is one difference between what was said and the truth.
type Problem struct {
	NetNS uint32
	Conn  *Conn // nil: of none of the workload's
	Text  string
}

// group is what was said about one connection.
type group struct {
	id          string
	transitions []*Line
	closed      []*Line
	order       []*Line
	used        bool
}

func (g *group) first() *Line { return g.order[0] }

// start is when the group's connection was first heard of.
func (g *group) start() int64 { return *g.first().TS }

// comparison compares one tracer's output with the truth.
type comparison struct {
	out      *Output
	problems []Problem
	// pre: the connection of the moment existed before the tracer.
	pre bool
	// walked: it was closed by a walk (walkedOver).
	walked bool
}

func (p *comparison) add(netns uint32, format string, args ...any) {
	problem := Problem{NetNS: netns, Text: fmt.Sprintf(format, args...)}
	if len(args) > 0 {
		problem.Conn, _ = args[0].(*Conn)
	}
	p.problems = append(p.problems, problem)
}

// withoutUnseen takes out the problems of connections of which an event was told to be
// unseen, if there are no more such connections than events (mayMiss).
func withoutUnseen(problems []Problem, unseen int) (rest []Problem, excused int) {
	conns := make(map[*Conn]bool)
	for _, p := range problems {
		if p.Conn != nil {
			conns[p.Conn] = true
		}
	}
	if len(conns) > unseen {
		return problems, 0
	}
	return slices.DeleteFunc(problems, func(p Problem) bool { return p.Conn != nil }), len(conns)
}

// unseen returns how many transitions the output tells to be unseen.
func (out *Output) unseen() (n int) {
	for _, l := range out.Lines {
		if l.Type == "lost" && l.Cause == "unseen" {
			n += l.Count
		}
	}
	return n
}

// mended reports whether a rescan followed the last loss.
func (out *Output) mended() (mended bool) {
	for _, l := range out.Lines {
		switch l.Type {
		case "lost":
			mended = false
		case "resync":
			mended = true
		}
	}
	return mended
}

// compare demands that out says exactly what conns say about the namespaces in
// netns. Problems of no namespace have NetNS 0.
func compare(out *Output, conns []*Conn, netns map[uint32]string) []Problem {
	p := &comparison{out: out}
	groups := p.group(netns)
	byKey := map[string][]*group{}
	for _, g := range groups {
		l := g.first()
		key := connKey(*l.NetNS, addrOf(l.LAddr, l.LPort), addrOf(l.RAddr, l.RPort))
		byKey[key] = append(byKey[key], g)
	}
	byAnyLocal := map[string][]*group{} // without the local port
	for _, g := range groups {
		l := g.first()
		key := connKey(*l.NetNS, addrOf(l.LAddr, nil), addrOf(l.RAddr, l.RPort))
		byAnyLocal[key] = append(byAnyLocal[key], g)
	}
	conns = slices.Clone(conns)
	// Connections with the same addresses and ports match in order of time; those
	// of which the local port is not known take what the others leave.
	slices.SortStableFunc(conns, func(a, b *Conn) int {
		if anyA, anyB := a.AnyLocalPort || a.NoLocalPort, b.AnyLocalPort || b.NoLocalPort; anyA != anyB {
			if anyA {
				return 1
			}
			return -1
		}
		return cmp.Compare(a.Steps[0].At.Lo, b.Steps[0].At.Lo)
	})
	for _, c := range conns {
		steps, pre := p.visible(c)
		if len(steps) == 0 {
			continue // over before the tracer started
		}
		p.pre = pre
		var g *group
		if c.AnyLocalPort || c.NoLocalPort {
			key := connKey(c.NetNS, netip.AddrPortFrom(c.Local.Addr(), 0), c.Remote)
			g = take(byAnyLocal[key])
		} else {
			g = take(byKey[connKey(c.NetNS, c.Local, c.Remote)])
		}
		if g == nil {
			p.add(c.NetNS, "%s: not seen; want %s", c, chain(steps))
			continue
		}
		g.used = true
		p.checkConn(c, steps, g)
	}
	for _, g := range groups {
		if !g.used {
			p.add(*g.first().NetNS, "connection too many: %s (%d lines)", g.first().raw(), len(g.order))
		}
	}
	return p.problems
}

func connKey(netns uint32, local, remote netip.AddrPort) string {
	r := "listener"
	if remote.IsValid() && remote.Port() != 0 {
		r = remote.String()
	}
	return fmt.Sprintf("%d %s %s", netns, local, r)
}

func addrOf(addr *string, port *uint16) netip.AddrPort {
	if addr == nil {
		return netip.AddrPort{}
	}
	a, err := netip.ParseAddr(*addr)
	if err != nil {
		return netip.AddrPort{}
	}
	if port == nil {
		return netip.AddrPortFrom(a, 0)
	}
	return netip.AddrPortFrom(a, *port)
}

// take returns the earliest group that nothing has matched yet.
func take(groups []*group) *group {
	var best *group
	for _, g := range groups {
		if !g.used && (best == nil || g.start() < best.start()) {
			best = g
		}
	}
	return best
}

// group checks what concerns lines as such and sorts them by connection.
func (p *comparison) group(netns map[uint32]string) []*group {
	if len(p.out.Lines) == 0 {
		p.add(0, "no output")
		return nil
	}
	if h := p.out.Lines[0]; h.Type != "header" || h.Schema != 1 || h.Hooks != p.out.Tier || h.Version == "" || h.Kernel == "" {
		p.add(0, "first line is no header of schema 1 and hooks %s: %s", p.out.Tier, h.raw())
	}
	byID := map[string]*group{}
	var groups []*group
	for _, l := range p.out.Lines[1:] {
		switch l.Type {
		case "transition", "closed":
		case "lost":
			if l.Cause != "unseen" || !p.out.MayMiss {
				p.add(0, "unexpected line: %s", l.raw())
			}
			continue
		case "resync":
			if !p.out.MayMiss || p.out.unseen() == 0 {
				p.add(0, "unexpected line: %s", l.raw())
			}
			continue
		default:
			p.add(0, "unexpected line: %s", l.raw())
			continue
		}
		if l.NetNS == nil {
			p.add(0, "line without namespace: %s", l.raw())
			continue
		}
		if _, ours := netns[*l.NetNS]; !ours {
			continue
		}
		if l.TS == nil {
			p.add(*l.NetNS, "line without ts_ns: %s", l.raw())
			continue
		}
		p.checkWall(l)
		g := byID[l.Conn]
		if g == nil {
			g = &group{id: l.Conn}
			byID[l.Conn] = g
			groups = append(groups, g)
		} else if !sameIdentity(g.first(), l) {
			p.add(*l.NetNS, "one connection under two identities: %s and %s", g.first().raw(), l.raw())
		}
		g.order = append(g.order, l)
		if l.Type == "closed" {
			g.closed = append(g.closed, l)
		} else {
			g.transitions = append(g.transitions, l)
		}
	}
	return groups
}

func sameIdentity(a, b *Line) bool {
	return equal(a.NetNS, b.NetNS) && equal(a.Family, b.Family) && equal(a.LAddr, b.LAddr) && equal(a.LPort, b.LPort) &&
		equal(a.RAddr, b.RAddr) && equal(a.RPort, b.RPort)
}

func equal[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

// checkWall: time and ts_ns are the same moment.
func (p *comparison) checkWall(l *Line) {
	t, err := time.Parse(time.RFC3339Nano, l.Time)
	if err != nil || !strings.HasSuffix(l.Time, "Z") {
		p.add(*l.NetNS, "time %q is not RFC 3339 in UTC", l.Time)
		return
	}
	if diff := t.UnixNano() - *l.TS - wallOffset; diff < -int64(time.Second) || diff > int64(time.Second) {
		p.add(*l.NetNS, "time and ts_ns differ by %v: %s", time.Duration(diff), l.raw())
	}
}

// wallOffset is the wall time less CLOCK_MONOTONIC.
var wallOffset = time.Now().UnixNano() - now()

// visible returns the steps of c that the tracer can have seen, and whether c
// existed before it.
func (p *comparison) visible(c *Conn) (steps []Step, pre bool) {
	for i, s := range c.Steps {
		if s.At.Hi < p.out.Started {
			continue
		}
		if s.At.Lo < p.out.Ready {
			p.add(c.NetNS, "%s: the workload is at fault: %s -> %s while the tracer started", c, s.Old, s.New)
		}
		return c.Steps[i:], i > 0
	}
	return nil, true
}

func chain(steps []Step) string {
	var b strings.Builder
	b.WriteString(steps[0].Old)
	for _, s := range steps {
		b.WriteString(" > " + s.New)
	}
	return b.String()
}

func lineChain(lines []*Line) string {
	if len(lines) == 0 {
		return "no transition"
	}
	var b strings.Builder
	b.WriteString(lines[0].Old)
	for _, l := range lines {
		b.WriteString(" > " + l.New)
	}
	return b.String()
}

func (p *comparison) checkConn(c *Conn, steps []Step, g *group) {
	p.walked = false
	offset := len(c.Steps) - len(steps)
	fixed := steps
	if c.FreeFrom > 0 && c.FreeFrom >= offset {
		fixed = steps[:c.FreeFrom-offset]
		p.checkFree(c, c.Steps[c.FreeFrom:], g.transitions, len(fixed))
	} else if len(g.transitions) != len(steps) {
		p.add(c.NetNS, "%s: is %s, want %s", c, lineChain(g.transitions), chain(steps))
		return
	}
	for i, l := range g.transitions {
		if i < len(fixed) && p.walkedOver(c, &fixed[i], l) {
			p.walked = true
		}
		if i < len(fixed) {
			p.checkStep(c, &fixed[i], l)
		}
		p.checkOwner(c, l)
		p.checkIdentity(c, l)
		if i > 0 {
			prev := g.transitions[i-1]
			if l.Old != prev.New {
				p.add(c.NetNS, "%s: is %s: no chain", c, lineChain(g.transitions))
			}
			if *l.TS < *prev.TS {
				p.add(c.NetNS, "%s: %s > %s is before the transition that precedes it", c, l.Old, l.New)
			}
		}
		p.checkInOld(c, offset, i, g.transitions)
	}
	p.checkClosed(c, steps, g)
}

// checkFree checks the part whose order is not known: a legal chain to CLOSE.
func (p *comparison) checkFree(c *Conn, steps []Step, lines []*Line, from int) {
	if len(lines) <= from || lines[len(lines)-1].New != "CLOSE" {
		p.add(c.NetNS, "%s: is %s, want an end in CLOSE", c, lineChain(lines))
		return
	}
	for _, l := range lines[from:] {
		if !slices.Contains(strings.Fields(legal[l.Old]), l.New) {
			p.add(c.NetNS, "%s: illegal %s > %s", c, l.Old, l.New)
		}
		if *l.TS < steps[0].At.Lo || *l.TS > steps[len(steps)-1].At.Hi {
			p.add(c.NetNS, "%s: %s > %s outside of its bracket", c, l.Old, l.New)
		}
	}
}

func (p *comparison) checkStep(c *Conn, s *Step, l *Line) {
	if l.Old != s.Old || l.New != s.New {
		p.add(c.NetNS, "%s: is %s > %s, want %s > %s", c, l.Old, l.New, s.Old, s.New)
		return
	}
	lo, hi := s.At.Lo, s.At.Hi
	if p.walkedOver(c, s, l) {
		hi += int64(walkHold)
	}
	if p.out.Tier == "poll" {
		if s.Scanned {
			// The first sight of who reuses it is dated by its round trip time, which
			// a starved machine measures with clocks that are late.
			lo, hi = lo-int64(jiffiesLag), hi+int64(scanSlack)
		}
		hi = max(hi, s.PollHi)
		if s.Old == "FIN_WAIT2" && s.New == "TIME_WAIT" {
			// Taken from the timer, to the jiffy.
			lo, hi = lo-int64(kernelTick+jiffiesLag), hi+int64(kernelTick)
		}
	}
	if *l.TS < lo || *l.TS > hi {
		p.add(c.NetNS, "%s: %s > %s at %d, want %d to %d (%v early, %v late)", c, s.Old, s.New, *l.TS, lo, hi,
			time.Duration(lo-*l.TS), time.Duration(*l.TS-hi))
	}
	if s.Timer != 0 && l.InOldNS != nil {
		least, most := s.Timer-kernelTick, s.Timer+slackOf(s.Timer)+lateness
		if p.out.Tier == "poll" {
			least, most = least-kernelTick-jiffiesLag, most+scanSlack
		}
		if got := time.Duration(*l.InOldNS); got < least || got > most {
			p.add(c.NetNS, "%s: %v in %s, want %v to %v", c, got, s.Old, least, most)
		}
	}
	if s.Err != "" && (l.Error == nil || *l.Error != s.Err) {
		p.add(c.NetNS, "%s: error of %s > %s is %s, want %s", c, s.Old, s.New, show(l.Error), s.Err)
	}
}

// walkedOver: with --hooks poll, descriptors are walked over again and again. The
// walk holds a reference to the file that it looks at; where the owner closes it
// just then, the socket is closed when the walk lets go, and by nobody known, or, as
// the other tracers see it, by the one whose walk it was.
func (p *comparison) walkedOver(c *Conn, s *Step, l *Line) bool {
	return (p.out.Tier == "poll" || l.PID != nil && isTracer(*l.PID)) && *l.TS > s.At.Hi &&
		slices.ContainsFunc(c.Owners, func(o Owner) bool { return o.Src == "close" && o.Since == s.At })
}

func show[T any](v *T) string {
	if v == nil {
		return "null"
	}
	return fmt.Sprint(*v)
}

func (p *comparison) checkIdentity(c *Conn, l *Line) {
	if l.Family == nil || *l.Family != c.Family {
		p.add(c.NetNS, "%s: family is %s, want %d", c, show(l.Family), c.Family)
	}
	switch {
	case c.NoLocalPort:
		if l.LPort != nil {
			p.add(c.NetNS, "%s: local port is %d, want null", c, *l.LPort)
		}
	case l.LPort == nil || *l.LPort == 0:
		p.add(c.NetNS, "%s: no local port in %s", c, l.raw())
	}
	if l.Cookie != nil && c.Cookie != 0 {
		got, err := strconv.ParseUint(strings.TrimPrefix(*l.Cookie, "0x"), 16, 64)
		if err != nil || got != c.Cookie {
			p.add(c.NetNS, "%s: cookie of %s > %s is %s, want %x", c, l.Old, l.New, *l.Cookie, c.Cookie)
		}
	}
}

// checkOwner: the owner must be one that there was at that time, by a way in
// which it can be known; and it may be unknown only while it cannot be known.
func (p *comparison) checkOwner(c *Conn, l *Line) {
	required, allowed := "", false
	// What was closed before the tracer started had no descriptor left to scan.
	closedBefore := slices.ContainsFunc(c.Owners, func(o Owner) bool { return o.Src == "close" && o.Since.Hi < p.out.Started })
	for _, o := range c.Owners {
		pre := o.Since.Hi < p.out.Started
		if o.Since.Lo <= *l.TS && l.PID != nil && l.Comm != nil && l.Owner != nil &&
			*l.PID == o.Proc.PID && *l.Comm == o.Proc.Comm &&
			(*l.Owner == o.Src && !pre || *l.Owner == "scan" && o.Src != "close") {
			allowed = true
		}
		switch {
		case o.Src == "accept" && p.out.Tier == "poll" && !pre, o.Src == "hold", o.Optional, o.Src == "close" && p.walked, pre && closedBefore:
		case o.Since.Lo <= *l.TS && (o.Src != "accept" || o.Since.Hi < *l.TS):
			required = o.Src
		}
	}
	if l.PID == nil {
		if l.Comm != nil || l.Owner != nil {
			p.add(c.NetNS, "%s: owner in part in %s", c, l.raw())
		}
		if required != "" {
			p.add(c.NetNS, "%s: no owner in %s, known by %s", c, l.raw(), required)
		}
	} else if !allowed && !(p.walked && isTracer(*l.PID)) {
		p.add(c.NetNS, "%s: wrong owner in %s; want of %s", c, l.raw(), owners(c))
	}
	if l.UID == nil {
		if l.PID != nil {
			p.add(c.NetNS, "%s: owner without uid in %s", c, l.raw())
		}
	} else if c.UID >= 0 && *l.UID != c.UID {
		p.add(c.NetNS, "%s: uid is %d, want %d", c, *l.UID, c.UID)
	}
}

func owners(c *Conn) string {
	var list []string
	for _, o := range c.Owners {
		list = append(list, fmt.Sprintf("%s %s since %d..%d", o.Src, o.Proc, o.Since.Lo, o.Since.Hi))
	}
	return strings.Join(list, ", ")
}

// checkInOld: the time in the old state is the difference of the two
// transitions, or unknown where it cannot be known.
func (p *comparison) checkInOld(c *Conn, offset, i int, lines []*Line) {
	l := lines[i]
	if i > 0 && l.Old != "SYN_RECV" {
		want := *l.TS - *lines[i-1].TS
		if l.InOldNS == nil || *l.InOldNS != want {
			p.add(c.NetNS, "%s: in_old_ns of %s > %s is %s, want %d", c, l.Old, l.New, show(l.InOldNS), want)
		}
		if l.InOldMinNS != nil {
			p.add(c.NetNS, "%s: in_old_min_ns of %s > %s is %d beside a known time", c, l.Old, l.New, *l.InOldMinNS)
		}
		return
	}
	if i > 0 { // SYN_RECV: the handshake's round trip, as its ends saw it
		least, most := int64(1), c.Steps[offset+i].At.Hi-c.Steps[offset+i-1].At.Lo
		if rtt := c.Steps[offset+i].RoundTrip; rtt != (Span{}) {
			least, most = rtt.Lo, rtt.Hi
		}
		if l.InOldNS != nil && (*l.InOldNS < least || *l.InOldNS > most) {
			p.add(c.NetNS, "%s: in_old_ns of SYN_RECV > %s is %d, want %d to %d or null", c, l.New, *l.InOldNS, least, most)
		}
		return
	}
	if offset == 0 {
		if l.InOldNS != nil || l.InOldMinNS != nil {
			p.add(c.NetNS, "%s: time in %s before %s known as %s (at least %s)", c, l.Old, l.New, show(l.InOldNS), show(l.InOldMinNS))
		}
		return
	}
	// It existed before the tracer: a lower bound, which is true and no worse
	// than the time that the tracer watched. The start of TIME_WAIT can be read
	// from its timer.
	prev := c.Steps[offset-1]
	if l.InOldNS != nil && l.Old == "TIME_WAIT" {
		start := *l.TS - *l.InOldNS
		if start < prev.At.Lo-int64(kernelTick+jiffiesLag) || start > prev.At.Hi+int64(kernelTick) {
			p.add(c.NetNS, "%s: TIME_WAIT of %d ns began outside of its bracket", c, *l.InOldNS)
		}
		return
	}
	if l.InOldNS != nil {
		p.add(c.NetNS, "%s: in_old_ns of %s > %s is %d, but it began before the tracer", c, l.Old, l.New, *l.InOldNS)
	}
	if l.InOldMinNS == nil || *l.InOldMinNS <= 0 || *l.InOldMinNS > *l.TS-prev.At.Lo+int64(jiffiesLag) || *l.InOldMinNS < *l.TS-p.out.Ready {
		p.add(c.NetNS, "%s: in_old_min_ns of %s > %s is %s, want %d to %d", c, l.Old, l.New, show(l.InOldMinNS),
			*l.TS-p.out.Ready, *l.TS-prev.At.Lo)
	}
}

// oneOf: value is one of the alternatives in want; null is the empty one.
func oneOf(want, value string) bool { return slices.Contains(strings.Split(want, "|"), value) }

func text(v *string) string {
	if v == nil {
		return ""
	}
	return *v
}

func (p *comparison) checkClosed(c *Conn, steps []Step, g *group) {
	if c.End == nil {
		if len(g.closed) != 0 {
			p.add(c.NetNS, "%s: closed line for a listener", c)
		}
		return
	}
	if len(g.closed) != 1 {
		p.add(c.NetNS, "%s: %d closed lines, want 1", c, len(g.closed))
		return
	}
	l, e, last := g.closed[0], c.End, g.transitions[len(g.transitions)-1]
	if g.order[len(g.order)-1] != l {
		p.add(c.NetNS, "%s: closed is not the last line", c)
	}
	if *l.TS != *last.TS {
		p.add(c.NetNS, "%s: closed at %d, last transition at %d", c, *l.TS, *last.TS)
	}
	bad := func(field string, got, want any) { p.add(c.NetNS, "%s: %s is %v, want %v", c, field, got, want) }
	opened := e.Opened
	if p.pre {
		opened += "|unknown"
	}
	if !oneOf(opened, l.Opened) {
		bad("opened", l.Opened, opened)
	}
	if !oneOf(e.Closer, l.Closer) {
		bad("closer", l.Closer, e.Closer)
	}
	how, reset := e.How, e.Reset
	if final := steps[len(steps)-1]; p.out.Tier == "poll" && final.Old == "FIN_WAIT2" && final.Scanned && final.Timer == 0 {
		// Nobody saw what ended the timewait socket.
		how, reset = how+"||unknown", reset+"|"
	}
	if !oneOf(how, l.How) {
		bad("how", l.How, how)
	}
	if !oneOf(reset, text(l.Reset)) {
		bad("reset", show(l.Reset), reset)
	}
	end := e.TimeWaitEnd
	if p.out.Tier == "poll" && end != "" {
		end += "|unknown"
	}
	if !oneOf(end, text(l.TimeWaitEnd)) {
		bad("time_wait_end", show(l.TimeWaitEnd), end)
	}
	if l.TimeWaitOverflow != e.Overflow {
		bad("time_wait_overflow", l.TimeWaitOverflow, e.Overflow)
	}
	if e.Err != "" && text(l.Error) != e.Err {
		bad("error", show(l.Error), e.Err)
	}
	p.checkClosedBy(c, l)
	p.checkOwner(c, l)
	p.checkIdentity(c, l)
	p.checkExact(c, steps, l)
	p.checkStates(c, g.transitions, l)
}

func (p *comparison) checkClosedBy(c *Conn, l *Line) {
	got, want := l.ClosedBy, c.End.ClosedBy
	known := got != nil && got.PID != nil
	if p.walked && (!known || isTracer(*got.PID)) {
		return
	}
	for _, o := range c.Owners {
		if o.Src == "close" && o.Proc == want && o.Since.Hi < p.out.Started {
			want = nil // nobody was there to see it
		}
	}
	if c.End.AnyClosedBy {
		if known && !slices.ContainsFunc(c.Owners, func(o Owner) bool { return o.Proc.PID == *got.PID && o.Proc.Comm == text(got.Comm) }) {
			p.add(c.NetNS, "%s: closed_by is %d/%s, want of %s", c, *got.PID, text(got.Comm), owners(c))
		}
		return
	}
	if known != (want != nil) || known && (*got.PID != want.PID || text(got.Comm) != want.Comm) {
		is := "null"
		if known {
			is = fmt.Sprintf("%d/%s", *got.PID, text(got.Comm))
		}
		p.add(c.NetNS, "%s: closed_by is %s, want %s", c, is, want)
	}
}

func (p *comparison) checkExact(c *Conn, steps []Step, l *Line) {
	if l.Exact == nil {
		p.add(c.NetNS, "%s: exact is null", c)
		return
	}
	want := !p.pre
	if p.out.Tier == "poll" && slices.ContainsFunc(steps, func(s Step) bool { return s.Scanned }) {
		want = false
	}
	if !c.Inexact && *l.Exact != want {
		p.add(c.NetNS, "%s: exact is %v, want %v", c, *l.Exact, want)
	}
}

// checkStates: the account is the sum of the transitions.
func (p *comparison) checkStates(c *Conn, lines []*Line, l *Line) {
	want := map[string]int64{}
	visited := map[string]bool{}
	for _, t := range lines {
		visited[t.Old] = true
		if t.InOldNS != nil {
			want[t.Old] += *t.InOldNS
		}
	}
	for state, ns := range l.States {
		if !visited[state] {
			p.add(c.NetNS, "%s: states has %s, which it never was in", c, state)
		} else if w, known := want[state]; known && (ns == nil || *ns != w) {
			p.add(c.NetNS, "%s: states.%s is %s, want %d", c, state, show(ns), w)
		} else if !known && ns != nil && !(p.pre && state == lines[0].Old) {
			p.add(c.NetNS, "%s: states.%s is %d, which cannot be known", c, state, *ns)
		}
	}
	for state := range want {
		if _, ok := l.States[state]; !ok {
			p.add(c.NetNS, "%s: states lacks %s", c, state)
		}
	}
	if p.pre {
		return
	}
	// From the first transition to the last; a handshake may add its round trip.
	total := *lines[len(lines)-1].TS - *lines[0].TS
	if l.TotalNS == nil || *l.TotalNS < total || *l.TotalNS > total+want["SYN_RECV"] {
		p.add(c.NetNS, "%s: total_ns is %s, want %d", c, show(l.TotalNS), total)
	}
}
