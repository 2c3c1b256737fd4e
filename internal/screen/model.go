package screen

import (
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"

	"github.com/tcptrace/tcptrace/internal/watch"
)

// view is what the screen shows.
type view uint8

const (
	viewGroups view = iota // the processes
	viewDetail             // the sockets of one process
	viewPorts              // the use of local ports
	viewHelp
)

// snapshotMsg brings the next snapshot.
type snapshotMsg struct {
	snap *watch.Snapshot
	at   time.Time
}

// endMsg says that no more snapshots will come.
type endMsg struct{}

// tickMsg brings the time of day, to notice snapshots that fail to come.
type tickMsg time.Time

// maxFilter bounds the filter's length in bytes: a paste by accident.
const maxFilter = 200

// model is the state of the screen. It changes in Update only; View may move
// what is visible, as only it knows the room.
type model struct {
	opt  Options
	w, h int

	snap    *watch.Snapshot // nil: none came yet
	next    *watch.Snapshot // came while paused
	paused  bool
	ended   bool
	arrived time.Time
	now     time.Time

	view    view
	back    view // where help was called
	groups  table[*watch.Group, groupKey]
	in      detail
	sockets table[*watch.Socket, socketKey]
	ports   table[*watch.PortUse, portKey]
	helpTop int // first visible line
	helpLen int

	filter filter
	typing bool

	// Of the snapshot:
	fullest   map[string]*watch.PortUse // by remote, the fullest
	processes int
}

func newModel(opt Options) *model {
	m := &model{
		opt:     opt,
		groups:  newTable("worst first", keyOf),
		sockets: newTable("oldest first", keyOfSocket),
		ports:   newTable("fullest first", keyOfPort),
	}
	m.groups.gutter = 1 // the PIDs are at the right of their column
	return m
}

// Init implements tea.Model.
func (m *model) Init() tea.Cmd { return nil }

// Update implements tea.Model.
func (m *model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.w, m.h = msg.Width, msg.Height
	case snapshotMsg:
		m.arrived = msg.at
		m.now = msg.at
		if m.paused {
			m.next = msg.snap
		} else {
			m.show(msg.snap)
		}
	case endMsg:
		m.ended = true
	case tickMsg:
		m.now = time.Time(msg)
	case tea.PasteMsg:
		if m.typing {
			m.typeFilter(msg.Content)
		}
	case tea.KeyPressMsg:
		return m, m.press(msg)
	}
	return m, nil
}

// show takes over a snapshot.
func (m *model) show(s *watch.Snapshot) {
	m.snap = s
	m.fullest = make(map[string]*watch.PortUse, len(s.Ports))
	for i := range s.Ports {
		p := &s.Ports[i]
		if old := m.fullest[p.Remote]; old == nil || share(p) > share(old) || share(p) == share(old) && p.Used > old.Used {
			m.fullest[p.Remote] = p
		}
	}
	pids := make(map[uint32]struct{}, len(s.Groups))
	for _, g := range s.Groups {
		if g.PID != 0 {
			pids[g.PID] = struct{}{}
		}
	}
	m.processes = len(pids)
	m.in.group, m.in.others = nil, ""
	if m.view == viewDetail || m.back == viewDetail {
		for _, g := range s.Groups {
			if keyOf(g) == m.in.key {
				m.enter(g)
				break
			}
		}
	}
	m.groups.setColumns(m.groupColumns())
	m.ports.setColumns(portColumns)
	m.arrange()
}

// enter makes g the group that is looked into.
func (m *model) enter(g *watch.Group) {
	m.in = detail{key: keyOf(g), name: process(g), group: g, others: otherHolders(g)}
	m.sockets.setColumns(m.socketColumns())
}

// arrange filters and sorts what the snapshot holds.
func (m *model) arrange() {
	if m.snap == nil {
		return
	}
	groups := make([]*watch.Group, 0, len(m.snap.Groups))
	for _, g := range m.snap.Groups {
		if m.filter.group(g) {
			groups = append(groups, g)
		}
	}
	m.groups.set(groups)
	m.arrangeSockets()
	ports := make([]*watch.PortUse, 0, len(m.snap.Ports))
	for i := range m.snap.Ports {
		if m.filter.ports(&m.snap.Ports[i]) {
			ports = append(ports, &m.snap.Ports[i])
		}
	}
	m.ports.set(ports)
}

func (m *model) arrangeSockets() {
	if m.in.group == nil {
		m.sockets.set(nil)
		return
	}
	m.sockets.set(m.filter.sockets(m.in.group))
}

// press handles a key.
func (m *model) press(msg tea.KeyPressMsg) tea.Cmd {
	key := msg.String()
	switch key {
	case "ctrl+c":
		return tea.Quit
	case "ctrl+z":
		return tea.Suspend
	}
	if m.typing {
		m.pressTyping(key, msg.Text)
		return nil
	}
	switch key {
	case "q", "Q":
		return tea.Quit
	case "?", "h", "f1":
		if m.view == viewHelp {
			m.view = m.back
		} else {
			m.back, m.view, m.helpTop = m.view, viewHelp, 0
		}
		return nil
	case "p", "space":
		m.pause()
		return nil
	}
	if m.view == viewHelp {
		m.pressHelp(key)
		return nil
	}
	switch key {
	case "/":
		m.typing = true
	case "esc", "left", "backspace":
		m.leave(key == "esc")
	case "P":
		if m.view == viewPorts {
			m.view = viewGroups
		} else {
			m.view = viewPorts
		}
	case "enter", "right", "l":
		if g, ok := m.groups.selected(); ok && m.view == viewGroups {
			if m.in.key != keyOf(g) {
				// Another process: its list starts at the top.
				m.sockets.sel, m.sockets.top = 0, 0
			}
			m.enter(g)
			m.view = viewDetail
			m.arrangeSockets()
		}
	default:
		m.pressList(key)
	}
	return nil
}

// leave goes one step back. With clear it takes away the filter where there is
// nothing to leave.
func (m *model) leave(clear bool) {
	switch {
	case m.view != viewGroups:
		m.view = viewGroups
	case clear && m.filter.text != "":
		m.setFilter("")
	}
}

// pressList handles the keys of the list that is shown.
func (m *model) pressList(key string) {
	switch m.view {
	case viewGroups:
		if !m.groups.navigate(key) && m.groups.sortBy(key) {
			m.arrange()
		}
	case viewDetail:
		if !m.sockets.navigate(key) && m.sockets.sortBy(key) {
			m.arrangeSockets()
		}
	case viewPorts:
		if !m.ports.navigate(key) && m.ports.sortBy(key) {
			m.arrange()
		}
	}
}

func (m *model) pressHelp(key string) {
	page := max(m.h-3, 1)
	switch key {
	case "esc", "left", "backspace", "enter":
		m.view = m.back
	case "up", "k":
		m.helpTop--
	case "down", "j":
		m.helpTop++
	case "pgup", "ctrl+b":
		m.helpTop -= page
	case "pgdown", "ctrl+f":
		m.helpTop += page
	case "home", "g":
		m.helpTop = 0
	case "end", "G":
		m.helpTop = 1 << 20
	}
}

// pressTyping handles a key while the filter is typed.
func (m *model) pressTyping(key, text string) {
	switch key {
	case "enter":
		m.typing = false
	case "esc":
		m.typing = false
		m.setFilter("")
	case "backspace", "ctrl+h":
		_, n := utf8.DecodeLastRuneInString(m.filter.text)
		m.setFilter(m.filter.text[:len(m.filter.text)-n])
	case "ctrl+u":
		m.setFilter("")
	case "ctrl+w":
		t := strings.TrimRight(m.filter.text, " ")
		m.setFilter(t[:strings.LastIndexByte(t, ' ')+1])
	case "up", "down", "pgup", "pgdown":
		m.pressList(key)
	default:
		m.typeFilter(text)
	}
}

// typeFilter appends to the filter.
func (m *model) typeFilter(text string) {
	text = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' {
			return ' '
		}
		if r == utf8.RuneError || !unicode.IsPrint(r) {
			return -1
		}
		return r
	}, text)
	if text == "" || len(m.filter.text)+len(text) > maxFilter {
		return
	}
	m.setFilter(m.filter.text + text)
}

func (m *model) setFilter(text string) {
	m.filter.set(text)
	m.arrange()
}

func (m *model) pause() {
	m.paused = !m.paused
	if !m.paused && m.next != nil {
		m.show(m.next)
		m.next = nil
	}
}

// stale is how long no snapshot has come although some should have; 0: all is
// well.
func (m *model) stale() time.Duration {
	if m.opt.Refresh <= 0 || m.arrived.IsZero() || m.ended {
		return 0
	}
	late := m.now.Sub(m.arrived)
	if late < 3*m.opt.Refresh || late < 5*time.Second {
		return 0
	}
	return late
}
