package kernel

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// fetch brings the cache up to date for specs. An error does not mean that
// nothing was fetched.
func (s *Store) fetch(ctx context.Context, specs []string) error {
	a, err := newAPT(ctx, filepath.Join(s.Dir, "apt", s.Arch), s.Arch)
	if err != nil {
		return err
	}
	chosen, unread, err := choose(specs, func(suites []string) (map[string]offer, error) { return a.offers(ctx, suites) })
	if unread != nil {
		s.Notice(unread.Error())
	}
	errs := []error{err}
	for _, spec := range slices.Sorted(maps.Keys(chosen)) {
		o := chosen[spec]
		if spec != Newest && spec != o.Series {
			s.Notice(fmt.Sprintf("kernel %s: Debian does not offer this series any more, taking %s", spec, o.Series))
		}
		if err := s.ensure(ctx, a, o); err != nil {
			errs = append(errs, fmt.Errorf("kernel %s: %w", spec, err))
			continue
		}
		if err := writeJSON(s.resolutionPath(spec), resolution{Series: o.Series, Checked: s.now().UTC()}); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// choose finds an offer for each spec. It asks as few suites as it can, all
// specs' first groups together, and for a series that none of its suites has,
// takes the next higher one that any suite offers. Suites that could not be
// read are in the error if a spec is left without an offer, else in unread.
func choose(specs []string, lookup func(suites []string) (map[string]offer, error)) (chosen map[string]offer, unread, err error) {
	chosen = make(map[string]offer)
	pool := make(map[string]offer)
	ask := func(suites []string) (map[string]offer, error) {
		slices.Sort(suites)
		suites = slices.Compact(suites)
		offers, err := lookup(suites)
		unread = errors.Join(unread, err)
		for series, o := range offers {
			if old, ok := pool[series]; !ok || compareVersions(o.Version, old.Version) > 0 {
				pool[series] = o
			}
		}
		return offers, err
	}
	for round := 0; ; round++ {
		var open, want []string
		for _, spec := range specs {
			groups := suites(spec)
			if _, ok := chosen[spec]; !ok && round < len(groups) {
				open = append(open, spec)
				want = append(want, groups[round]...)
			}
		}
		if len(open) == 0 {
			break
		}
		offers, _ := ask(want)
		for _, spec := range open {
			o, ok := offers[spec]
			if spec == Newest {
				o, ok = newestOffer(offers)
			}
			if ok {
				chosen[spec] = o
			}
		}
	}
	var errs []error
	for _, spec := range specs {
		if _, ok := chosen[spec]; ok {
			continue
		}
		if spec != Newest {
			// Only an archive that answers can have lost a series.
			_, err := ask(slices.Concat(suites("")...))
			if o, ok := nextOffer(pool, spec); ok && err == nil {
				chosen[spec] = o
				continue
			}
		}
		errs = append(errs, fmt.Errorf("no suite offers kernel %s", spec))
	}
	if len(errs) > 0 {
		return chosen, nil, errors.Join(append(errs, unread)...)
	}
	return chosen, unread, nil
}

// ensure puts o into the cache unless this very version is there.
func (s *Store) ensure(ctx context.Context, a *apt, o offer) error {
	dir := s.kernelDir(o.Series)
	if k, err := readKernel(dir); err == nil && k.Package == o.Package && k.Version == o.Version {
		if sum, err := fileSHA256(k.Image); err == nil && sum == k.SHA256 {
			return nil
		}
	}
	s.Notice(fmt.Sprintf("fetching kernel %s %s (%s)", o.Package, o.Version, s.Arch))
	work := dir + ".new"
	if err := os.RemoveAll(work); err != nil {
		return err
	}
	tree := filepath.Join(work, "tree")
	if err := os.MkdirAll(tree, 0o755); err != nil {
		return err
	}
	defer os.RemoveAll(work)
	packages := []string{o.Package}
	if o.Modules != "" {
		packages = append(packages, o.Modules)
	}
	var files []string
	for _, pkg := range packages {
		deb, err := a.download(ctx, pkg, o.Version)
		if err != nil {
			return err
		}
		files = append(files, deb)
		if out, err := a.command(ctx, "dpkg-deb", "-x", deb, tree).CombinedOutput(); err != nil {
			return fmt.Errorf("unpack %s: %w: %s", filepath.Base(deb), err, out)
		}
	}
	image, err := findImage(tree, o.Release)
	if err != nil {
		return err
	}
	modules, err := findModules(tree)
	if err != nil {
		return err
	}
	names, absent, err := modules.install(ctx, Modules, filepath.Join(work, "modules"))
	if err != nil {
		return err
	}
	if len(absent) > 0 {
		s.Notice(fmt.Sprintf("kernel %s has no module %s: built in, or missing", o.Release, strings.Join(absent, ", ")))
	}
	if err := os.Rename(image, filepath.Join(work, "vmlinuz")); err != nil {
		return err
	}
	sum, err := fileSHA256(filepath.Join(work, "vmlinuz"))
	if err != nil {
		return err
	}
	if err := os.RemoveAll(tree); err != nil {
		return err
	}
	if err := writeJSON(filepath.Join(work, "kernel.json"), Kernel{
		Series: o.Series, Arch: s.Arch, Release: o.Release, Package: o.Package, Version: o.Version,
		SHA256: sum, Modules: names, Fetched: s.now().UTC(),
	}); err != nil {
		return err
	}
	// A VM that runs now has read its kernel long ago: QEMU loads it at start.
	if err := os.RemoveAll(dir); err != nil {
		return err
	}
	if err := os.Rename(work, dir); err != nil {
		return err
	}
	for _, f := range files {
		if err := os.Remove(f); err != nil {
			return err
		}
	}
	return nil
}

// findImage finds the kernel in an unpacked package: in /boot, and from 6.19 on
// beside the modules.
func findImage(tree, release string) (string, error) {
	for _, name := range []string{
		"boot/vmlinuz-" + release,
		"usr/lib/modules/" + release + "/vmlinuz",
		"lib/modules/" + release + "/vmlinuz",
	} {
		path := filepath.Join(tree, name)
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("no vmlinuz in the package of %s", release)
}
