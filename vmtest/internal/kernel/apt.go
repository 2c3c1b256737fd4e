package kernel

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// aptHelper is a program of apt's own that resumes a download and checks its
// hash.
const aptHelper = "/usr/lib/apt/apt-helper"

// keyrings are where debian-archive-keyring puts the archive's keys; the first
// from Debian 13 on.
var keyrings = []string{
	"/usr/share/keyrings/debian-archive-keyring.pgp",
	"/usr/share/keyrings/debian-archive-keyring.gpg",
}

// Environment variables that name the mirrors where apt's configuration does
// not.
const (
	mirrorEnv         = "VMTEST_MIRROR"
	securityMirrorEnv = "VMTEST_SECURITY_MIRROR"
)

// suites lists where each series is, best first: each group is asked only if
// the one before it did not have the series.
func suites(spec string) [][]string {
	switch spec {
	case "5.10":
		return [][]string{{"bullseye-security"}, {"bullseye"}}
	case "6.1":
		return [][]string{{"bookworm-security"}, {"bookworm"}}
	case "6.12":
		return [][]string{{"trixie-security"}, {"trixie"}}
	case Newest:
		return [][]string{{"sid"}, {"forky"}, {"trixie-backports"}}
	}
	return [][]string{{"trixie-backports"}, {"forky", "sid"}}
}

// frozen suites get no updates any more: their Release files are past the date
// until which they call themselves valid, and are signed all the same.
var frozen = []string{"bullseye", "bullseye-security"}

// mirrors are the roots of the archive and of the security archive.
type mirrors struct{ main, security string }

// findMirrors takes the mirrors from the environment, or from the entries of
// apt's configuration whose origin is Debian. The origin is known once apt has
// read the archive; before that the roots' names must do. A machine that is not
// Debian has the mirror that debootstrap would use.
func findMirrors(ctx context.Context) (mirrors, error) {
	m := mirrors{main: os.Getenv(mirrorEnv), security: os.Getenv(securityMirrorEnv)}
	for _, source := range []func(context.Context) (mirrors, error){targetMirrors, configuredMirrors, debootstrapMirror} {
		if m.main != "" {
			break
		}
		found, err := source(ctx)
		if err != nil {
			return m, err
		}
		m.main = found.main
		if m.security == "" {
			m.security = found.security
		}
	}
	if m.main == "" {
		return m, fmt.Errorf("apt's configuration names no Debian mirror: set %s to the root of one (the folder that holds dists/), or install debootstrap", mirrorEnv)
	}
	if m.security == "" {
		m.security = securityBeside(m.main)
	}
	return m, nil
}

func targetMirrors(ctx context.Context) (mirrors, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "indextargets", "--format", "$(ORIGIN)|$(LABEL)|$(REPO_URI)", "Created-By: Packages").Output()
	if err != nil {
		return mirrors{}, fmt.Errorf("apt-get indextargets: %w", withStderr(err))
	}
	return parseTargets(string(out)), nil
}

func configuredMirrors(ctx context.Context) (mirrors, error) {
	out, err := exec.CommandContext(ctx, "apt-get", "-o", "Debug::NoLocking=1", "update", "--print-uris").Output()
	if err != nil {
		return mirrors{}, fmt.Errorf("apt-get update --print-uris: %w", withStderr(err))
	}
	return parsePrintedURIs(string(out)), nil
}

func debootstrapMirror(context.Context) (mirrors, error) {
	var m mirrors
	for _, file := range []string{"/usr/share/debootstrap/scripts/sid", "/usr/sbin/debootstrap"} {
		text, err := os.ReadFile(file)
		if err != nil {
			continue
		}
		if m.main = parseDebootstrap(string(text)); m.main != "" {
			break
		}
	}
	return m, nil
}

// parseTargets reads "origin|label|root" lines. The two archives differ in
// their label.
func parseTargets(out string) mirrors {
	var m mirrors
	for line := range strings.Lines(out) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) != 3 || f[0] != "Debian" {
			continue
		}
		switch {
		case f[1] == "Debian" && m.main == "":
			m.main = f[2]
		case f[1] == "Debian-Security" && m.security == "":
			m.security = f[2]
		}
	}
	return m
}

var releaseURI = regexp.MustCompile(`(?m)^'([^']+/)dists/([^'/]+)/InRelease' `)

// parsePrintedURIs reads "'address' file size" lines. Other archives have roots
// that end in debian too; the one with an -updates suite is Debian's.
func parsePrintedURIs(out string) mirrors {
	var m mirrors
	for _, f := range releaseURI.FindAllStringSubmatch(out, -1) {
		root, suite := f[1], f[2]
		switch {
		case strings.HasSuffix(root, "/debian/") && strings.HasSuffix(suite, "-updates") && m.main == "":
			m.main = root
		case strings.HasSuffix(root, "/debian-security/") && strings.HasSuffix(suite, "-security") && m.security == "":
			m.security = root
		}
	}
	return m
}

var defaultMirror = regexp.MustCompile(`(?m)^\s*(?:default_mirror\s+|DEF_MIRROR=)"?([^\s"]+/debian/?)"?\s*$`)

// parseDebootstrap finds the Debian mirror in debootstrap's scripts.
func parseDebootstrap(script string) string {
	if m := defaultMirror.FindStringSubmatch(script); m != nil {
		return m[1]
	}
	return ""
}

// securityBeside guesses the security archive from the main one: mirrors carry
// both side by side.
func securityBeside(main string) string {
	return strings.TrimSuffix(strings.TrimRight(main, "/"), "/debian") + "/debian-security/"
}

// sourcesList writes apt's one-line format for the suites.
func sourcesList(m mirrors, arch, keyring string, suites []string) string {
	var b strings.Builder
	for _, suite := range suites {
		root := m.main
		if strings.HasSuffix(suite, "-security") {
			root = m.security
		}
		options := "arch=" + arch + " target=Packages signed-by=" + keyring
		if slices.Contains(frozen, suite) {
			options += " check-valid-until=no"
		}
		fmt.Fprintf(&b, "deb [%s] %s %s main\n", options, root, suite)
	}
	return b.String()
}

// apt runs apt's programs on a state of their own.
type apt struct {
	dir     string
	arch    string
	mirrors mirrors
	keyring string
	config  string // path of APT_CONFIG
}

func newAPT(ctx context.Context, dir, arch string) (*apt, error) {
	for _, tool := range []struct{ file, pkg string }{
		{"apt-get", "apt"}, {"dpkg-deb", "dpkg"}, {aptHelper, "apt"}, {"xz", "xz-utils"},
	} {
		if _, err := exec.LookPath(tool.file); err != nil {
			return nil, fmt.Errorf("%s not found: install the package %s (on a machine without apt, give -kernel the path of a vmlinuz)", tool.file, tool.pkg)
		}
	}
	i := slices.IndexFunc(keyrings, func(file string) bool { _, err := os.Stat(file); return err == nil })
	if i < 0 {
		return nil, fmt.Errorf("%s not found: install the package debian-archive-keyring", keyrings[len(keyrings)-1])
	}
	m, err := findMirrors(ctx)
	if err != nil {
		return nil, err
	}
	a := &apt{dir: dir, arch: arch, mirrors: m, keyring: keyrings[i], config: filepath.Join(dir, "apt.conf")}
	for _, d := range []string{"lists/partial", "archives/partial", "empty", "download"} {
		if err := os.MkdirAll(filepath.Join(dir, d), 0o755); err != nil {
			return nil, err
		}
	}
	out, err := exec.CommandContext(ctx, "apt-config", "dump").Output()
	if err != nil {
		return nil, fmt.Errorf("apt-config dump: %w", withStderr(err))
	}
	if err := os.WriteFile(a.config, []byte(aptConfig(string(out), dir, arch)), 0o644); err != nil {
		return nil, err
	}
	return a, nil
}

// aptConfig is the private configuration: how the machine reaches its mirrors
// (proxies, certificates, time limits) is kept from its own configuration, and
// nothing else, its hooks least of all.
func aptConfig(dump, dir, arch string) string {
	var b strings.Builder
	for line := range strings.Lines(dump) {
		for _, keep := range []string{"Acquire::http", "Acquire::https", "Acquire::ftp", "Acquire::tor", "Acquire::mirror", "Acquire::ForceIPv", "Acquire::Retries", "Acquire::Check-"} {
			if strings.HasPrefix(line, keep) {
				b.WriteString(line)
				break
			}
		}
	}
	set := func(key, value string) { fmt.Fprintf(&b, "%s %q;\n", key, value) }
	set("Dir::Etc::Parts", filepath.Join(dir, "empty"))
	set("Dir::Etc::Main", os.DevNull)
	set("Dir::Etc::SourceList", filepath.Join(dir, "sources.list"))
	set("Dir::Etc::SourceParts", filepath.Join(dir, "empty"))
	set("Dir::Etc::Preferences", os.DevNull)
	set("Dir::Etc::PreferencesParts", filepath.Join(dir, "empty"))
	set("Dir::State", dir)
	set("Dir::State::Lists", filepath.Join(dir, "lists"))
	set("Dir::State::status", os.DevNull)
	set("Dir::Cache", dir)
	set("APT::Architecture", arch)
	fmt.Fprintf(&b, "APT::Architectures { %q; };\n", arch)
	// The user _apt cannot enter a private cache folder.
	set("APT::Sandbox::User", "root")
	// Lists of suites that are not asked this time stay for the next.
	set("APT::Get::List-Cleanup", "false")
	set("Acquire::Languages", "none")
	set("Acquire::AllowInsecureRepositories", "false")
	set("Acquire::AllowWeakRepositories", "false")
	set("Acquire::AllowDowngradeToInsecureRepositories", "false")
	return b.String()
}

func (a *apt) command(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "APT_CONFIG="+a.config, "LC_ALL=C")
	cmd.Dir = filepath.Join(a.dir, "download")
	cmd.WaitDelay = 5 * time.Second
	return cmd
}

// offers returns the kernels in the suites. A suite that cannot be read is in
// the error; the offers of the others are good.
func (a *apt) offers(ctx context.Context, suites []string) (map[string]offer, error) {
	if err := os.WriteFile(filepath.Join(a.dir, "sources.list"), []byte(sourcesList(a.mirrors, a.arch, a.keyring, suites)), 0o644); err != nil {
		return nil, err
	}
	var updateErr error
	if out, err := a.command(ctx, "apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update").CombinedOutput(); err != nil {
		updateErr = fmt.Errorf("apt-get update of %s: %s", strings.Join(suites, ", "), complaints(out, err))
	}
	names, err := a.command(ctx, "apt-cache", "pkgnames", "linux-").Output()
	if err != nil {
		return nil, errors.Join(updateErr, fmt.Errorf("apt-cache pkgnames: %w", withStderr(err)))
	}
	args := []string{"show", "--"}
	for _, name := range strings.Fields(string(names)) {
		if strings.HasSuffix(name, "-cloud-"+a.arch) {
			args = append(args, name)
		}
	}
	if len(args) == 2 {
		return nil, updateErr
	}
	out, err := a.command(ctx, "apt-cache", args...).Output()
	if err != nil {
		return nil, errors.Join(updateErr, fmt.Errorf("apt-cache show: %w", withStderr(err)))
	}
	packages, err := parseStanzas(out)
	if err != nil {
		return nil, err
	}
	return findOffers(a.arch, packages), updateErr
}

// source is where a package is, and what it must be.
type source struct {
	URI, File, Hash string
}

var printedURI = regexp.MustCompile(`(?m)^'([^']+)' (\S+) (\d+) (SHA(?:256|512):[0-9a-f]+)\s*$`)

// parseURI reads the line of apt-get download --print-uris.
func parseURI(out string) (source, error) {
	m := printedURI.FindStringSubmatch(out)
	if m == nil || strings.ContainsRune(m[2], '/') {
		return source{}, fmt.Errorf("apt-get download --print-uris: no address with a SHA-256 in %q", out)
	}
	return source{URI: m[1], File: m[2], Hash: m[4]}, nil
}

// download fetches a package and returns its path.
func (a *apt) download(ctx context.Context, pkg, version string) (string, error) {
	out, err := a.command(ctx, "apt-get", "download", "--print-uris", pkg+"="+version).Output()
	if err != nil {
		return "", fmt.Errorf("apt-get download %s: %w", pkg, withStderr(err))
	}
	src, err := parseURI(string(out))
	if err != nil {
		return "", err
	}
	return a.acquire(ctx, src)
}

// tries bounds how often a broken download is continued.
const tries = 5

// acquire downloads src. A part that an earlier try left, in this run or a
// previous one, is continued; apt's helper compares the whole with its hash.
func (a *apt) acquire(ctx context.Context, src source) (string, error) {
	dest := filepath.Join(a.dir, "download", src.File)
	var err error
	for range tries {
		var out []byte
		if out, err = a.command(ctx, aptHelper, "-q", "-o", "Acquire::Retries=0", "download-file", src.URI, dest, src.Hash).CombinedOutput(); err == nil {
			return dest, nil
		}
		err = fmt.Errorf("download %s: %s", src.File, complaints(out, err))
		if ctx.Err() != nil {
			return "", ctx.Err()
		}
	}
	return "", err
}

// complaints picks the first of apt's error lines, which names the cause; err
// stands in where there is none.
func complaints(out []byte, err error) string {
	for line := range bytes.Lines(out) {
		if text, ok := strings.CutPrefix(strings.TrimSpace(string(line)), "E: "); ok {
			return text
		}
	}
	return err.Error()
}

// withStderr adds what a program said to the error of its exit.
func withStderr(err error) error {
	var exit *exec.ExitError
	if errors.As(err, &exit) && len(exit.Stderr) > 0 {
		return fmt.Errorf("%w: %s", err, bytes.TrimSpace(exit.Stderr))
	}
	return err
}
