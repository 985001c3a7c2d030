//go:build integration

package packages

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// TestLintian has Debian's own checks look at the packages: they have nothing to say.
func TestLintian(t *testing.T) {
	rig.Long(t, "lintian takes twice as long as the build")
	changes := one(t, filepath.Join(build(t, "deb"), "*.changes"))
	said := output(t, "lintian", "--allow-root", "--pedantic", "--display-info", "--display-experimental", "--fail-on=error,warning", changes)
	if said != "" {
		t.Errorf("lintian says:\n%s", said)
	}
}

// TestDeb looks at what the Debian packages consist of.
func TestDeb(t *testing.T) {
	dir := build(t, "deb")
	for name, want := range map[string][]string{
		"unitgen": {"./usr/bin/unitgen", "./usr/share/man/man1/unitgen.1.gz", "./usr/share/man/man5/unitgen.5.gz", "./usr/share/polkit-1/rules.d/50-unitgen.rules"},
		"lbshim":  {"./usr/lib/unitgen/lbshim", "./usr/lib/unitgen/lbshim-balancer", "./usr/lib/unitgen/node/drain.cjs", "./usr/lib/sysusers.d/unitgen.conf", "./usr/share/man/man8/lbshim.8.gz"},
		"dh-unitgen": {"./usr/bin/dh_unitgen", "./usr/share/man/man1/dh_unitgen.1.gz", "./usr/share/perl5/Debian/Debhelper/Sequence/unitgen.pm",
			"./usr/share/debhelper/autoscripts/postinst-unitgen"},
		"golang-github-unitgen-unitgen-dev": {"./usr/share/gocode/src/github.com/unitgen/unitgen/activation/doc.go", "./usr/share/gocode/src/github.com/unitgen/unitgen/go.mod"},
	} {
		list := output(t, "dpkg-deb", "--contents", one(t, filepath.Join(dir, name+"_*.deb")))
		for _, path := range want {
			if !strings.Contains(list, " "+path+"\n") {
				t.Errorf("%s has no %s", name, path)
			}
		}
		if name != "golang-github-unitgen-unitgen-dev" && strings.Contains(list, "/internal/") || strings.Contains(list, "/vendor/") {
			t.Errorf("%s has folders that are not its", name)
		}
	}
	// Package activation compiles where only its own package is installed.
	library := t.TempDir()
	output(t, "dpkg-deb", "--extract", one(t, filepath.Join(dir, "golang-github-unitgen-unitgen-dev_*.deb")), library)
	library = filepath.Join(library, "usr/share/gocode/src/github.com/unitgen/unitgen")
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	output(t, "cp", filepath.Join(root, "go.sum"), library)
	output(t, "go", "-C", library, "build", "-mod=mod", "./activation")
}

// TestDebIsReproducible builds once more, elsewhere, and without what Go has cached.
func TestDebIsReproducible(t *testing.T) {
	rig.Long(t, "all of Go's standard library is compiled anew")
	first := build(t, "deb")
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	second := filepath.Join(t.TempDir(), "some", "other-folder")
	if err := run(t, root, []string{"GOCACHE=" + t.TempDir()}, filepath.Join(root, "packaging/build"), "deb", second); err != nil {
		t.Fatal(err)
	}
	debs, err := filepath.Glob(filepath.Join(first, "*.deb"))
	if err != nil || len(debs) < 4 {
		t.Fatalf("packages in %s: %q, %v; want four", first, debs, err)
	}
	for _, deb := range debs {
		a, err := os.ReadFile(deb)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, filepath.Base(deb)))
		if err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(a, b) {
			t.Errorf("%s differs from one build to the next", filepath.Base(deb))
		}
	}
}

// Paths of the installed files that rpm and Arch packages have, by package.
var files = map[string][]string{
	"unitgen": {"/usr/bin/unitgen", "/usr/share/man/man1/unitgen.1", "/usr/share/man/man5/unitgen.5", "/usr/share/polkit-1/rules.d/50-unitgen.rules",
		"/usr/share/bash-completion/completions/unitgen"},
	"lbshim": {"/usr/lib/unitgen/lbshim", "/usr/lib/unitgen/lbshim-balancer", "/usr/lib/unitgen/node/drain.cjs", "/usr/lib/sysusers.d/unitgen.conf", "/usr/share/man/man8/lbshim.8"},
}

// contains checks a list of a package's files, in which compressed ones end in .gz.
func contains(t *testing.T, name, list string) {
	t.Helper()
	have := make(map[string]bool)
	for path := range strings.Lines(list) {
		have[strings.TrimSuffix("/"+strings.Trim(path, "/\n"), ".gz")] = true
	}
	for pkg, paths := range files {
		for _, path := range paths {
			if want := pkg == name; have[path] != want {
				t.Errorf("package %s has %s: %t, want %t", name, path, have[path], want)
			}
		}
	}
}

func TestRPM(t *testing.T) {
	rig.Long(t, "make install-files, which all formats run, is proved by TestDeb")
	dir := build(t, "rpm")
	for _, name := range []string{"unitgen", "lbshim"} {
		file := one(t, filepath.Join(dir, "RPMS/*", name+"-[0-9]*.rpm"))
		contains(t, name, output(t, "rpm", "--query", "--package", "--list", file))
	}
	lbshim := one(t, filepath.Join(dir, "RPMS/*/lbshim-*.rpm"))
	if scripts := output(t, "rpm", "--query", "--package", "--scripts", lbshim); !strings.Contains(scripts, "/usr/lib/unitgen/lbshim upgrade") {
		t.Errorf("scripts of lbshim:\n%s", scripts)
	}
}

// TestRPMMacros builds units by the macro as the spec of another package would.
func TestRPMMacros(t *testing.T) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	install := ""
	for i, app := range []string{"hello-admin", "hello"} {
		file := filepath.Join(dir, app+".unitgen")
		if err := os.WriteFile(file, []byte("Command=/usr/bin/hello\nListen="+strconv.Itoa(3000+i)+"\nInstances=2\n"), 0o644); err != nil {
			t.Fatal(err)
		}
		install += "%unitgen_install " + app + " " + file + "\n"
	}
	rpm := func(text string) string {
		return output(t, "rpm", "--load="+filepath.Join(root, "packaging/rpm/macros.debian"), "--load="+filepath.Join(root, "packaging/rpm/macros.unitgen"),
			"--define=buildroot "+dir+"/root", "--define=_prefix /usr", "--eval", text)
	}
	script := "set -e; cd " + dir + "; PATH=" + filepath.Dir(rig.Bin(t, "unitgen")) + ":$PATH\n" + rpm(install)
	if err := run(t, dir, nil, "sh", "-c", script); err != nil {
		t.Fatalf("%v\n%s", err, script)
	}
	list, err := os.ReadFile(filepath.Join(dir, "unitgen-hello.files"))
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(list), "admin") {
		t.Errorf("the list of files has those of another app:\n%s", list)
	}
	for _, path := range []string{"hello.service", "hello.socket", "hello@.service", "hello@.socket", "hello-join.service", "hello-join@.service", "hello-control.socket",
		"hello-diag.socket", "hello.service.wants/hello@1.service", "hello.service.wants/hello@2.service"} {
		if !strings.Contains(string(list), "/usr/lib/systemd/system/"+path+"\n") {
			t.Errorf("the list of files has no %s:\n%s", path, list)
		}
	}
	if got := rpm("%unitgen_postun hello"); strings.Contains(got, "socket") || !strings.Contains(got, "reload hello.service") {
		t.Errorf("%%unitgen_postun = %q, want a reload of the service alone", got)
	}
}

func TestArch(t *testing.T) {
	rig.Long(t, "make install-files, which all formats run, is proved by TestDeb")
	dir := build(t, "arch")
	for _, name := range []string{"unitgen", "lbshim"} {
		file := one(t, filepath.Join(dir, name+"-[0-9]*.pkg.tar*"))
		contains(t, name, output(t, "bsdtar", "-tf", file))
	}
	if info := output(t, "bsdtar", "-xOf", one(t, filepath.Join(dir, "lbshim-[0-9]*.pkg.tar*")), ".INSTALL"); !strings.Contains(info, "/usr/lib/unitgen/lbshim upgrade") {
		t.Errorf(".INSTALL of lbshim:\n%s", info)
	}
}

// TestAppArmor has the parser read the profile; no kernel of ours enforces it.
func TestAppArmor(t *testing.T) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	output(t, "apparmor_parser", "--skip-kernel-load", "--skip-cache", filepath.Join(root, "packaging/apparmor/usr.lib.unitgen.lbshim"))
}

// TestVersionsAgree compares the versions of the three formats.
func TestVersionsAgree(t *testing.T) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	var versions []string
	for file, pattern := range map[string]string{
		"debian/changelog": `^unitgen \(([0-9.]+)-`, "packaging/rpm/unitgen.spec": `(?m)^Version:\s*(\S+)`, "packaging/arch/PKGBUILD": `(?m)^pkgver=(\S+)`,
	} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			t.Fatal(err)
		}
		m := regexp.MustCompile(pattern).FindSubmatch(text)
		if m == nil {
			t.Fatalf("%s has no version", file)
		}
		versions = append(versions, string(m[1]))
	}
	if slices.Sort(versions); versions[0] != versions[2] {
		t.Errorf("versions of the packages: %q", versions)
	}
}
