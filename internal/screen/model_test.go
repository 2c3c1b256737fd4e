package screen

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/watch"
)

var update = flag.Bool("update", false, "write the golden files anew")

// driver sends a model what a program would, and draws after each message as a
// program does.
type driver struct {
	*model
	t *testing.T
}

func drive(t *testing.T, w, h int) *driver {
	d := &driver{newModel(fakeOptions()), t}
	d.send(tea.WindowSizeMsg{Width: w, Height: h})
	return d
}

func (d *driver) send(msg tea.Msg) tea.Cmd {
	d.t.Helper()
	_, cmd := d.Update(msg)
	d.View()
	return cmd
}

var fakeNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (d *driver) snapshot(s *watch.Snapshot) { d.send(snapshotMsg{s, fakeNow}) }

// keys presses keys, named as in tea.Key.String and separated by spaces.
func (d *driver) keys(names string) (cmd tea.Cmd) {
	d.t.Helper()
	for name := range strings.FieldsSeq(names) {
		cmd = d.send(keyPress(d.t, name))
	}
	return cmd
}

func (d *driver) typed(text string) {
	for _, r := range text {
		d.send(tea.KeyPressMsg{Code: r, Text: string(r)})
	}
}

func keyPress(t *testing.T, name string) tea.KeyPressMsg {
	special := map[string]tea.KeyPressMsg{
		"up": {Code: tea.KeyUp}, "down": {Code: tea.KeyDown}, "left": {Code: tea.KeyLeft},
		"right": {Code: tea.KeyRight}, "pgup": {Code: tea.KeyPgUp}, "pgdown": {Code: tea.KeyPgDown},
		"home": {Code: tea.KeyHome}, "end": {Code: tea.KeyEnd}, "enter": {Code: tea.KeyEnter},
		"esc": {Code: tea.KeyEscape}, "backspace": {Code: tea.KeyBackspace}, "f1": {Code: tea.KeyF1},
		"space":  {Code: tea.KeySpace, Text: " "},
		"ctrl+c": {Code: 'c', Mod: tea.ModCtrl}, "ctrl+z": {Code: 'z', Mod: tea.ModCtrl},
		"ctrl+u": {Code: 'u', Mod: tea.ModCtrl}, "ctrl+w": {Code: 'w', Mod: tea.ModCtrl},
		"ctrl+f": {Code: 'f', Mod: tea.ModCtrl}, "ctrl+b": {Code: 'b', Mod: tea.ModCtrl},
	}
	if k, ok := special[name]; ok {
		if k.String() != name {
			t.Fatalf("key %q is called %q", name, k.String())
		}
		return k
	}
	if len(name) != 1 {
		t.Fatalf("no such key: %q", name)
	}
	return tea.KeyPressMsg{Code: rune(name[0]), Text: name}
}

func (d *driver) text() string { return ansi.Strip(d.draw()) }

// pids returns the column of PIDs as it is shown, the selected one marked.
func (d *driver) pids() string {
	var list []string
	for i, g := range d.groups.rows {
		s := strconv.Itoa(int(g.PID))
		if i == d.groups.sel {
			s = ">" + s
		}
		list = append(list, s)
	}
	return strings.Join(list, " ")
}

func (d *driver) want(what, got, want string) {
	d.t.Helper()
	if got != want {
		d.t.Errorf("%s: got %q, want %q", what, got, want)
	}
}

func (d *driver) shows(parts ...string) {
	d.t.Helper()
	text := d.text()
	for _, p := range parts {
		if !strings.Contains(text, p) {
			d.t.Errorf("%q is not shown in\n%s", p, text)
		}
	}
}

func (d *driver) hides(parts ...string) {
	d.t.Helper()
	text := d.text()
	for _, p := range parts {
		if strings.Contains(text, p) {
			d.t.Errorf("%q is shown in\n%s", p, text)
		}
	}
}

// isQuit reports whether the command ends the program.
func isQuit(cmd tea.Cmd) bool {
	if cmd == nil {
		return false
	}
	_, ok := cmd().(tea.QuitMsg)
	return ok
}

// several is a snapshot of two states, with a note.
func several() *watch.Snapshot {
	s := fakeSnapshot()
	s.States = events.Set(events.CloseWait, events.LastAck)
	s.Counts[events.LastAck] = 2
	last := fakeGroup(1234, "nginx", 1021, 1024, watch.ReasonNone, watch.ReasonNone)
	last.State, last.Reasons, last.Verdict = events.LastAck, nil, "the remote does not acknowledge the FIN"
	for i, sock := range last.Sockets {
		sock.State, sock.ID, sock.TXPending = events.LastAck, 1<<50+uint64(i), 1
	}
	s.Groups = append(s.Groups, last)
	s.Total += 2
	s.Notes = []string{"network namespace 4026532281 could not be entered: its sockets are not shown", "/proc is mounted with hidepid: names of other users' processes are unknown"}
	return s
}

func empty() *watch.Snapshot {
	s := &watch.Snapshot{TS: second, States: events.Set(events.CloseWait), Hooks: "fentry"}
	s.Counts[events.Established] = 3
	return s
}

// scenes are what the screen can look like.
var scenes = []struct {
	name string
	play func(d *driver)
}{
	{"waiting", func(d *driver) {}},
	{"empty", func(d *driver) { d.snapshot(empty()) }},
	{"groups", func(d *driver) { d.snapshot(fakeSnapshot()) }},
	{"several", func(d *driver) { d.snapshot(several()); d.keys("end") }},
	{"sorted", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("3 3") }},
	{"many", func(d *driver) { d.snapshot(fakeCrowd(10000)); d.keys("pgdown pgdown") }},
	{"detail", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("enter down") }},
	{"detail6", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("j enter") }},
	{"backlog", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("j j enter") }},
	{"gone", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("enter"); d.snapshot(empty()) }},
	{"timewait", func(d *driver) { d.snapshot(fakeTimeWait()) }},
	{"timewait-detail", func(d *driver) { d.snapshot(fakeTimeWait()); d.keys("enter 1") }},
	{"ports", func(d *driver) { d.snapshot(fakeTimeWait()); d.keys("P") }},
	{"typing", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("/"); d.typed("192.168.210 unr") }},
	{"filtered", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("/"); d.typed("unread"); d.keys("enter enter") }},
	{"no-match", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("/"); d.typed("postgres"); d.keys("enter") }},
	{"paused", func(d *driver) { d.snapshot(fakeSnapshot()); d.keys("p"); d.snapshot(empty()) }},
	{"ended", func(d *driver) { d.snapshot(fakeTimeWait()); d.send(endMsg{}) }},
	{"stale", func(d *driver) { d.snapshot(fakeSnapshot()); d.send(tickMsg(fakeNow.Add(64 * time.Second))) }},
	{"help", func(d *driver) { d.snapshot(several()); d.keys("?") }},
	{"help-end", func(d *driver) { d.snapshot(several()); d.keys("? end") }},
}

func TestGolden(t *testing.T) {
	for _, scene := range scenes {
		for _, size := range []struct{ w, h int }{{80, 24}, {120, 40}} {
			name := scene.name + "-" + strconv.Itoa(size.w)
			t.Run(name, func(t *testing.T) {
				d := drive(t, size.w, size.h)
				scene.play(d)
				var got strings.Builder
				for line := range strings.SplitSeq(d.text(), "\n") {
					got.WriteString(strings.TrimRight(line, " ") + "\n")
				}
				file := filepath.Join("testdata", name+".txt")
				if *update {
					if err := os.WriteFile(file, []byte(got.String()), 0o644); err != nil {
						t.Fatal(err)
					}
				}
				want, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if got.String() != string(want) {
					t.Errorf("got\n%swant\n%s", got.String(), want)
				}
			})
		}
	}
}

// TestFits draws every scene in every small size and some large ones.
func TestFits(t *testing.T) {
	for _, scene := range scenes {
		t.Run(scene.name, func(t *testing.T) {
			d := drive(t, 80, 24)
			scene.play(d)
			check := func(w, h int) {
				d.send(tea.WindowSizeMsg{Width: w, Height: h})
				out := d.draw()
				lines := strings.Split(out, "\n")
				if len(lines) != h {
					t.Fatalf("%dx%d: %d lines", w, h, len(lines))
				}
				for _, l := range lines {
					plain := ansi.Strip(l)
					if strings.ContainsFunc(plain, func(r rune) bool { return r < ' ' || r == 0x7f }) {
						t.Fatalf("%dx%d: control characters in %q", w, h, plain)
					}
					// The renderer measures in one way or the other, as
					// the terminal does.
					if a, b := ansi.StringWidth(plain), ansi.StringWidthWc(plain); a > w || b != a {
						t.Fatalf("%dx%d: %d and %d cells in %q", w, h, a, b, plain)
					}
				}
			}
			for w := 1; w <= 130; w++ {
				for _, h := range []int{1, 3, 7, 12, 24} {
					check(w, h)
				}
			}
			for h := 1; h <= 45; h++ {
				check(80, h)
			}
			check(500, 200)
			check(20, 100)
			check(500, 5)
		})
	}
}

func TestNoSize(t *testing.T) {
	m := newModel(fakeOptions())
	m.Update(snapshotMsg{fakeSnapshot(), fakeNow})
	if got := m.View(); got.Content != "" || !got.AltScreen {
		t.Errorf("before the size is known: %+v", got)
	}
}

func TestSelection(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeSnapshot())
	d.want("at first", d.pids(), ">1234 4321 77 31337 99999 0")
	d.keys("down j")
	d.want("down j", d.pids(), "1234 4321 >77 31337 99999 0")
	d.keys("k")
	d.want("k", d.pids(), "1234 >4321 77 31337 99999 0")

	s := fakeSnapshot()
	slices.Reverse(s.Groups)
	d.snapshot(s)
	d.want("order changed", d.pids(), "0 99999 31337 77 >4321 1234")

	s = fakeSnapshot()
	s.Groups = slices.Delete(s.Groups, 1, 2)
	d.snapshot(s)
	d.want("selected is gone", d.pids(), "1234 77 31337 99999 >0")
	d.keys("home up")
	d.want("home up", d.pids(), ">1234 77 31337 99999 0")
	d.keys("end down")
	d.want("end down", d.pids(), "1234 77 31337 99999 >0")
	d.snapshot(empty())
	d.keys("down up pgdown pgup home end enter")
	d.want("empty", d.pids(), "")
	d.snapshot(fakeSnapshot())
	d.want("back", d.pids(), ">1234 4321 77 31337 99999 0")
}

func TestScroll(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeCrowd(1000))
	height := d.groups.height
	if height < 10 {
		t.Fatalf("80x24 shows %d rows", height)
	}
	d.keys("pgdown")
	if d.groups.sel != height-1 || d.groups.top != 0 {
		t.Errorf("pgdown: row %d, top %d", d.groups.sel, d.groups.top)
	}
	d.keys("ctrl+f")
	if d.groups.sel != 2*(height-1) || d.groups.top != height-1 {
		t.Errorf("ctrl+f: row %d, top %d", d.groups.sel, d.groups.top)
	}
	d.keys("G")
	d.shows("worker-999", strconv.Itoa(1000-height+1)+"-1,000 of 1,000")
	d.keys("ctrl+b g")
	d.shows("worker-0 ", "1-"+strconv.Itoa(height)+" of 1,000")
	d.keys("end")
	for _, h := range []int{60, 12, 6, 24} {
		d.send(tea.WindowSizeMsg{Width: 80, Height: h})
		if d.groups.sel != 999 || d.groups.sel >= d.groups.top+max(d.groups.height, 1) {
			t.Errorf("%d lines: row %d, rows %d to %d are visible", h, d.groups.sel, d.groups.top, d.groups.top+d.groups.height)
		}
	}
	d.shows(">   1999 worker-999")
}

func TestSort(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeSnapshot())
	for _, tt := range []struct{ keys, want, order string }{
		{"3", ">1234 4321 77 31337 99999 0", "COUNT down"},
		{"3", "99999 0 31337 77 4321 >1234", "COUNT up"},
		{"r", ">1234 4321 77 31337 99999 0", "COUNT down"},
		{"1", "0 77 >1234 4321 31337 99999", "PID up"},
		{"1", "99999 31337 4321 >1234 77 0", "PID down"},
		{"2", "0 99999 4321 >1234 77 31337", "COMM up"},
		{"6", ">1234 4321 77 31337 99999 0", "GROW down"},
		{"7", "4321 >1234 99999 77 31337 0", "FDS down"},
		{"8", ">1234 4321 77 31337 99999 0", "FULL IN up"},
		{"9", "99999 31337 >1234 4321 0 77", "WHY up"},
		{"0", ">1234 4321 77 31337 99999 0", "worst first"},
		{">", "0 77 >1234 4321 31337 99999", "PID up"},
		{"<", ">1234 4321 77 31337 99999 0", "worst first"},
	} {
		d.keys(tt.keys)
		d.want("after "+tt.keys, d.pids(), tt.want)
		d.shows("sort: " + tt.order)
	}
	// An order is kept by the next snapshot.
	d.keys("3 3")
	d.snapshot(fakeSnapshot())
	d.want("next snapshot", d.pids(), "99999 0 31337 77 4321 >1234")
	d.shows("^COUNT")
	// The order stays with the column where a column is put before it.
	d.snapshot(several())
	d.shows("sort: COUNT up", "3STATE", "^COUNT")
	// A column that is gone leaves the order as it comes.
	d.keys("3")
	d.shows("sort: STATE up")
	d.snapshot(fakeSnapshot())
	d.shows("sort: worst first")
}

// TestSortColumns sorts by each column of every table, both ways.
func TestSortColumns(t *testing.T) {
	d := drive(t, 200, 50)
	for _, s := range []*watch.Snapshot{fakeSnapshot(), several(), fakeTimeWait()} {
		d.snapshot(s)
		checkSort(t, &d.groups, func() { d.arrange() })
		d.keys("enter")
		checkSort(t, &d.sockets, func() { d.arrangeSockets() })
		d.keys("esc P")
		checkSort(t, &d.ports, func() { d.arrange() })
		d.keys("esc")
	}
}

func checkSort[T any, K comparable](t *testing.T, table *table[T, K], arrange func()) {
	t.Helper()
	n := len(table.rows)
	for i, col := range table.cols {
		for _, desc := range []bool{false, true} {
			table.sort, table.desc = i, desc
			arrange()
			if len(table.rows) != n {
				t.Errorf("%s: %d of %d rows are left", col.title, len(table.rows), n)
			}
			if !slices.IsSortedFunc(table.rows, func(a, b T) int {
				if desc {
					a, b = b, a
				}
				return col.cmp(a, b)
			}) {
				t.Errorf("%s, down %v: not sorted", col.title, desc)
			}
		}
	}
	table.sort = -1
	arrange()
}

func TestFilter(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeSnapshot())
	for _, tt := range []struct{ filter, want string }{
		{"nginx", ">1234"},
		{"NGINX", ">1234"},
		{"4321", ">4321"},
		{"docker", ">4321"},
		{"サーバ", ">31337"},
		{"not-accepted", ">77"},
		{"unread", ">1234 4321"}, // fin-unread too
		{"unread nginx", ">1234"},
		{"nginx.service", ">1234"},
		{"app.conf", ">1234 4321 77 31337 99999"},
		{"2001:db8:aaaa:bbbb:cccc:dddd:eeee:f010", ">4321"},
		{"]:443", ">4321"},
		{"192.168.77.3", ">77"},
		{"192.168.77.3 drained", ""}, // no socket is both
		{"kernel", ">0"},
		{"close_wait", ">1234 4321 77 31337 99999 0"},
		{`got\x0ayou`, ">99999"},
		{"   ", ">1234 4321 77 31337 99999 0"},
	} {
		d.keys("/")
		d.typed(tt.filter)
		d.want(tt.filter, d.pids(), tt.want)
		d.shows("filter: "+tt.filter+"_", "enter keep")
		d.keys("enter esc")
		d.want(tt.filter+" cleared", strings.ReplaceAll(d.pids(), ">", ""), "1234 4321 77 31337 99999 0")
		d.keys("home")
	}

	d.keys("/")
	d.typed("nginx zz")
	d.want("nginx zz", d.pids(), "")
	d.shows(`matches the filter "nginx zz"; 6 hidden`)
	d.keys("backspace backspace")
	d.want("backspace", d.pids(), ">1234")
	d.typed("zz")
	d.keys("ctrl+w")
	d.want("ctrl+w", d.filter.text, "nginx ")
	d.keys("ctrl+w")
	d.want("ctrl+w", d.filter.text, "")
	d.typed("q?p/31")
	d.want("keys are text", d.filter.text, "q?p/31")
	d.keys("ctrl+u backspace")
	d.want("ctrl+u", d.filter.text, "")
	d.send(tea.PasteMsg{Content: "java\n\x1b[2J\tfin\xff"})
	d.want("paste", d.filter.text, "java [2J fin")
	d.send(tea.PasteMsg{Content: strings.Repeat("x", 1000)})
	d.want("long paste", d.filter.text, "java [2J fin")
	d.keys("ctrl+u down")
	d.want("select while typing", d.pids(), "1234 >4321 77 31337 99999 0")
	d.typed("java")
	d.keys("esc")
	d.want("esc", d.filter.text, "")
	if d.typing {
		t.Error("esc leaves the input open")
	}
	// What is pasted when no filter is typed does nothing.
	d.send(tea.PasteMsg{Content: "q"})
	d.want("paste outside", d.filter.text, "")
}

func TestFilterSockets(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeSnapshot())
	d.keys("enter")
	for _, tt := range []struct {
		filter string
		want   int
	}{
		{"unread", 12}, {"drained", 23}, {"nginx", 35}, {"192.168.210.3", 7}, {"192.168.210.3 unread", 2},
		{":40007", 1}, {"java", 0},
	} {
		d.keys("/")
		d.typed(tt.filter)
		d.keys("enter")
		if got := len(d.sockets.rows); got != tt.want {
			t.Errorf("%q: %d sockets, want %d", tt.filter, got, tt.want)
		}
		d.shows("filter: " + tt.filter)
		d.keys("/ esc")
	}
}

func TestDetail(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeSnapshot())
	d.keys("enter")
	d.shows("nginx[1234]  35 sockets in CLOSE_WAIT", "/usr/sbin/nginx -c /etc/app.conf", "1,021 of 1,024, full in 3m12s",
		"systemd nginx.service", "drained 23, unread 12", "192.168.210.1:40000 35", "nginx: worker[1235] 5",
		"10.1.2.3:8080", ">=12m04s", "7 +1p", "sk:1000", "netns 4026531840", "esc back")
	d.keys("down down")
	s, _ := d.sockets.selected()
	// The selected socket stays selected when others come and go.
	next := fakeSnapshot()
	next.Groups[0].Sockets = next.Groups[0].Sockets[1:]
	d.snapshot(next)
	if got, ok := d.sockets.selected(); !ok || got.ID != s.ID || d.sockets.sel != 1 {
		t.Errorf("selected: %+v in row %d, want %+v", got, d.sockets.sel, s)
	}
	// The order of its own.
	d.keys("5")
	if got, _ := d.sockets.selected(); got.ID != s.ID {
		t.Errorf("sorting selects another socket")
	}
	d.keys("home")
	d.shows("sort: UNREAD down", "unread: 1,034 bytes, FIN waits")
	// Gone, and back.
	d.snapshot(empty())
	d.shows("nginx[1234]", "None of its sockets is in CLOSE_WAIT any more")
	d.keys("down end /")
	d.typed("x")
	d.keys("esc")
	d.snapshot(fakeSnapshot())
	d.shows("nginx[1234]  35 sockets")
	d.keys("esc")
	d.shows("6 of 6", ">   1234 nginx")
	d.keys("down down right")
	d.shows("python3[77]  12 sockets", "not-accepted 12", "in the backlog of python3[77]")
	d.keys("left j j j enter")
	d.shows("(kernel)", "kernel 1")
	d.keys("backspace")
	d.shows("sort: worst first")
}

func TestRenamedProcess(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeSnapshot())
	d.keys("down enter")
	s := fakeSnapshot()
	s.Groups[1].Comm = "renamed"
	d.snapshot(s)
	d.shows("renamed[4321]  23 sockets")
}

func TestPause(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeSnapshot())
	d.keys("p")
	d.shows("PAUSED", "74 sockets", "12:12:34")
	d.snapshot(empty())
	d.shows("PAUSED", "74 sockets", "12:12:34")
	// One can look around meanwhile.
	d.keys("down enter")
	d.shows("java[4321]", "PAUSED")
	d.keys("esc space")
	d.hides("PAUSED")
	d.shows("0 sockets", "There is no socket in CLOSE_WAIT now", "Watching goes on", "12:00:01")
	d.keys("p p")
	d.shows("0 sockets")
}

func TestTitle(t *testing.T) {
	d := drive(t, 80, 24)
	s := fakeSnapshot()
	d.snapshot(s)
	d.hides("LOST", "NO NEWS", "ENDED")
	d.send(tickMsg(fakeNow.Add(4 * time.Second)))
	d.hides("NO NEWS")
	d.send(tickMsg(fakeNow.Add(64 * time.Second)))
	d.shows("NO NEWS FOR 1m4s")
	s.Lost = 1234
	d.snapshot(s)
	d.shows("LOST 1,234 EVENTS", "lost 1,234")
	d.hides("NO NEWS")
	d.send(endMsg{})
	d.send(tickMsg(fakeNow.Add(time.Hour)))
	d.shows("ENDED")
	d.hides("NO NEWS")
	// On the help page, and where there is little room, loss is still loud.
	d.keys("?")
	d.shows("LOST 1,234 EVENTS")
	s.Lost, s.Untracked = 0, 4321
	d.snapshot(s)
	d.shows("4,321 NOT TRACKED")
	s.Lost, s.Untracked = 1234, 0
	d.snapshot(s)
	d.send(tea.WindowSizeMsg{Width: 40, Height: 10})
	d.shows("LOST 1,234 EVENTS")
}

func TestHelp(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(several())
	d.shows("note: network namespace 4026532281", "(1 more: ?)")
	d.keys("?")
	d.shows("KEYS", "q Ctrl-C", "1-22 of ")
	d.hides("sort: ")
	d.keys("end")
	d.shows("NOTES", "/proc is mounted with hidepid")
	d.keys("home k")
	d.shows("KEYS")
	d.keys("pgdown")
	d.hides("KEYS")
	d.keys("esc")
	d.shows("sort: worst first")
	d.keys("enter ? ?")
	d.shows("sort: oldest first")
	d.keys("h f1")
	d.shows("sort: oldest first")
}

func TestPorts(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeTimeWait())
	d.shows("local ports 10.0.0.1 -> 10.0.0.9:80: 27,123 of 28,232 used (96 %), full in 3m12s", "27123/28232!")
	d.keys("P")
	d.shows("96 %!", "3m12s", "10.0.0.10:443", "211")
	d.keys("3 3 /")
	d.typed("10.0.0.10")
	d.keys("enter")
	d.shows("1-1 of 1")
	d.keys("P")
	d.shows("filter: 10.0.0.10", "(unknown)")
	d.keys("esc")
	d.snapshot(fakeSnapshot())
	d.keys("P")
	d.shows("told when TIME_WAIT is watched")
}

func TestQuit(t *testing.T) {
	d := drive(t, 80, 24)
	for _, where := range []string{"", "enter", "P", "?"} {
		d.snapshot(fakeSnapshot())
		d.keys(where)
		for _, key := range []string{"q", "ctrl+c"} {
			if !isQuit(d.keys(key)) {
				t.Errorf("after %q: %s does not quit", where, key)
			}
		}
		d.keys("esc")
	}
	d.keys("/")
	if isQuit(d.keys("q")) || d.filter.text != "q" {
		t.Error("q is no letter of the filter")
	}
	if !isQuit(d.keys("ctrl+c")) {
		t.Error("ctrl+c does not quit while typing")
	}
	if cmd := d.keys("ctrl+z"); cmd == nil {
		t.Error("ctrl+z does nothing")
	} else if _, ok := cmd().(tea.SuspendMsg); !ok {
		t.Error("ctrl+z does not suspend")
	}
}

// TestWithoutColour: what differs in colour differs in text as well.
func TestWithoutColour(t *testing.T) {
	d := drive(t, 80, 24)
	d.snapshot(fakeSnapshot())
	calm := d.text()
	s := fakeSnapshot()
	s.Groups[0].Holder.OpenFDs = 9
	d.snapshot(s)
	if loud := strings.Count(calm, "!"); loud != 1 || strings.Contains(d.text(), "!") {
		t.Errorf("a full table of descriptors is marked %d times", loud)
	}
	for line := range strings.SplitSeq(d.draw(), "\n") {
		plain := ansi.Strip(line)
		if strings.Contains(line, "\x1b[7m") && !strings.HasPrefix(plain, ">") {
			t.Errorf("reverse only: %q", plain)
		}
	}
}

func TestShortAddr(t *testing.T) {
	for _, tt := range []struct {
		in    string
		width int
		want  string
	}{
		{"192.168.111.222:65535", 21, "192.168.111.222:65535"},
		{"[2001:db8:1111:2222:3333:4444:5555:6666]:65535", 46, "[2001:db8:1111:2222:3333:4444:5555:6666]:65535"},
		{"[2001:db8:1111:2222:3333:4444:5555:6666]:65535", 21, "[2001:db8:11..]:65535"},
		{"2001:db8:1111:2222:3333:4444:5555:6666", 21, "2001:db8:1111:..:6666"},
		{"192.168.111.222:65535", 10, "192.168.1+"},
		{"-", 21, "-"},
	} {
		if got := shortAddr(tt.in, tt.width); got != tt.want {
			t.Errorf("shortAddr(%s, %d) = %s, want %s", tt.in, tt.width, got, tt.want)
		}
	}
}

func TestWrap(t *testing.T) {
	for _, tt := range []struct {
		in    string
		w, n  int
		lines []string
	}{
		{"", 10, 2, nil},
		{"abc", 10, 2, []string{"abc"}},
		{"aaa bbb ccc", 7, 2, []string{"aaa bbb", "ccc"}},
		{"aaa bbb ccc", 6, 3, []string{"aaa", "bbb", "ccc"}},
		{"aaa bbb ccc", 6, 2, []string{"aaa", "bbb c+"}},
		{"aaaaaaaaaa", 4, 2, []string{"aaaa", "aaa+"}},
		{"日本語です", 4, 3, []string{"日本", "語で", "す"}},
		{"日本", 1, 3, []string{"+"}},
		{"abc", 0, 3, nil},
	} {
		if got := wrap(tt.in, tt.w, tt.n); !slices.Equal(got, tt.lines) {
			t.Errorf("wrap(%q, %d, %d) = %q, want %q", tt.in, tt.w, tt.n, got, tt.lines)
		}
	}
}

// TestVisibleOnly: a view costs what is visible, however long the list is.
func TestVisibleOnly(t *testing.T) {
	allocs := func(s *watch.Snapshot, keys string) float64 {
		d := drive(t, 80, 24)
		d.snapshot(s)
		d.keys(keys)
		return testing.AllocsPerRun(20, func() { d.View() })
	}
	for _, tt := range []struct {
		name string
		make func(n int) *watch.Snapshot
		keys string
	}{
		{"sockets", fakeMany, "enter pgdown pgdown"},
		{"processes", fakeCrowd, "pgdown pgdown"},
	} {
		few, many := allocs(tt.make(100), tt.keys), allocs(tt.make(20000), tt.keys)
		if many > few*1.2+10 {
			t.Errorf("%s: %v allocations for 20,000, %v for 100", tt.name, many, few)
		}
	}
}

func BenchmarkView(b *testing.B) {
	for _, bb := range []struct {
		name string
		snap *watch.Snapshot
		keys []rune
	}{
		{"sockets=10000", fakeMany(10000), []rune{tea.KeyEnter, tea.KeyPgDown}},
		{"processes=10000", fakeCrowd(10000), []rune{tea.KeyPgDown}},
	} {
		b.Run(bb.name, func(b *testing.B) {
			m := newModel(fakeOptions())
			m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
			m.Update(snapshotMsg{bb.snap, fakeNow})
			for _, k := range bb.keys {
				m.Update(tea.KeyPressMsg{Code: k})
			}
			b.ReportAllocs()
			for b.Loop() {
				m.View()
			}
		})
	}
}

func BenchmarkUpdate(b *testing.B) {
	sockets, crowd := fakeMany(10000), fakeCrowd(10000)
	for _, bb := range []struct {
		name   string
		snap   *watch.Snapshot
		keys   []tea.KeyPressMsg
		filter string
	}{
		{"key", sockets, []tea.KeyPressMsg{{Code: tea.KeyEnter}}, ""},
		{"sockets=10000", sockets, []tea.KeyPressMsg{{Code: tea.KeyEnter}}, ""},
		{"sockets=10000/sorted", sockets, []tea.KeyPressMsg{{Code: tea.KeyEnter}, {Code: '2', Text: "2"}}, ""},
		{"sockets=10000/filtered", sockets, []tea.KeyPressMsg{{Code: tea.KeyEnter}}, "192.168.146.3 drained"},
		{"processes=10000", crowd, nil, ""},
		{"processes=10000/sorted", crowd, []tea.KeyPressMsg{{Code: '2', Text: "2"}}, ""},
		{"processes=10000/filtered", crowd, nil, "worker-77"},
	} {
		b.Run(bb.name, func(b *testing.B) {
			m := newModel(fakeOptions())
			m.Update(tea.WindowSizeMsg{Width: 80, Height: 24})
			m.Update(snapshotMsg{bb.snap, fakeNow})
			for _, k := range bb.keys {
				m.Update(k)
			}
			m.setFilter(bb.filter)
			b.ReportAllocs()
			for b.Loop() {
				if bb.name == "key" {
					m.Update(tea.KeyPressMsg{Code: tea.KeyDown})
				} else {
					m.Update(snapshotMsg{bb.snap, fakeNow})
				}
			}
		})
	}
}
