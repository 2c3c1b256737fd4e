package kernel

import (
	"bytes"
	"context"
	"debug/elf"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// moduleTree is the set of modules in an unpacked kernel package, by their
// kernel name (with underscores).
type moduleTree map[string]module

type module struct {
	path    string
	depends []string
	known   bool // depends is known
}

// findModules walks root for modules. Dependencies come from a modules.dep
// where there is one: depmod writes it when a package is installed, so that the
// packages themselves do not hold it. Else the modules tell.
func findModules(root string) (moduleTree, error) {
	tree := make(moduleTree)
	var deps []byte
	err := filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		switch {
		case err != nil || d.IsDir():
			return err
		case d.Name() == "modules.dep":
			deps, err = os.ReadFile(p)
			return err
		}
		if name := moduleName(p); name != "" {
			tree[name] = module{path: p}
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	for name, list := range parseModulesDep(deps) {
		if m, ok := tree[name]; ok {
			m.depends, m.known = list, true
			tree[name] = m
		}
	}
	return tree, nil
}

// moduleName returns the kernel's name of the module in a file, or "" if path
// is not one.
func moduleName(path string) string {
	base, ext, ok := strings.Cut(filepath.Base(path), ".ko")
	switch ext {
	case "", ".xz", ".zst", ".gz":
	default:
		ok = false
	}
	if !ok {
		return ""
	}
	return strings.ReplaceAll(base, "-", "_")
}

// parseModulesDep reads depmod's "path: path path" lines.
func parseModulesDep(text []byte) map[string][]string {
	deps := make(map[string][]string)
	for line := range strings.Lines(string(text)) {
		path, rest, ok := strings.Cut(strings.TrimSpace(line), ":")
		name := moduleName(path)
		if !ok || name == "" {
			continue
		}
		list := []string{}
		for _, p := range strings.Fields(rest) {
			list = append(list, moduleName(p))
		}
		deps[name] = list
	}
	return deps
}

// unpack returns the ELF file of a module, decompressed.
func (m module) unpack(ctx context.Context) ([]byte, error) {
	tool := map[string]string{".xz": "xz", ".zst": "zstd", ".gz": "gzip"}[filepath.Ext(m.path)]
	if tool == "" {
		return os.ReadFile(m.path)
	}
	// xz-utils, zstd or gzip; dpkg-deb has needed the same for the package.
	out, err := exec.CommandContext(ctx, tool, "-dc", m.path).Output()
	if err != nil {
		return nil, fmt.Errorf("decompress %s with %s: %w", filepath.Base(m.path), tool, withStderr(err))
	}
	return out, nil
}

// readDepends reads the names in the "depends" entry of a module's .modinfo
// section, which holds key=value strings that end in NUL.
func readDepends(b []byte) ([]string, error) {
	f, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	section := f.Section(".modinfo")
	if section == nil {
		return nil, fmt.Errorf("no .modinfo section")
	}
	data, err := section.Data()
	if err != nil {
		return nil, err
	}
	return parseModinfo(data), nil
}

func parseModinfo(data []byte) []string {
	var names []string
	for entry := range strings.SplitSeq(string(data), "\x00") {
		list, ok := strings.CutPrefix(entry, "depends=")
		if !ok {
			continue
		}
		for name := range strings.SplitSeq(list, ",") {
			if name != "" {
				names = append(names, strings.ReplaceAll(name, "-", "_"))
			}
		}
	}
	return names
}

// order returns wanted and everything that they depend on, each once and after
// what it depends on. Names that the tree does not hold come back as absent:
// they may be built into the kernel. depends is asked once for each module.
func order(wanted []string, tree moduleTree, depends func(name string) ([]string, error)) (list, absent []string, err error) {
	done := make(map[string]bool)
	var visit func(name string) error
	visit = func(name string) error {
		if done[name] {
			return nil
		}
		done[name] = true
		if _, ok := tree[name]; !ok {
			absent = append(absent, name)
			return nil
		}
		names, err := depends(name)
		if err != nil {
			return fmt.Errorf("module %s: %w", name, err)
		}
		for _, d := range names {
			if err := visit(d); err != nil {
				return err
			}
		}
		list = append(list, name)
		return nil
	}
	for _, name := range wanted {
		if err := visit(name); err != nil {
			return nil, nil, err
		}
	}
	return list, absent, nil
}

// install copies the wanted modules and what they need from an unpacked package
// to dir, decompressed, and returns the file names in the order of loading.
func (tree moduleTree) install(ctx context.Context, wanted []string, dir string) (files, absent []string, err error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, nil, err
	}
	content := make(map[string][]byte)
	names, absent, err := order(wanted, tree, func(name string) ([]string, error) {
		m := tree[name]
		b, err := m.unpack(ctx)
		if err != nil {
			return nil, err
		}
		content[name] = b
		if m.known {
			return m.depends, nil
		}
		return readDepends(b)
	})
	if err != nil {
		return nil, nil, err
	}
	for _, name := range names {
		file := name + ".ko"
		if err := os.WriteFile(filepath.Join(dir, file), content[name], 0o644); err != nil {
			return nil, nil, err
		}
		files = append(files, file)
	}
	return files, absent, nil
}
