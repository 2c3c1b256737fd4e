package archtest

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
)

const module = "github.com/tcptrace/tcptrace"

// importRule says which imports the non-test files of a package may not have.
type importRule struct {
	why string
	// applies reports whether the rule concerns the package, named by its path
	// inside the module ("." is the root).
	applies func(pkg string) bool
	// forbids reports whether the import path breaks it.
	forbids func(path string) bool
	// tests says that the rule holds for _test.go files as well.
	tests bool
}

func only(pkgs ...string) func(string) bool {
	return func(pkg string) bool { return slices.Contains(pkgs, pkg) }
}

func except(pkgs ...string) func(string) bool {
	return func(pkg string) bool { return !slices.Contains(pkgs, pkg) }
}

// under reports whether the import path is base or below it.
func under(base string) func(string) bool {
	return func(path string) bool { return path == base || strings.HasPrefix(path, base+"/") }
}

// ours reports whether the path is of this module and not one of those named.
func ours(allowed ...string) func(string) bool {
	return func(path string) bool {
		pkg, ok := strings.CutPrefix(path, module+"/")
		return ok && !slices.Contains(allowed, pkg)
	}
}

func either(a, b func(string) bool) func(string) bool {
	return func(path string) bool { return a(path) || b(path) }
}

// external reports whether the path is neither of the standard library nor of this
// module: only another module's path has a dot in its first element.
func external(path string) bool {
	first, _, _ := strings.Cut(path, "/")
	return strings.Contains(first, ".") && path != module && !strings.HasPrefix(path, module+"/")
}

var importRules = []importRule{
	{
		why:     "only internal/tracer and the generated bpf know cilium/ebpf",
		applies: except("bpf", "internal/tracer"),
		forbids: under("github.com/cilium/ebpf"),
		tests:   true,
	},
	{
		why:     "events is the shared vocabulary: it imports no other package of the module",
		applies: only("internal/events"),
		forbids: ours(),
	},
	{
		why:     "heaviest is a container: it imports no other package of the module",
		applies: only("internal/heaviest"),
		forbids: ours(),
	},
	{
		why:     "aggregate is a function of events: it imports events and the standard library",
		applies: only("internal/aggregate"),
		forbids: either(ours("internal/events"), external),
	},
	{
		why:     "aggregate reads no file, no network, no process: it has no I/O",
		applies: only("internal/aggregate"),
		forbids: only("os", "os/exec", "net", "io", "io/fs", "bufio", "log", "syscall"),
	},
	{
		why:     "advice is a function of facts: it imports the standard library only, and has no I/O",
		applies: only("internal/advice"),
		forbids: either(either(ours(), external), only("os", "os/exec", "net", "io", "io/fs", "bufio", "log", "syscall", "time")),
	},
	{
		why:     "account, advice and facts are functions of what they are given: they have no I/O",
		applies: only("internal/account", "internal/advice", "internal/facts"),
		forbids: only("os", "os/exec", "net", "io", "io/fs", "bufio", "log", "syscall"),
	},
	{
		why:     "the data flows bpf -> tracer -> events -> aggregate -> render: tracer knows none of what follows it",
		applies: only("internal/tracer"),
		forbids: only(module+"/internal/aggregate", module+"/internal/render"),
	},
	{
		why:     "bpf holds programs and generated code, no logic",
		applies: only("bpf"),
		forbids: ours(),
	},
	{
		why:     "internal/testnet serves tests only",
		applies: except("internal/testnet"),
		forbids: under(module + "/internal/testnet"),
	},
	{
		why:     "package testing stays out of the program",
		applies: except("internal/testnet", "e2e"),
		forbids: under("testing"),
	},
}

// callRule says which functions of a standard package the non-test files of a
// package may not use.
type callRule struct {
	why     string
	applies func(pkg string) bool
	path    string
	names   []string
}

var callRules = []callRule{
	{
		why:     "event time is the clock of aggregate and of what follows it",
		applies: only("internal/aggregate", "internal/account", "internal/advice", "internal/facts"),
		path:    "time",
		names:   []string{"Now", "Since", "Until", "After", "AfterFunc", "Tick", "NewTicker", "NewTimer", "Sleep"},
	},
	{
		why:     "log.Fatal skips the deferred calls: return an error",
		applies: func(string) bool { return true },
		path:    "log",
		names:   []string{"Fatal", "Fatalf", "Fatalln", "Panic", "Panicf", "Panicln"},
	},
	{
		why:     "only main ends the process",
		applies: func(pkg string) bool { return strings.HasPrefix(pkg, "internal/") || pkg == "bpf" },
		path:    "os",
		names:   []string{"Exit"},
	},
}

// check returns what a file does against the rules.
func check(pkg, name string, file *ast.File) []string {
	test := strings.HasSuffix(name, "_test.go")
	var broken []string
	names := map[string]string{} // import path by the name that it has in the file
	for _, spec := range file.Imports {
		path, err := strconv.Unquote(spec.Path.Value)
		if err != nil {
			return []string{fmt.Sprintf("%s: import %s: %v", name, spec.Path.Value, err)}
		}
		local := path[strings.LastIndex(path, "/")+1:]
		if spec.Name != nil {
			local = spec.Name.Name
		}
		names[local] = path
		for _, rule := range importRules {
			if rule.applies(pkg) && (!test || rule.tests) && rule.forbids(path) {
				broken = append(broken, fmt.Sprintf("%s imports %s: %s", name, path, rule.why))
			}
		}
	}
	if test {
		return broken
	}
	ast.Inspect(file, func(n ast.Node) bool {
		sel, ok := n.(*ast.SelectorExpr)
		if !ok {
			return true
		}
		x, ok := sel.X.(*ast.Ident)
		if !ok {
			return true
		}
		for _, rule := range callRules {
			if names[x.Name] == rule.path && rule.applies(pkg) && slices.Contains(rule.names, sel.Sel.Name) {
				broken = append(broken, fmt.Sprintf("%s uses %s.%s: %s", name, rule.path, sel.Sel.Name, rule.why))
			}
		}
		return true
	})
	return broken
}

// maxMainLines bounds the body of tcptrace's main function: all work is in run,
// which tests can call.
const maxMainLines = 20

func mainLines(fset *token.FileSet, file *ast.File) (lines int, found bool) {
	for _, decl := range file.Decls {
		f, ok := decl.(*ast.FuncDecl)
		if ok && f.Recv == nil && f.Name.Name == "main" {
			return fset.Position(f.End()).Line - fset.Position(f.Pos()).Line + 1, true
		}
	}
	return 0, false
}

func TestSources(t *testing.T) {
	root := filepath.Join("..", "..")
	if _, err := os.Stat(filepath.Join(root, "go.mod")); err != nil {
		t.Fatalf("not below the root of the module: %v", err)
	}
	fset := token.NewFileSet()
	seen := map[string]bool{}
	mains := 0
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := d.Name()
		if d.IsDir() {
			if path != root && (strings.HasPrefix(base, ".") || base == "testdata" || base == "dist" || base == "bin") {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(base, ".go") {
			return nil
		}
		name, err := filepath.Rel(root, path)
		if err != nil {
			return err
		}
		pkg := filepath.ToSlash(filepath.Dir(name))
		file, err := parser.ParseFile(fset, path, nil, parser.SkipObjectResolution)
		if err != nil {
			return err
		}
		seen[pkg] = true
		for _, b := range check(pkg, name, file) {
			t.Error(b)
		}
		if pkg == "cmd/tcptrace" {
			if lines, found := mainLines(fset, file); found {
				mains++
				if lines > maxMainLines {
					t.Errorf("%s: main has %d lines: want at most %d", name, lines, maxMainLines)
				}
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	// A rule about a package that was renamed would hold for ever.
	for _, pkg := range []string{"bpf", "cmd/tcptrace", "internal/advice", "internal/aggregate", "internal/events", "internal/tracer", "internal/testnet"} {
		if !seen[pkg] {
			t.Errorf("no Go file in %s: the rules about it check nothing", pkg)
		}
	}
	if mains != 1 {
		t.Errorf("got %d main functions in cmd/tcptrace: want 1", mains)
	}
}

func TestRules(t *testing.T) {
	tests := []struct {
		name, pkg, file, src string
		want                 int
	}{
		{"ebpf in tracer", "internal/tracer", "a.go", `package p; import _ "github.com/cilium/ebpf/link"`, 0},
		{"ebpf elsewhere", "internal/render", "a.go", `package p; import _ "github.com/cilium/ebpf/link"`, 1},
		{"ebpf in a test elsewhere", "e2e", "a_test.go", `package p; import _ "github.com/cilium/ebpf"`, 1},
		{"a name that only begins alike", "internal/render", "a.go", `package p; import _ "github.com/cilium/ebpfx"`, 0},
		{"events imports ours", "internal/events", "a.go", `package p; import _ "` + module + `/internal/filter"`, 1},
		{"aggregate imports events", "internal/aggregate", "a.go", `package p; import _ "` + module + `/internal/events"`, 0},
		{"aggregate imports owner", "internal/aggregate", "a.go", `package p; import _ "` + module + `/internal/owner"`, 1},
		{"aggregate imports os", "internal/aggregate", "a.go", `package p; import _ "os"`, 1},
		{"advice imports events", "internal/advice", "a.go", `package p; import _ "` + module + `/internal/events"`, 1},
		{"advice imports time", "internal/advice", "a.go", `package p; import _ "time"`, 1},
		{"advice's test imports render", "internal/advice", "a_test.go", `package p; import _ "` + module + `/internal/render"`, 0},
		{"aggregate's test imports os", "internal/aggregate", "a_test.go", `package p; import _ "os"`, 0},
		{"aggregate imports netip", "internal/aggregate", "a.go", `package p; import _ "net/netip"`, 0},
		{"aggregate imports another module", "internal/aggregate", "a.go", `package p; import _ "example.org/hist"`, 1},
		{"account imports os", "internal/account", "a.go", `package p; import _ "os"`, 1},
		{"account reads the clock", "internal/account", "a.go", `package p; import "time"; var t = time.Now()`, 1},
		{"tracer imports render", "internal/tracer", "a.go", `package p; import _ "` + module + `/internal/render"`, 1},
		{"program imports testnet", "cmd/tcptrace", "a.go", `package p; import _ "` + module + `/internal/testnet"`, 1},
		{"test imports testnet", "cmd/tcptrace", "a_test.go", `package p; import _ "` + module + `/internal/testnet"`, 0},
		{"program imports testing", "cmd/tcptrace", "a.go", `package p; import _ "testing"`, 1},
		{"aggregate reads the clock", "internal/aggregate", "a.go", `package p; import "time"; var t = time.Now()`, 1},
		{"... under another name", "internal/aggregate", "a.go", `package p; import clock "time"; var t = clock.Now`, 1},
		{"aggregate uses durations", "internal/aggregate", "a.go", `package p; import "time"; const t = time.Second`, 0},
		{"Now of another package", "internal/aggregate", "a.go", `package p; import time "strings"; var t = time.Now`, 0},
		{"log.Fatal", "vmtest", "a.go", `package p; import "log"; func f() { log.Fatal() }`, 1},
		{"exit in a package", "internal/render", "a.go", `package p; import "os"; func f() { os.Exit(1) }`, 1},
		{"exit in main", "cmd/tcptrace", "a.go", `package p; import "os"; func f() { os.Exit(1) }`, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file, err := parser.ParseFile(token.NewFileSet(), tt.file, tt.src, parser.SkipObjectResolution)
			if err != nil {
				t.Fatal(err)
			}
			if got := check(tt.pkg, tt.file, file); len(got) != tt.want {
				t.Errorf("got %d broken rules %q: want %d", len(got), got, tt.want)
			}
		})
	}
}

func TestMainLines(t *testing.T) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "a.go", "package main\n\nfunc main() {\n\tx()\n}\n", parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	if got, found := mainLines(fset, file); got != 3 || !found {
		t.Errorf("got %d lines, found %t: want 3, true", got, found)
	}
}
