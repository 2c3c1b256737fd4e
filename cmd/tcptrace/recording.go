package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"

	"github.com/spf13/pflag"

	"github.com/tcptrace/tcptrace/internal/events"
	"github.com/tcptrace/tcptrace/internal/filter"
	"github.com/tcptrace/tcptrace/internal/hint"
	"github.com/tcptrace/tcptrace/internal/record"
)

// Topics of facts in a recording.
const (
	topicCgroup = "cgroup" // by id: its path
)

// Attributes of a recording. Those of filters are the flags in a form that means
// the same on every machine.
const (
	attrFilter  = "filter."       // and the flag's name
	attrNetNS   = "netns."        // and a name of a network namespace, as given: its inode
	attrCommand = "command"       // there was one; its value is of no meaning
	attrGroup   = "command.group" // the cgroup that it ran in: id, a space, the path
	attrLimit   = "max-connections"
	attrWatch   = "watch" // the watched states: of others only a part is recorded
)

// recordFlags defines -w and -r.
func (opt *options) recordFlags(flags *pflag.FlagSet) {
	path := func(to *string) func(string) error {
		return func(v string) error {
			if v == "" {
				return errors.New("want the path of a file, or -")
			}
			*to = v
			return nil
		}
	}
	flags.VarP(&flagValue{set: path(&opt.write)}, "write", "w", "")
	flags.VarP(&flagValue{set: path(&opt.read)}, "read", "r", "")
}

// checkRecord finds what does not go with -w and -r.
func (opt *options) checkRecord(flags *pflag.FlagSet) error {
	if opt.write != "" {
		// Like tcpdump -w: it is written instead of shown, unless both are
		// asked for.
		shown := "-o"
		switch {
		case opt.watch != 0:
			shown = "--watch"
		case opt.summary:
			shown = "--summary"
		default:
			opt.quiet = !flags.Changed("output")
		}
		if opt.write == "-" && !opt.quiet {
			return usageErrorf("-w - and %s contradict each other: both go to stdout", shown)
		}
	}
	if opt.read == "" {
		return nil
	}
	for _, name := range []string{"write", "hooks", "buffer", "ready-file", "duration", "features"} {
		if flags.Changed(name) {
			return usageErrorf("-r and --%s contradict each other: a recording is read, nothing is traced", name)
		}
	}
	if opt.command != nil {
		return usageErrorf("-r and a command contradict each other: a recording is read, nothing is traced")
	}
	return nil
}

// recording writes what a trace is given to a recording.
type recording struct {
	*record.Writer
	path string // for messages
	// lookup returns the path of a cgroup; nil: none is known.
	lookup func(id uint64) string
	group  uint64          // of the last record
	netns  uint32          // likewise
	spaces map[uint32]bool // the network namespaces of all records
	lost   uint64
}

// newRecording begins the recording that -w asks for. scope is that of the traced
// command, nil without one.
func newRecording(opt *options, std stdio, header *events.Header, clock events.Clock, scope *commandScope) (*recording, error) {
	meta := &record.Meta{Header: *header, Clock: clock, Attrs: opt.recordAttrs(scope)}
	rec := &recording{path: opt.write, spaces: make(map[uint32]bool)}
	var err error
	if opt.write == "-" {
		if _, isTerminal := terminal(std.out); isTerminal {
			return nil, hint.Wrap(errors.New("a recording is not for a terminal"), "give a file, or a pipe: tcptrace -w - | ...")
		}
		rec.path = "stdout"
		rec.Writer, err = record.NewWriter(std.out, meta)
	} else {
		rec.Writer, err = record.Create(opt.write, meta)
	}
	return rec, err
}

func (opt *options) recordAttrs(scope *commandScope) map[string]string {
	attrs := make(map[string]string)
	for name, value := range opt.filters {
		attrs[attrFilter+name] = value
	}
	f := &opt.filter
	// What was resolved here would be resolved otherwise elsewhere, and a name
	// may have commas.
	delete(attrs, attrFilter+"watch")
	if f.UIDs != nil {
		attrs[attrFilter+"uid"] = joinNumbers(f.UIDs)
	}
	if f.NetNS != nil {
		attrs[attrFilter+"netns"] = joinNumbers(f.NetNS)
		for i, spec := range opt.netns {
			attrs[attrNetNS+string(spec)] = strconv.FormatUint(uint64(f.NetNS[i]), 10)
		}
	}
	if f.Cgroup != "" {
		attrs[attrFilter+"cgroup"] = f.Cgroup
	}
	if f.Comms != nil {
		attrs[attrFilter+"comm"] = strings.Join(f.Comms, "\x00")
	}
	if scope != nil {
		attrs[attrCommand] = ""
		if scope.group != 0 {
			attrs[attrGroup] = fmt.Sprintf("%d %s", scope.group, scope.path)
		}
	}
	attrs[attrLimit] = strconv.Itoa(opt.maxConns)
	if opt.watch != 0 {
		attrs[attrWatch] = opt.watch.String()
	}
	return attrs
}

func joinNumbers(list []uint32) string {
	var texts []string
	for _, n := range list {
		texts = append(texts, strconv.FormatUint(uint64(n), 10))
	}
	return strings.Join(texts, ",")
}

func splitNumbers(text string) ([]uint32, error) {
	var list []uint32
	for item := range strings.SplitSeq(text, ",") {
		n, err := strconv.ParseUint(item, 10, 32)
		if err != nil {
			return nil, fmt.Errorf("%q is not a number", item)
		}
		list = append(list, uint32(n))
	}
	return list, nil
}

// before learns what the record's handling and a replay may ask.
func (rec *recording) before(r *events.Record) {
	if r.CgroupID != rec.group {
		rec.group = r.CgroupID
		rec.cgroup(r.CgroupID)
	}
	if r.NetNS != rec.netns {
		rec.netns = r.NetNS
		rec.spaces[r.NetNS] = true
	}
	if r.Kind == events.KindLost && r.Count > 0 {
		rec.lost += uint64(r.Count)
	}
}

// cgroup returns the path of a cgroup as the replay will know it.
func (rec *recording) cgroup(id uint64) string {
	if rec.lookup == nil || id == 0 {
		return ""
	}
	path, ok := rec.Facts().Get(topicCgroup, id)
	if !ok {
		path = rec.lookup(id)
		rec.Fact(topicCgroup, id, path)
	}
	return path
}

// finish completes the recording if err, that of the trace, is nil, and says what
// is in it.
func (rec *recording) finish(err error, stderr io.Writer) error {
	if err != nil {
		if abortErr := rec.explain(rec.Abort()); abortErr != nil {
			return errors.Join(err, abortErr)
		}
		return err // as it is: it may have a status
	}
	if err := rec.Close(); err != nil {
		return rec.explain(err)
	}
	text := fmt.Sprintf("tcptrace: %d records written to %s", rec.Records(), escapeMessage(rec.path))
	if rec.lost > 0 {
		text += fmt.Sprintf("; %d events were lost: a larger --buffer may help", rec.lost)
	}
	fmt.Fprintln(stderr, text)
	return nil
}

// explain names the file in an error of the writer.
func (rec *recording) explain(err error) error {
	var path *fs.PathError
	if err == nil || errors.As(err, &path) {
		return err
	}
	return fmt.Errorf("%s: %w", rec.path, err)
}

// replay is a recording that is read.
type replay struct {
	*record.Reader
	name   string // for messages
	file   *os.File
	filter filter.Filter // of the recording
	scope  *commandScope // of its command; nil: there was none
}

// openReplay opens the recording that -r asks for.
func openReplay(opt *options, std stdio) (*replay, error) {
	p := &replay{name: opt.read}
	in := std.in
	if opt.read == "-" {
		p.name = "stdin"
	} else {
		var err error
		if p.file, err = os.Open(opt.read); err != nil {
			return nil, err
		}
		in = p.file
	}
	var err error
	if p.Reader, err = record.NewReader(in); err == nil {
		if err = p.recordedFilter(); err != nil {
			p.Reader.Close()
		}
	}
	if err == nil {
		err = p.resolveNetNS(opt)
	}
	if err != nil {
		p.closeFile()
		return nil, p.explain(err)
	}
	return p, nil
}

func (p *replay) close() {
	p.Reader.Close()
	p.closeFile()
}

func (p *replay) closeFile() {
	if p.file != nil {
		p.file.Close()
	}
}

// explain names the file in an error of the reader, and says what can be done.
func (p *replay) explain(err error) error {
	var status *statusError
	var path *fs.PathError
	if err == nil || errors.As(err, &status) || errors.As(err, &path) {
		return err
	}
	advice := ""
	var version *record.VersionError
	var damage *record.DamageError
	switch {
	case errors.Is(err, record.ErrNotRecording):
		advice = "-r reads what tcptrace -w wrote"
	case errors.As(err, &version) && version.Version > record.Version:
		advice = "read it with the tcptrace that wrote it, or a newer one"
	case errors.As(err, &damage) && damage.Truncated:
		advice = "whoever wrote it was killed, is not done yet, or had no room left; what is in front of that was shown"
	case errors.As(err, &damage):
		advice = "what is in front of that was shown"
	}
	err = fmt.Errorf("%s: %w", p.name, err)
	if advice == "" {
		return err
	}
	return hint.Wrap(err, advice)
}

// recordedFilter makes the filter that the trace had.
func (p *replay) recordedFilter() error {
	attrs := p.Meta().Attrs
	opt := &options{}
	flags := newFlagSet(opt)
	for _, key := range slices.Sorted(maps.Keys(attrs)) {
		name, ok := strings.CutPrefix(key, attrFilter)
		if !ok {
			continue
		}
		var err error
		switch value := attrs[key]; name {
		case "netns":
			opt.filter.NetNS, err = splitNumbers(value)
		case "comm":
			opt.filter.Comms = strings.Split(value, "\x00")
		case "ipv4":
			opt.filter.Family = 4
		case "ipv6":
			opt.filter.Family = 6
		default:
			if !slices.Contains(filterFlags, name) {
				err = errors.New("it is not known")
				break
			}
			err = flags.Set(name, value)
		}
		if err != nil {
			return fmt.Errorf("the filter --%s of the recording: %w", name, err)
		}
	}
	if _, ok := attrs[attrCommand]; ok {
		p.scope = &commandScope{}
		if group, ok := attrs[attrGroup]; ok {
			id, path, _ := strings.Cut(group, " ")
			n, err := strconv.ParseUint(id, 10, 64)
			if err != nil {
				return fmt.Errorf("the cgroup of the recorded command: %q is not a number", id)
			}
			p.scope.group, p.scope.path = n, path
		}
		opt.filter.Command = p.scope
	}
	p.filter = opt.filter
	return nil
}

// resolveNetNS puts the namespaces of --netns into the filter: by inode, or by a
// name that the trace was given.
func (p *replay) resolveNetNS(opt *options) error {
	for _, spec := range opt.netns {
		text, ok := p.Meta().Attrs[attrNetNS+string(spec)]
		if !ok {
			if text, ok = strings.CutPrefix(string(spec), "inode:"); !ok {
				return usageErrorf("invalid argument %q for \"--netns\" flag: the recording does not know it by this name; want inode:N", spec)
			}
		}
		inodes, err := splitNumbers(text)
		if err != nil {
			return usageErrorf("invalid argument %q for \"--netns\" flag: %w", spec, err)
		}
		opt.filter.NetNS = append(opt.filter.NetNS, inodes...)
	}
	return nil
}

// header returns the first line: what was filtered then and is now.
func (p *replay) header(opt *options) *events.Header {
	h := p.Meta().Header
	h.Filters = maps.Clone(h.Filters)
	for name, value := range opt.filters {
		if h.Filters == nil {
			h.Filters = make(map[string]string)
		}
		if then := h.Filters[name]; then != "" && then != value {
			value = then + " & " + value
		}
		h.Filters[name] = cmp.Or(value, h.Filters[name])
	}
	return &h
}

// before learns what the handling of the record asks.
func (p *replay) before(r *events.Record) {
	if p.scope != nil {
		p.scope.Add(r)
	}
}

func (p *replay) cgroup(id uint64) string {
	path, _ := p.Facts().Get(topicCgroup, id)
	return path
}
