//go:build integration

package hosts

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/unitgen/unitgen/test/apps"
	"github.com/unitgen/unitgen/test/rig"
)

// Addresses on the LAN.
const (
	client  = "10.77.0.1"
	virtual = "10.77.0.100"
)

func webAddr(i int) string   { return fmt.Sprintf("10.77.0.%d", 10+i) }
func frontAddr(i int) string { return fmt.Sprintf("10.77.0.%d", 1+i) }

// fleet is an app, api, on several hosts.
type fleet struct {
	t      *testing.T
	lan    *rig.LAN
	web    []*apps.System
	fronts []*apps.System
}

// join puts a system on the LAN under a name that all know it by.
func (f *fleet) join(s *apps.System, name, addr string) {
	f.t.Helper()
	s.MustExec(f.t, "hostname", name)
	f.lan.Join(f.t, s.Container, addr)
}

// settings is the app's file of one release.
func settings(release string) string {
	return "Command=" + apps.Server + "\nInstances=2\nListen=3000\nAgent=9999\nEnvironment=APP_VERSION=" + release + "\n"
}

// hosts are the options of export that name the hosts.
func (f *fleet) hosts() (words []string) {
	for i := range f.web {
		words = append(words, fmt.Sprintf("--host=web%d=%s", i+1, webAddr(i+1)))
	}
	return words
}

// export is the file of an engine, as the first host prints it.
func (f *fleet) export(engine string, words ...string) string {
	f.t.Helper()
	return f.web[0].MustExec(f.t, append([]string{"unitgen", "export", engine, "api"}, words...)...)
}

// startHAProxy runs HAProxy on s with the file that unitgen prints.
func (f *fleet) startHAProxy(s *apps.System) {
	f.t.Helper()
	s.MustWriteFile(f.t, "/etc/haproxy/haproxy.cfg", f.export("haproxy", f.hosts()...), 0o644)
	s.MustExec(f.t, "haproxy", "-c", "-f", "/etc/haproxy/haproxy.cfg")
	s.MustExec(f.t, "systemctl", "unmask", "haproxy.service")
	s.MustExec(f.t, "systemctl", "start", "haproxy.service")
}

// states are the states of the hosts as HAProxy on s has them, such as "UP DRAIN UP", in the order
// of their names.
func (f *fleet) states(s *apps.System) string {
	f.t.Helper()
	text := s.MustExec(f.t, "sh", "-c", "echo show stat | socat stdio /run/haproxy/admin.sock")
	var states []string
	for line := range strings.Lines(text) {
		fields := strings.Split(line, ",")
		if len(fields) > 17 && fields[0] == "api" && strings.HasPrefix(fields[1], "web") {
			state, _, _ := strings.Cut(fields[17], " ") // "UP 1/2" on its way down
			states = append(states, state)
		}
	}
	return strings.Join(states, " ")
}

// awaitStates waits until HAProxy on s has the hosts so.
func (f *fleet) awaitStates(s *apps.System, want string) {
	f.t.Helper()
	var last string
	for until := time.Now().Add(apps.Limit); time.Now().Before(until); {
		if last = f.states(s); last == want {
			return
		}
	}
	f.t.Fatalf("HAProxy has the hosts %s, want %s", last, want)
}

// load begins requests to the fleet, half of them on new connections.
func (f *fleet) load(addr string, rate int) *loads {
	l := &loads{f: f}
	for _, keep := range []bool{false, true} {
		l.all = append(l.all, f.lan.StartLoad(rig.LoadOptions{Addr: addr, Rate: rate / 2, KeepAlive: keep, Want: "instance="}))
	}
	return l
}

type loads struct {
	f   *fleet
	all []*rig.Load
}

// flow waits for n more answers on new and on kept connections.
func (l *loads) flow(n int) {
	l.f.t.Helper()
	ctx, cancel := context.WithTimeout(l.f.t.Context(), apps.Limit)
	defer cancel()
	for _, load := range l.all {
		if err := load.WaitOK(ctx, n); err != nil {
			l.f.t.Fatal(err)
		}
	}
}

// stop ends the load; no more requests may have failed than were in flight on what was killed.
func (l *loads) stop(what string, most int) {
	l.f.t.Helper()
	failed := 0
	for _, load := range l.all {
		r := load.Stop()
		l.f.t.Logf("%s: %s", what, r)
		failed += r.Failed()
	}
	if failed > most {
		l.f.t.Errorf("%s: %d requests failed, at most %d were in flight", what, failed, most)
	}
}

// drain takes s out of service. HAProxy soon keeps no connection to it.
func (f *fleet) drain(s *apps.System) {
	f.t.Helper()
	out, err := s.Exec(f.t.Context(), "unitgen", "drain", "api", "--wait", "--timeout=20s")
	if err != nil || out.Status != 0 {
		list, _ := s.Exec(f.t.Context(), "ss", "--no-header", "--tcp", "--numeric")
		f.t.Fatalf("drain = %+v, %v\n%s", out, err, list.Stdout)
	}
}

// TestTwoHosts is two hosts behind one HAProxy: a host is drained and comes back, and one loses its
// power.
func TestTwoHosts(t *testing.T) {
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		rig.Charge(t)
		f := &fleet{t: t, lan: rig.NewLAN(t, client)}
		for i := 1; i <= 2; i++ {
			s := apps.Boot(t, suite)
			f.join(s, fmt.Sprintf("web%d", i), webAddr(i))
			s.MustWriteFile(t, "/etc/unitgen/api.unitgen", settings("1"), 0o644)
			s.MustExec(t, "unitgen", "--file=/etc/unitgen/api.unitgen", "--now")
			f.web = append(f.web, s)
		}
		one, two := f.web[0], f.web[1]
		f.startHAProxy(one)
		f.awaitStates(one, "UP UP")
		one.MustExec(t, "sh", "-c", "for i in 1 2 3 4; do curl -sS http://"+webAddr(1)+":80/; done")
		f.drain(two) // with idle connections at HAProxy and no requests, which alone would have it close some
		two.MustExec(t, "unitgen", "undrain", "api")
		f.awaitStates(one, "UP UP")

		load := f.load(webAddr(1)+":80", 100)
		load.flow(10)
		f.drain(two)
		if got := f.states(one); got != "UP DRAIN" {
			t.Errorf("HAProxy has the hosts %s, want UP DRAIN", got)
		}
		two.MustExec(t, "systemctl", "reload", "api")
		two.MustExec(t, "unitgen", "undrain", "api")
		f.awaitStates(one, "UP UP")
		load.flow(10)

		f.lan.PowerOff(t, two.Container)
		load.flow(10)
		f.awaitStates(one, "UP DOWN")
		load.stop("a drain, and the end of a host", 0) // HAProxy sends what the host has not answered to the other one
	})
}

// TestFleet is three hosts behind two HAProxy with an address that moves.
func TestFleet(t *testing.T) {
	rig.Long(t, "three hosts, two fronts and what befalls them under load take minutes")
	rig.NewestSuite(t, func(t *testing.T, suite string) {
		rig.Charge(t)
		f := newFleet(t, suite)
		for _, step := range []struct {
			name string
			run  func(*testing.T)
		}{
			{"Engines", f.testEngines},
			{"Release", f.testRelease},
			{"BrokenRelease", f.testBrokenRelease},
			{"Shared", f.testShared},
			{"Postgres", f.testPostgres},
			{"NATS", f.testNATS},
			{"Fronts", f.testFronts},
			{"KilledInstance", f.testKilledInstance},
			{"KilledBalancer", f.testKilledBalancer},
			{"KilledHAProxy", f.testKilledHAProxy},
			{"StoppedHAProxy", f.testStoppedHAProxy},
			{"KilledFront", f.testKilledFront},
			{"KilledHost", f.testKilledHost},
		} {
			if !t.Run(step.name, func(t *testing.T) {
				was := f.t
				defer func() { f.t = was }()
				f.t = t
				step.run(t)
			}) {
				return // the next step begins where this one should have ended
			}
		}
	})
}

func newFleet(t *testing.T, suite string) *fleet {
	t.Helper()
	f := &fleet{t: t, lan: rig.NewLAN(t, client)}
	for i := 1; i <= 3; i++ {
		s := apps.Boot(t, rig.Servers(suite))
		f.join(s, fmt.Sprintf("web%d", i), webAddr(i))
		f.web = append(f.web, s)
	}
	for i := 1; i <= 2; i++ {
		s := apps.Boot(t, rig.Servers(suite))
		f.join(s, fmt.Sprintf("front%d", i), frontAddr(i))
		f.fronts = append(f.fronts, s)
	}
	// The first host by hand, so that there is an app to print files of. The others get it by the
	// playbook.
	f.web[0].MustWriteFile(t, "/etc/unitgen/api.unitgen", settings("0"), 0o644)
	f.web[0].MustExec(t, "unitgen", "--file=/etc/unitgen/api.unitgen", "--now")
	f.startSSH()
	keepalived := f.export("keepalived", "--virtual-address="+virtual+"/24", "--interface=eth0",
		"--host=front1="+frontAddr(1), "--host=front2="+frontAddr(2))
	for _, s := range f.fronts {
		f.startHAProxy(s)
		s.MustWriteFile(t, "/etc/keepalived/keepalived.conf", keepalived, 0o644)
		s.MustExec(t, "keepalived", "-t")
		s.MustExec(t, "systemctl", "start", "keepalived.service")
	}
	f.activeFront()
	return f
}

// control is the machine of the administrator.
func (f *fleet) control() *apps.System { return f.fronts[1] }

// startSSH lets the control machine in to the hosts.
func (f *fleet) startSSH() {
	f.t.Helper()
	c := f.control()
	c.MustExec(f.t, "sh", "-c", "mkdir -p -m 700 /root/.ssh && ssh-keygen -q -t ed25519 -N '' -f /root/.ssh/id_ed25519")
	key := c.MustExec(f.t, "cat", "/root/.ssh/id_ed25519.pub")
	for _, s := range f.web {
		s.MustExec(f.t, "mkdir", "-p", "-m", "700", "/root/.ssh")
		s.MustWriteFile(f.t, "/root/.ssh/authorized_keys", key, 0o600)
		s.MustExec(f.t, "systemctl", "start", "ssh.service")
	}
	c.MustWriteFile(f.t, "/srv/api.yml", f.export("ansible", f.hosts()...), 0o644)
}

// activeFront waits until one of the fronts has the virtual address, and returns it and the other
// one.
func (f *fleet) activeFront() (active, other *apps.System) {
	f.t.Helper()
	for until := time.Now().Add(apps.Limit); time.Now().Before(until); {
		for i, s := range f.fronts {
			if hasAddress(f.t, s) {
				return s, f.fronts[1-i]
			}
		}
	}
	f.t.Fatal("no front has the virtual address")
	return nil, nil
}

func hasAddress(t *testing.T, s *apps.System) bool {
	t.Helper()
	return strings.Contains(s.MustExec(t, "ip", "-o", "address", "show", "dev", "eth0"), " "+virtual+"/")
}

// Each engine takes the file that is printed for it.
func (f *fleet) testEngines(t *testing.T) {
	c := f.control()
	put := func(path, text string) { c.MustWriteFile(t, path, text, 0o644) }
	for _, words := range [][]string{nil, {"--tcp", "--proxy-protocol"}} {
		put("/srv/haproxy.cfg", f.export("haproxy", append(f.hosts(), words...)...))
		c.MustExec(t, "haproxy", "-c", "-f", "/srv/haproxy.cfg")
	}
	certify(t, c)
	c.MustExec(t, "rm", "/etc/nginx/sites-enabled/default") // as the file says
	for _, words := range [][]string{nil, f.hosts(), append(f.hosts(), "--domain=www.example.com")} {
		put("/etc/nginx/conf.d/api.conf", f.export("nginx", words...))
		c.MustExec(t, "nginx", "-t")
		put("/srv/Caddyfile", f.export("caddy", words...))
		c.MustExec(t, "caddy", "validate", "--adapter", "caddyfile", "--config", "/srv/Caddyfile")
	}
	put("/srv/keepalived.conf", f.export("keepalived", "--virtual-address=fd00::64/64", "--interface=eth0"))
	c.MustExec(t, "keepalived", "-t", "-f", "/srv/keepalived.conf")
	for _, words := range [][]string{nil, {"--tcp"}} {
		put("/srv/check.yml", f.export("ansible", append(f.hosts(), words...)...))
		c.MustExec(t, "ansible-playbook", "--syntax-check", "/srv/check.yml")
	}
}

func (f *fleet) testKilledInstance(t *testing.T) {
	load := f.load(virtual+":80", 500)
	load.flow(100)
	f.web[0].MustExec(t, "systemctl", "kill", "--signal=SIGKILL", "api@1.service")
	f.web[0].MustWait(t, apps.Limit, "api.service", func(p rig.Properties) bool { return strings.Contains(p["StatusText"], "2/2 instances up") })
	load.flow(100)
	load.stop("an instance is killed", 2)
}

func (f *fleet) testKilledBalancer(t *testing.T) {
	load := f.load(virtual+":80", 500)
	load.flow(100)
	pid := f.web[1].MustShow(t, "api.service", "MainPID")
	f.web[1].MustExec(t, "systemctl", "kill", "--signal=SIGKILL", "--kill-whom=main", "api.service")
	f.web[1].MustWait(t, apps.Limit, "api.service", func(p rig.Properties) bool {
		return p["MainPID"] != pid && strings.Contains(p["StatusText"], "2/2 instances up")
	})
	load.flow(100)
	load.stop("a balancer is killed", 0)
}

// A HAProxy that is killed is started again by PID 1. What comes meanwhile is refused, and nothing that
// comes later. A busy machine takes longer for it, and the load then makes up for some requests.
func (f *fleet) testKilledHAProxy(t *testing.T) {
	active, _ := f.activeFront()
	const rate, late, clients = 500, 100 * time.Millisecond, 16
	load := f.load(virtual+":80", rate)
	load.flow(100)
	pid := active.MustShow(t, "haproxy.service", "MainPID")
	killed := time.Now()
	active.MustExec(t, "systemctl", "kill", "--signal=KILL", "haproxy.service")
	active.MustWait(t, apps.Limit, "haproxy.service", func(p rig.Properties) bool { return p["ActiveState"] == "active" && p["MainPID"] != pid })
	down := time.Since(killed)
	load.flow(100)
	load.stop("HAProxy is killed", int(rate*(down+late).Seconds())+clients)
	load = f.load(virtual+":80", rate)
	load.flow(100)
	load.stop("HAProxy is back", 0)
	if now, _ := f.activeFront(); now != active {
		t.Error("the address has moved")
	}
}

// The address leaves a front whose HAProxy has stopped.
func (f *fleet) testStoppedHAProxy(t *testing.T) {
	active, other := f.activeFront()
	// keepalived looks twice, a second apart, and is one of many here.
	f.awaitMove(other, 5*time.Second, func() { active.MustExec(t, "systemctl", "stop", "haproxy.service") })
	active.MustExec(t, "systemctl", "start", "haproxy.service")
	const backup = "Entering BACKUP STATE"
	if last := f.until(func() string {
		text := active.MustExec(t, "journalctl", "--unit=keepalived.service", "--output=cat", "--lines=20")
		return text[max(0, strings.LastIndex(text, "Entering ")):][:len(backup)]
	}, backup); last != backup {
		t.Fatalf("the front whose HAProxy is back says %q last", last)
	}
}

// awaitMove waits until other has the virtual address, which may take limit from the call of fail.
func (f *fleet) awaitMove(other *apps.System, limit time.Duration, fail func()) {
	f.t.Helper()
	gone := time.Now()
	fail()
	for !hasAddress(f.t, other) {
		if time.Since(gone) > apps.Limit {
			f.t.Fatal("the address does not move")
		}
	}
	moved := time.Since(gone)
	f.t.Logf("the address has moved after %s", moved.Round(time.Millisecond))
	if moved > limit {
		f.t.Errorf("the address has moved after %s, want %s", moved, limit)
	}
}

// The power of the front that has the address goes: the address moves, and who was about to connect
// does so a moment later.
func (f *fleet) testKilledFront(t *testing.T) {
	active, other := f.activeFront()
	load := f.load(virtual+":80", 500)
	load.flow(100)
	f.awaitMove(other, 3*time.Second, func() { f.lan.PowerOff(t, active.Container) })
	f.fronts = []*apps.System{other, other}
	load.flow(100)
	load.stop("the active front is killed", 16) // one for each client
}

func (f *fleet) testKilledHost(t *testing.T) {
	front := f.fronts[0]
	f.awaitStates(front, "UP UP UP")
	load := f.load(virtual+":80", 500)
	load.flow(100)
	f.lan.PowerOff(t, f.web[2].Container)
	load.flow(100)
	f.awaitStates(front, "UP UP DOWN")
	load.stop("a host is killed", 0) // GET requests, which HAProxy sends to another host
}
