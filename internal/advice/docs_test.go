package advice_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tcptrace/tcptrace/internal/advice"
)

const docsIntro = `# Advice

What ` + "`tcptrace --summary`" + ` says under ADVICE, and as ` + "`advice`" + ` in its JSON. Each rule looks
at measured numbers, and at the sysctls of the network namespace, which it shows
beside them. It speaks where a number crosses its threshold, is silent about what is
not known, and changes nothing: no sysctl is ever written.

An item has a severity (critical: fails now; warning: will fail, or costs something
now; note: worth knowing, may be meant), the evidence, what to change, what that
costs, and where it is written. A rule names three processes, remotes or listeners
at most, the worst first. If events were lost, every item says so: counts of the run
are lower bounds then.

ip-sysctl.rst and snmp_counter.rst are the kernel's pages under
Documentation/networking.

## What many guides say, and what is true

- **tcp_fin_timeout does not shorten TIME_WAIT.** It bounds FIN_WAIT2 after close().
  TIME_WAIT lasts 60 s on Linux, whatever any sysctl says (TCP_TIMEWAIT_LEN).
- **tcp_tw_recycle is gone** since Linux 4.12 (commit 4396e46187ca). It dropped the
  SYNs of clients that share an address behind NAT.
- **tcp_max_tw_buckets must not be lowered.** A TIME_WAIT that finds no room is left
  out, and with it what protects the next connection (RFC 1337).
- **tcp_tw_reuse is for outgoing connections only**, and needs timestamps on both
  sides.
- **tcp_max_syn_backlog is ignored while syncookies are on**, which is the default:
  the backlog of listen(), cut to somaxconn, is what limits half-open connections.
- **No sysctl helps against CLOSE_WAIT.** The kernel waits for the program.
- **TIME_WAIT on a server uses up no ports** for connect(). On the side that opens
  the connections it does.

"Address already in use" is the error of a bind() that tcptrace does not see. What
it does see is a port on which nobody listens and sockets are left, and that is all
that the rule address-in-use says.

`

// The page is what the rules say of themselves, with an example of each.
func TestDocs(t *testing.T) {
	var page bytes.Buffer
	page.WriteString(docsIntro)
	page.WriteString("## The rules\n\n")
	for _, rule := range advice.Rules() {
		fmt.Fprintf(&page, "### %s\n\n", rule.Name)
		fmt.Fprintf(&page, "- **speaks when** %s.\n", rule.Speaks)
		fmt.Fprintf(&page, "- **advises** %s.\n", rule.Advice)
		fmt.Fprintf(&page, "- **costs** %s\n", rule.Cost)
		fmt.Fprintf(&page, "- **sources** %s.\n", strings.Join(rule.Sources, "; "))
		example, err := os.ReadFile(filepath.Join("testdata", rule.Name+".txt"))
		if err != nil {
			t.Fatal(err)
		}
		_, text, _ := strings.Cut(string(example), "\n\n")
		fmt.Fprintf(&page, "\n```\n%s```\n\n", text)
	}
	golden(t, filepath.Join("..", "..", "docs", "advice.md"), append(bytes.TrimRight(page.Bytes(), "\n"), '\n'))
}
