//go:build integration

package node

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/rig"
)

// An instance that hangs: PM2 and Node's cluster give it one more connection, which is lost with
// it. Here what waits for it is answered by others, while it hangs.
func testHung(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "hung")
	a.start("--", node, "plain.js", strconv.Itoa(a.port))
	pid := a.MustShow(t, a.instance(2), "MainPID")
	s.MustExec(t, "kill", "-STOP", pid)
	l := a.load(rig.LoadOptions{Clients: 8, Requests: 40})
	l.Wait()
	a.lossless(l)
	s.MustExec(t, "kill", "-9", pid)
	a.MustWait(t, limit, a.instance(2), func(p rig.Properties) bool { return p["ActiveState"] == "active" && p["MainPID"] != pid })
	a.awaitUp()
	a.evenly()
}

// An instance that had no descriptor left for a while: Node's cluster never gives it a connection
// again.
func testOutOfFiles(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "files")
	a.start("-p", "LimitNOFILE=100", "--", node, "files.js")
	l := a.load(rig.LoadOptions{Path: "/take", Clients: a.n, Requests: a.n})
	l.Wait()
	a.lossless(l)
	a.evenly()
	for i := range a.n {
		if n := a.MustShow(t, a.instance(i+1), "NRestarts"); n != "0" {
			t.Errorf("instance %d was restarted %s times", i+1, n)
		}
	}
}

// A version manager has removed the node that the app was written with: a reload names the file and
// touches nobody, and the new path is all that it takes.
func testMissingNode(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "missing")
	old := "/opt/" + a.name + "/node"
	s.MustExec(t, "install", "-d", filepath.Dir(old))
	s.MustExec(t, "ln", "-s", node, old)
	a.start("--", old, "plain.js", strconv.Itoa(a.port))
	before := a.pids()
	s.MustExec(t, "rm", old)
	out, err := s.Exec(t.Context(), "systemctl", "reload", a.name)
	if err != nil || out.Status == 0 {
		t.Errorf("reload without node = %+v, %v", out, err)
	}
	want := fmt.Sprintf("the program %s does not exist; hint: unitgen %s -- COMMAND", old, a.name)
	journal, err := s.Journal(t.Context(), a.name+"*")
	if err != nil || !strings.Contains(journal, want) {
		t.Errorf("the journal does not say %q: %v\n%s", want, err, journal)
	}
	if after := a.pids(); !slices.Equal(before, after) {
		t.Errorf("processes were %v and are %v", before, after)
	}
	s.MustExec(t, "unitgen", a.name, "--", node, "plain.js", strconv.Itoa(a.port))
	s.MustExec(t, "systemctl", "reload", a.name)
	a.evenly()
}

// A port below 1024, without root and without a capability.
func testLowPort(t *testing.T, s *system, node string) {
	a := newApp(t, s, node, "low")
	a.port = 80
	a.start("--", node, "plain.js", "80")
	a.evenly()
	if uid := strings.TrimSpace(s.MustExec(t, "stat", "--format=%u", "/proc/"+a.pids()[0])); uid == "0" {
		t.Error("the program runs as root")
	}
}

// Ten reloads each with Node 20 and 24, while 1,000 connections come a second and 200 clients keep
// theirs: no request is lost, nor when one version follows the other. It is a test of its own, so
// that nothing else runs beside it. In make test it is one reload each, under a tenth of that load.
func TestTenReloads(t *testing.T) {
	reloads, load := 1, 20
	if rig.All() {
		reloads, load = 10, 200
	}
	s := boot(t, rig.Newest)
	versions := []string{"20", "24"}
	a := newApp(t, s, "", "ten")
	unitgen := func(version string, words ...string) {
		t.Helper()
		words = append([]string{"unitgen", a.name, "--env=APP_VERSION=" + version}, words...)
		s.MustExec(t, append(words, "--", nodeOf(version), "/srv/plain.js", strconv.Itoa(a.port))...)
	}
	unitgen(versions[0], "--instances=2", "--soak=100ms", "--parallel=2", "--now", fmt.Sprintf("--listen=%d", a.port))
	a.awaitUp()
	loads := []*rig.Load{
		a.load(rig.LoadOptions{Clients: 64, Rate: 5 * load}),
		a.load(rig.LoadOptions{Clients: load, Rate: load, KeepAlive: true}),
	}
	for _, l := range loads {
		t.Cleanup(func() { l.Stop() })
	}
	for _, version := range versions {
		unitgen(version)
		for n := range reloads {
			a.awaitOK(50, loads...)
			s.MustExec(t, "systemctl", "reload", a.name)
			for _, l := range loads {
				if r := l.Snapshot(); r.Failed() > 0 {
					t.Fatalf("requests were lost in reload %d of Node %s: %s", n+1, version, r)
				}
			}
		}
		again := a.load(rig.LoadOptions{Requests: 20, Want: "version=" + version})
		again.Wait()
		a.lossless(again)
	}
	a.lossless(loads...)
}

// testPage runs the commands of docs/pm2.md, in their order: what stands between backticks at the
// beginning of the last column of its tables.
func testPage(t *testing.T, s *system, node string) {
	root, err := rig.RepoRoot()
	if err != nil {
		t.Fatal(err)
	}
	page, err := os.Open(filepath.Join(root, "docs/pm2.md"))
	if err != nil {
		t.Fatal(err)
	}
	defer page.Close()
	const dir = "/srv/web"
	program, err := programs.ReadFile("testdata/pm2.js")
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"server.js": string(program), "config.json": "{}", "production.env": "A=1\n"} {
		s.MustWriteFile(t, dir+"/"+name, text, 0o644)
	}
	a := &app{system: s, t: t, name: "web", port: 3000, n: 4}
	t.Cleanup(func() {
		if t.Failed() {
			t.Log(s.Journal(context.Background(), "web*"))
		}
	})
	command := regexp.MustCompile("^\\| .* \\| (?:nothing[^`]*)?`([^`]*)`[^|]*\\|$")
	ran := 0
	for lines := bufio.NewScanner(page); lines.Scan(); {
		line := lines.Text()
		if strings.HasPrefix(line, "Apply the settings") {
			s.MustExec(t, "unitgen", "reload", "web")
			a.awaitUp()
		}
		found := command.FindStringSubmatch(line)
		if found == nil || !strings.Contains(found[1], " ") {
			continue
		}
		script := "cd " + dir + " && " + found[1]
		if strings.Contains(found[1], " -f ") { // it has no end of its own
			script = "timeout 2 " + found[1] + "; test $? = 124"
		}
		if found[1] == "unitgen top" { // it wants a terminal, and q ends it
			script = "printf q | TERM=xterm script -qefc '" + found[1] + "' /dev/null"
		}
		out, err := s.Exec(t.Context(), "sh", "-c", script)
		if err != nil || out.Status != 0 {
			t.Fatalf("%s = %+v, %v", found[1], out, err)
		}
		ran++
		if found[1] == "unitgen scale web -1" {
			a.awaitUp()
			a.evenly()
		}
	}
	if ran < 40 {
		t.Errorf("%d commands were found, the page has more", ran)
	}
	if out := s.MustExec(t, "unitgen", "list"); strings.Contains(out, "web ") {
		t.Errorf("after the last command:\n%s", out)
	}
}

// Without root: an app under the manager of a user, where connections are spread at random.
func testUserUnits(t *testing.T, s *system, node string) {
	const uid = "1234"
	s.MustExec(t, "useradd", "--create-home", "--uid="+uid, "alice")
	s.MustExec(t, "loginctl", "enable-linger", "alice")
	s.MustWait(t, limit, "user@"+uid+".service", func(p rig.Properties) bool { return p["ActiveState"] == "active" })
	as := func(argv ...string) string {
		t.Helper()
		return s.MustExec(t, append([]string{"setpriv", "--reuid=alice", "--regid=alice", "--init-groups", "--", "env",
			"HOME=/home/alice", "XDG_RUNTIME_DIR=/run/user/" + uid}, argv...)...)
	}
	a := &app{system: s, t: t, name: "mine", port: s.newPort(), n: instances}
	t.Cleanup(func() {
		if t.Failed() {
			out, err := s.Exec(context.Background(), "journalctl", "--no-pager", "--lines=100", "_UID="+uid)
			t.Log(out.Stdout, err)
		}
	})
	as("unitgen", a.name, "--user-units", a.size(), fmt.Sprintf("--listen=%d", a.port), "--now", "--working-directory=/srv",
		"--soak=200ms", "--", node, "pm2.js")
	loads := []*rig.Load{a.load(rig.LoadOptions{Clients: 4, Rate: 50}), a.load(rig.LoadOptions{Clients: 4, Rate: 50, KeepAlive: true})}
	a.awaitOK(50, loads...)
	as("unitgen", "send", a.name, "--user-units", `"hello"`)
	as("systemctl", "--user", "reload", a.name)
	a.awaitOK(50, loads...)
	a.lossless(loads...)
	as("unitgen", "remove", a.name, "--user-units")
}
