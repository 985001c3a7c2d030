package metrics

import (
	"context"
	"errors"
	"flag"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil/promlint"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/control"
	"github.com/unitgen/unitgen/internal/rollout/tally"
	"github.com/unitgen/unitgen/internal/survey"
	"github.com/unitgen/unitgen/internal/systemd"
)

var update = flag.Bool("update", false, "write the golden exposition anew")

// played is a manager with the units and properties of a test.
type played struct {
	units      []systemd.UnitState
	properties map[systemd.Question]any
	err        error
	listings   atomic.Int32
}

func (p *played) ListUnits(_ context.Context, patterns ...string) ([]systemd.UnitState, error) {
	p.listings.Add(1)
	var matching []systemd.UnitState
	for _, u := range p.units {
		for _, pattern := range patterns {
			if ok, _ := filepath.Match(pattern, u.Name); ok {
				matching = append(matching, u)
				break
			}
		}
	}
	return matching, p.err
}

func (p *played) Sweep(_ context.Context, questions []systemd.Question) ([]any, error) {
	var answers []any
	for _, q := range questions {
		answers = append(answers, p.properties[q])
	}
	return answers, nil
}

func (p *played) unit(name, active, sub string) {
	p.units = append(p.units, systemd.UnitState{Name: name, LoadState: "loaded", ActiveState: active, SubState: sub})
}

// play makes app web, of which one instance is up, one crashed, one is enabled and was never
// started, and one is what a rollout has left; an app that is idle, one whose balancer is silent;
// and units of others that look like ours.
func play(t *testing.T) (*played, *Source) {
	t.Helper()
	m := &played{properties: make(map[systemd.Question]any)}
	for _, name := range []string{"web", "lazy", "mute"} {
		m.unit(name+"-control.socket", "active", "running")
		m.unit(name+"-diag.socket", "active", "running")
		m.unit(name+".socket", "active", "running")
	}
	m.unit("web.service", "active", "running")
	m.unit("lazy.service", "inactive", "dead")
	m.unit("mute.service", "activating", "start")
	m.unit("other-control.socket", "active", "running")
	m.unit("other.service", "active", "running")
	m.unit("getty@tty1.service", "active", "running")
	m.unit("web@1.service", "active", "running")
	m.unit("web@2.service", "activating", "auto-restart")
	m.unit("web@4.service", "inactive", "dead")
	m.unit("web@5.service", "deactivating", "stop-sigterm")
	m.unit("web@05.service", "active", "running")
	m.unit("mute@1.service", "activating", "start-post")
	m.properties[systemd.Question{Unit: "web.service", Property: "Wants"}] = []string{
		"web@2.service", "web@1.service", "web@3.service", "web-diag.socket", "web-memory.timer"}
	m.properties[systemd.Question{Unit: "mute.service", Property: "Wants"}] = []string{"mute@1.service"}
	m.properties[systemd.Question{Unit: "web@2.service", Property: "NRestarts", OfType: true}] = uint32(7)
	m.properties[systemd.Question{Unit: "lazy.socket", Property: "ActiveState"}] = "active"

	dir := t.TempDir()
	web := filepath.Join(dir, "unitgen/web")
	if err := os.MkdirAll(web, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, err := range []error{
		tally.End(web, tally.Success, 2500*time.Millisecond, time.Unix(1000, 0)), tally.End(web, tally.Success, time.Second, time.Unix(2000, 0)),
		tally.End(web, tally.Failure, 90*time.Second, time.Unix(3000, 0)), tally.Begin(web, time.Unix(4000, 0)),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return m, &Source{Dial: func(context.Context) (survey.Manager, func(), error) { return m, func() {}, nil }, Source: survey.Source{
		RuntimeDir: dir, Log: slog.New(slog.DiscardHandler),
		Ask: func(_ context.Context, name app.Name) (s control.Status, err error) {
			switch name {
			case "lazy":
				t.Error("an app that is idle was asked, which starts it")
			case "mute":
				return s, errors.New("it is silent")
			}
			s.Path, s.Strategy = "steer", "round-robin"
			s.Addresses = append(s.Addresses, control.AddressStatus{Address: "[::]:3000", Waiting: 3, Parked: 30, Migrated: 20, Refused: 10, Unplaced: 1})
			s.Instances = []control.InstanceStatus{
				{Instance: 1, State: "up", Connections: 12, Queued: 1, Steered: 1000}, {Instance: 2, State: "stuck", Connections: -1, Steered: 500},
				{Instance: 9, State: "up", Connections: 1, Queued: 1, Steered: 1}, {Instance: 5, State: "dancing", Steered: 4},
			}
			s.Tampering = []control.Tampering{{Times: 2}, {Times: 3}}
			return s, nil
		},
	}}
}

// scrape serves s and asks it once, as a client that takes format.
func scrape(t *testing.T, s *Source, path, format string) (status int, body, kind string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- NewServer(s, time.Hour).Serve(ctx, ln) }()
	defer func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}()
	request, err := http.NewRequestWithContext(t.Context(), "GET", "http://"+ln.Addr().String()+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Accept", format)
	response, err := (&http.Transport{DisableKeepAlives: true}).RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	text, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(text), response.Header.Get("Content-Type")
}

func TestExposition(t *testing.T) {
	for file, format := range map[string]string{"text": "text/plain", "openmetrics": "application/openmetrics-text; version=1.0.0"} {
		_, s := play(t)
		status, got, kind := scrape(t, s, "/metrics", format)
		if status != http.StatusOK || !strings.HasPrefix(kind, strings.Split(format, ";")[0]) {
			t.Fatalf("status %d, %s: %s", status, kind, got)
		}
		path := filepath.Join("testdata", file)
		if *update {
			if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		want, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if got != string(want) {
			t.Errorf("%s differs (go test ./internal/metrics -update and git diff show how):\n%s", path, got)
		}
		if file == "text" {
			problems, err := promlint.New(strings.NewReader(got)).Lint()
			if err != nil || len(problems) > 0 {
				t.Errorf("promlint: %v, %v", problems, err)
			}
		}
	}
}

func TestOneApp(t *testing.T) {
	m, s := play(t)
	s.Apps = []app.Name{"mute"}
	_, got, _ := scrape(t, s, "/metrics", "text/plain")
	if strings.Contains(got, `app="web"`) || !strings.Contains(got, `unitgen_instances{app="mute",state="starting"} 1`) {
		t.Errorf("%s", got)
	}
	if n := m.listings.Load(); n != 1 {
		t.Errorf("%d listings", n)
	}
}

func TestOtherPathsAreNotThere(t *testing.T) {
	m, s := play(t)
	for _, path := range []string{"/", "/metrics/", "/debug/pprof/"} {
		if status, _, _ := scrape(t, s, path, "text/plain"); status != http.StatusNotFound {
			t.Errorf("%s: status %d", path, status)
		}
	}
	if n := m.listings.Load(); n != 0 {
		t.Errorf("%d listings", n)
	}
}

// A scrape without systemd's answer fails: values that are missing would look like apps that are
// gone.
func TestSystemdIsAway(t *testing.T) {
	m, s := play(t)
	m.err = errors.New("systemd is away")
	if status, text, _ := scrape(t, s, "/metrics", "text/plain"); status != http.StatusInternalServerError || !strings.Contains(text, "systemd is away") {
		t.Errorf("status %d: %s", status, text)
	}
}

// However often somebody scrapes, systemd is asked once a second at most.
func TestScrapesShareOneLook(t *testing.T) {
	m, s := play(t)
	server := NewServer(s, time.Hour)
	for range 100 {
		if _, err := server.look(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if n := m.listings.Load(); n > 3 {
		t.Errorf("%d listings", n)
	}
	server.looked = time.Now().Add(-fresh)
	before := m.listings.Load()
	if _, err := server.look(t.Context()); err != nil || m.listings.Load() != before+1 {
		t.Errorf("after a second: %d listings, %v", m.listings.Load()-before, err)
	}
}

func TestEndsWhenIdle(t *testing.T) {
	_, s := play(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- NewServer(s, 10*time.Millisecond).Serve(t.Context(), ln) }()
	select {
	case err := <-ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(time.Minute):
		t.Fatal("it runs on")
	}
}

// A client that sends nothing, or more than a header has, keeps nobody else out for longer than the
// limits say, and a connection that is over the limit waits.
func TestLimits(t *testing.T) {
	_, s := play(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- NewServer(s, time.Hour).Serve(ctx, ln) }()
	defer func() { cancel(); <-ended }()
	dial := func(text string) net.Conn {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, text); err != nil {
			t.Fatal(err)
		}
		return conn
	}
	large := dial("GET /metrics HTTP/1.1\r\nHost: x\r\nX: " + strings.Repeat("x", 4*maxHeader) + "\r\n\r\n")
	answer, _ := io.ReadAll(large) // a reset after the answer is as good
	if !strings.Contains(string(answer), " 431 ") && len(answer) > 0 {
		t.Errorf("large header: %.60q", answer)
	}
	var silent []net.Conn
	for range maxConnections {
		silent = append(silent, dial("GET /metrics HTTP/1.1\r\n"))
	}
	waits := dial("GET /metrics HTTP/1.0\r\n\r\n")
	if err := waits.SetReadDeadline(time.Now().Add(time.Minute)); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	answer, err = io.ReadAll(waits)
	if err != nil || !strings.Contains(string(answer), " 200 ") {
		t.Errorf("after those who are silent: %.60q, %v", answer, err)
	}
	if time.Since(began) < headerTimeout/2 {
		t.Error("more connections were served than the limit says")
	}
	for _, conn := range silent {
		conn.Close()
	}
}

// Clients that have asked and keep their connections keep nobody out: while many are open, each
// ends with its answer.
func TestIdleClientsKeepNobodyOut(t *testing.T) {
	_, s := play(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- NewServer(s, time.Hour).Serve(ctx, ln) }()
	defer func() { cancel(); <-ended }()
	ask := func(what string) {
		conn, err := net.Dial("tcp", ln.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if err := conn.SetDeadline(time.Now().Add(keepAlive / 2)); err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(conn, "GET /"+what+" HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(conn, make([]byte, len("HTTP/1.1 200"))); err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	for range 2 * maxConnections {
		ask("nothing")
	}
	ask("metrics")
}
