package screen

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"go.uber.org/goleak"

	"github.com/tcptrace/tcptrace/internal/watch"
)

// playEnv makes the test binary a program that shows the screen.
const playEnv = "SCREEN_TEST_PLAY"

func TestMain(m *testing.M) {
	if what, ok := os.LookupEnv(playEnv); ok {
		os.Exit(play(what))
	}
	goleak.VerifyTestMain(m)
}

// play runs the screen on this terminal, with a new snapshot ten times a second:
// of one process with 10,000 sockets ("many") or of all kinds. It says how the
// screen ended.
func play(what string) int {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	updates := make(chan *watch.Snapshot)
	go func() {
		for i := int64(0); ; i++ {
			s := fakeSnapshot()
			if what == "many" {
				s = fakeMany(10000)
			}
			s.TS += i * second
			select {
			case updates <- s:
			case <-ctx.Done():
				return
			}
			select {
			case <-time.After(100 * time.Millisecond):
			case <-ctx.Done():
				return
			}
		}
	}()
	opt := fakeOptions()
	opt.Updates = updates
	err := start(ctx, opt, tea.WithFilter(sabotage(cancel)))
	if err != nil {
		first, _, _ := strings.Cut(err.Error(), "\n")
		fmt.Println("error:", first)
		return 1
	}
	fmt.Println("ended well")
	return 0
}

// sabotage gives keys to what is no key's business: C ends the context, U makes
// Update panic, and V makes View panic.
func sabotage(cancel func()) func(tea.Model, tea.Msg) tea.Msg {
	return func(m tea.Model, msg tea.Msg) tea.Msg {
		key, ok := msg.(tea.KeyPressMsg)
		if !ok {
			return msg
		}
		switch key.Text {
		case "C":
			cancel()
		case "U":
			return snapshotMsg{&watch.Snapshot{Groups: []*watch.Group{nil}}, fakeNow}
		case "V":
			m.(*guard).groups.cols[0].text = func(*watch.Group) string { panic("no such cell") }
		}
		return msg
	}
}
