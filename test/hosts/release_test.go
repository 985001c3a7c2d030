//go:build integration

package hosts

import (
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// pool makes an archive of packages of what is installed of unitgen on a host, and lets that host
// install from it alone.
const pool = `set -e
mkdir -p /srv/tree/DEBIAN /srv/pool
printf 'Package: unitgen\nVersion: 1\nArchitecture: all\nMaintainer: Nobody <nobody@localhost>\nDescription: unitgen\n' > /srv/tree/DEBIAN/control
cp -a --parents /usr/bin/unitgen /usr/lib/unitgen /srv/tree
cd /srv/pool
dpkg-deb --root-owner-group -Znone --build /srv/tree unitgen.deb
dpkg-scanpackages . > Packages
rm -rf /etc/apt/sources.list /etc/apt/sources.list.d/* /srv/tree
echo 'deb [trusted=yes] file:/srv/pool ./' > /etc/apt/sources.list.d/unitgen.list
apt-get update`

// release rolls a release out by the playbook, of which words are further options.
func (f *fleet) release(text string, words ...string) rig.Output {
	f.t.Helper()
	f.control().MustWriteFile(f.t, "/srv/api.unitgen", text, 0o644)
	out, err := f.control().Exec(f.t.Context(), append([]string{"env", "ANSIBLE_HOST_KEY_CHECKING=False", "ANSIBLE_LOCALHOST_WARNING=False",
		"ANSIBLE_PIPELINING=True", "ansible-playbook", "-u", "root", "/srv/api.yml"}, words...)...)
	if err != nil {
		f.t.Fatal(err)
	}
	return out
}

// versions are the releases that the hosts serve.
func (f *fleet) versions() string {
	f.t.Helper()
	var all []string
	for i := range f.web {
		out := f.control().MustExec(f.t, "curl", "-sS", "http://"+webAddr(i+1)+":3000/")
		_, version, _ := strings.Cut(strings.TrimSpace(out), "version=")
		all = append(all, version)
	}
	return strings.Join(all, " ")
}

// The first release by the playbook installs unitgen and the app where they are missing, and brings
// the code by tasks of its own. A dry run changes nothing. The second release goes host after host.
func (f *fleet) testRelease(t *testing.T) {
	for i, s := range f.web {
		s.MustExec(t, "sh", "-c", pool)
		if i > 0 {
			s.MustExec(t, "rm", "-r", "/usr/bin/unitgen", "/usr/lib/unitgen")
		}
	}
	code := func(version string) {
		f.control().MustWriteFile(t, "/srv/code.yml",
			"- name: Place the code\n  ansible.builtin.copy: {content: \"APP_VERSION="+version+"\\n\", dest: /etc/api.env}\n", 0o644)
	}
	code("1")
	byCode := settings("0") + "EnvironmentFile=/etc/api.env\n"
	if out := f.release(byCode, "-e", "release=code.yml"); out.Status != 0 {
		t.Fatalf("first release: %s%s", out.Stdout, out.Stderr)
	}
	for _, s := range f.web {
		if got := s.MustExec(t, "dpkg-query", "--show", "--showformat=${Status}", "unitgen"); got != "install ok installed" {
			t.Errorf("the package is %s", got)
		}
	}
	code("2")
	if out := f.release(byCode, "-e", "release=code.yml", "--check"); out.Status != 0 {
		t.Errorf("dry run: %s%s", out.Stdout, out.Stderr)
	}
	if got := f.versions(); got != "1 1 1" {
		t.Errorf("after a dry run the hosts serve %s, want 1 1 1", got)
	}
	active, _ := f.activeFront()
	f.awaitStates(active, "UP UP UP")
	load := f.load(virtual+":80", 500)
	load.flow(100)
	if out := f.release(settings("2")); out.Status != 0 {
		t.Fatalf("second release: %s%s", out.Stdout, out.Stderr)
	}
	if got := f.versions(); got != "2 2 2" {
		t.Errorf("the hosts serve %s, want 2 2 2", got)
	}
	f.awaitStates(active, "UP UP UP")
	load.flow(100)
	load.stop("a release", 0)
}

// A release that does not start ends at the first host, which serves its old code.
func (f *fleet) testBrokenRelease(t *testing.T) {
	active, _ := f.activeFront()
	load := f.load(virtual+":80", 500)
	load.flow(100)
	broken := strings.Replace(settings("3"), apps.Server, "/usr/bin/false", 1)
	out := f.release(broken)
	if out.Status == 0 || !strings.Contains(out.Stdout, "web1: ") || !strings.Contains(out.Stdout, "Put the new code live") ||
		!strings.Contains(out.Stdout, "unitgen undrain api") {
		t.Errorf("a broken release: exit status %d\n%s%s", out.Status, out.Stdout, out.Stderr)
	}
	if got := f.versions(); got != "2 2 2" {
		t.Errorf("the hosts serve %s, want 2 2 2", got)
	}
	if got := f.states(active); got != "DRAIN UP UP" {
		t.Errorf("HAProxy has the hosts %s, want DRAIN UP UP", got)
	}
	if text := f.web[1].MustExec(t, "cat", "/etc/unitgen/api.unitgen"); text != settings("2") {
		t.Errorf("the second host has the settings\n%s", text)
	}
	if out := f.release(settings("4")); out.Status != 0 {
		t.Fatalf("the release after: %s%s", out.Stdout, out.Stderr)
	}
	if got := f.versions(); got != "4 4 4" {
		t.Errorf("the hosts serve %s, want 4 4 4", got)
	}
	f.awaitStates(active, "UP UP UP")
	load.stop("a broken release and the one after", 0)
}
