package advice

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Severity is how much an Item matters.
type Severity uint8

// Severities.
const (
	Note     Severity = iota // worth knowing; may be meant
	Warning                  // will fail, or costs something now
	Critical                 // fails now
)

// String returns note, warning or critical.
func (s Severity) String() string { return [...]string{"note", "warning", "critical"}[s] }

// Units of Evidence.
const (
	UnitNS      = "ns"
	UnitPercent = "%"
	UnitPerSec  = "1/s"
	UnitPerMin  = "1/min"
)

// Evidence is one number that a rule goes by: measured, or the present value of a
// sysctl.
type Evidence struct {
	Name  string
	Value float64
	Unit  string // one of the above, or what is counted; empty: a plain number
	// Text, if not empty, is the value where it is no single number.
	Text    string
	AtLeast bool // the value is a lower bound
}

// Item is one piece of advice.
type Item struct {
	Rule     string
	Severity Severity
	Title    string // one line; names are as processes chose them
	Evidence []Evidence
	Change   string   // what to do
	Cost     string   // what that costs
	Sources  []string // where it is written

	weight float64 // orders the items of one rule, most first
}

// Rule is one rule, as the documentation shows it.
type Rule struct {
	Name    string
	Speaks  string // when it speaks, with its thresholds
	Advice  string // what it advises
	Cost    string
	Sources []string

	find func(f *Facts) []Item
}

// maxItems is how many processes, remotes or listeners one rule names: who has
// fixed three comes back for the rest.
const maxItems = 3

// Rules returns the rules in the order in which their items appear within one
// severity.
func Rules() []Rule {
	return []Rule{
		descriptors,
		closeWait,
		acceptBacklog,
		portExhaustion,
		timeWaitBuckets,
		memory,
		synBacklog,
		timeouts,
		retransmissions,
		refused,
		resetUnread,
		linger0,
		finWait2,
		addressInUse,
		serverClosesFirst,
	}
}

// Advise returns what there is to say, what matters most first; nothing where all
// is well.
func Advise(f *Facts) []Item {
	var all []Item
	for _, rule := range Rules() {
		items := rule.find(f)
		slices.SortStableFunc(items, func(x, y Item) int {
			return cmp.Or(cmp.Compare(y.Severity, x.Severity), cmp.Compare(y.weight, x.weight), cmp.Compare(x.Title, y.Title))
		})
		if more := len(items) - maxItems; more > 0 {
			items = items[:maxItems]
			last := &items[maxItems-1]
			last.Evidence = append(last.Evidence, count("more like this, not shown", int64(more), ""))
		}
		for _, item := range items {
			item.Rule = rule.Name
			item.Cost = cmp.Or(item.Cost, rule.Cost)
			if item.Sources == nil {
				item.Sources = rule.Sources
			}
			if f.Lost > 0 {
				item.Evidence = append(item.Evidence, count("events lost: counts of the run are lower bounds", int64(min(f.Lost, math.MaxInt64)), ""))
			}
			all = append(all, item)
		}
	}
	slices.SortStableFunc(all, func(x, y Item) int { return cmp.Compare(y.Severity, x.Severity) })
	return all
}

// count is evidence of a number of things.
func count(name string, n int64, unit string) Evidence {
	return Evidence{Name: name, Value: float64(n), Unit: unit}
}

// known appends the evidence if its number is known.
func known(list []Evidence, name string, n int64, unit string) []Evidence {
	if n < 0 {
		return list
	}
	return append(list, count(name, n, unit))
}

// some appends the evidence if its number is known and not zero.
func some(list []Evidence, name string, n int64, unit string) []Evidence {
	if n <= 0 {
		return list
	}
	return append(list, count(name, n, unit))
}

// perSecond returns the mean rate of n in the run to a tenth; false: not known.
func (f *Facts) perSecond(n int64) (float64, bool) {
	if f.Duration <= 0 || n < 0 {
		return 0, false
	}
	return tenths(float64(n) / (float64(f.Duration) / 1e9)), true
}

func tenths(v float64) float64 { return math.Round(v*10) / 10 }

// percent returns part of whole, rounded down.
func percent(part, whole int64) float64 { return math.Floor(float64(part) * 100 / float64(whole)) }

// space returns the facts of a namespace. One that is not known to be another is
// the only one there is.
func (f *Facts) space(netns uint32) *Namespace {
	for i := range f.Namespaces {
		if f.Namespaces[i].NetNS == netns {
			return &f.Namespaces[i]
		}
	}
	if netns == 0 && len(f.Namespaces) == 1 {
		return &f.Namespaces[0]
	}
	return &Namespace{}
}

// where appends which namespace the item is about, if there are several.
func (f *Facts) where(list []Evidence, netns uint32) []Evidence {
	if len(f.Namespaces) < 2 || netns == 0 {
		return list
	}
	return append(list, Evidence{Name: "network namespace", Text: cmp.Or(f.space(netns).Name, strconv.FormatUint(uint64(netns), 10))})
}

// number returns the value of a sysctl that is one number.
func (ns *Namespace) number(sysctl string) (int64, bool) {
	n, err := strconv.ParseInt(strings.TrimSpace(ns.Sysctls[sysctl]), 10, 64)
	return n, err == nil
}

// is reports whether the sysctl is known to have the value.
func (ns *Namespace) is(sysctl string, value int64) bool {
	n, ok := ns.number(sysctl)
	return ok && n == value
}

// grew returns how much a counter grew; 0 where that is not known.
func (ns *Namespace) grew(counter string) int64 { return max(ns.Counters[counter], 0) }

// sysctls appends the present values of those that are known.
func (ns *Namespace) sysctls(list []Evidence, names ...string) []Evidence {
	for _, name := range names {
		if n, ok := ns.number(name); ok {
			list = append(list, count(name, n, units[name]))
			continue
		}
		if text := strings.Join(strings.Fields(ns.Sysctls[name]), " "); text != "" {
			list = append(list, Evidence{Name: name, Text: text})
		}
	}
	return list
}

// counters appends those that grew.
func (ns *Namespace) counters(list []Evidence, names ...string) []Evidence {
	for _, name := range names {
		list = some(list, name, ns.grew(name), "")
	}
	return list
}

// who names a process.
func who(pid uint32, comm string) string {
	if pid == 0 {
		return "a process that is not known"
	}
	return fmt.Sprintf("%s (%d)", comm, pid)
}

// thousands writes a number in groups of three digits.
func thousands(n int64) string {
	s := strconv.FormatInt(n, 10)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// plural writes a number of things.
func plural(n int64, one, many string) string {
	if n == 1 {
		return "1 " + one
	}
	return thousands(n) + " " + many
}

// sentences joins those that are not empty.
func sentences(list ...string) string {
	return strings.Join(slices.DeleteFunc(list, func(s string) bool { return s == "" }), " ")
}

// when returns text if it applies.
func when(applies bool, text string) string {
	if applies {
		return text
	}
	return ""
}
