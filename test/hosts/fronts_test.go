//go:build integration

package hosts

import (
	"fmt"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/test/apps"
)

// certify makes a certificate of www.example.com where certbot has them.
func certify(t *testing.T, s *apps.System) {
	t.Helper()
	s.MustExec(t, "sh", "-c", `mkdir -p /etc/letsencrypt/live/www.example.com && cd /etc/letsencrypt/live/www.example.com &&
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=www.example.com -keyout privkey.pem -out fullchain.pem 2>&1`)
}

// testFronts runs nginx and Caddy before an app that is on all hosts and says which host answers.
func (f *fleet) testFronts(t *testing.T) {
	for i, s := range f.web {
		s.MustExec(t, "unitgen", "which", "--instances=1", "--listen=3200", "--agent=9998", fmt.Sprintf("--env=APP_VERSION=web%d", i+1),
			"--now", "--", apps.Server)
	}
	front := f.web[2]
	export := func(path, engine string, words ...string) {
		words = append(append([]string{"unitgen", "export", engine, "which"}, f.hosts()...), words...)
		front.MustWriteFile(t, path, front.MustExec(t, words...), 0o644)
	}
	certify(t, front)
	export("/etc/nginx/conf.d/which.conf", "nginx", "--domain=www.example.com")
	front.MustExec(t, "systemd-run", "--unit=front-nginx", "--collect", "nginx", "-g", "daemon off;")
	site := &site{f, front, "--insecure --resolve www.example.com:443:127.0.0.1 https://www.example.com/"}
	site.await("web1 web2 web3")
	if got := front.MustExec(t, "curl", "-sS", "-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", "-H", "Host: www.example.com",
		"http://127.0.0.1/x"); got != "301 https://www.example.com/x" {
		t.Errorf("without TLS nginx says %s", got)
	}
	site.losesHost()
	front.MustExec(t, "systemctl", "stop", "front-nginx.service")

	export("/srv/Caddyfile", "caddy")
	front.MustExec(t, "systemd-run", "--unit=front-caddy", "--collect", "--setenv=HOME=/srv", "caddy", "run", "--adapter", "caddyfile",
		"--config", "/srv/Caddyfile")
	site.curl = "http://127.0.0.1/"
	site.await("web1 web2 web3")
	f.web[0].MustExec(t, "unitgen", "drain", "which")
	site.await("web2 web3")
	f.web[0].MustExec(t, "unitgen", "undrain", "which")
	site.await("web1 web2 web3")
	site.losesHost()
	front.MustExec(t, "systemctl", "stop", "front-caddy.service")
	for _, s := range f.web {
		s.MustExec(t, "unitgen", "remove", "which")
	}
}

// site is what a front serves.
type site struct {
	f     *fleet
	front *apps.System
	curl  string // what curl is told beside
}

// round is which hosts answer 24 requests, and "failed" if one is not answered.
func (s *site) round() string {
	s.f.t.Helper()
	text := s.front.MustExec(s.f.t, "sh", "-c", "for i in $(seq 24); do curl -sS --fail "+s.curl+" 2>/dev/null || echo version=failed; done")
	var seen []string
	for _, who := range []string{"web1", "web2", "web3", "failed"} {
		if strings.Contains(text, "version="+who) {
			seen = append(seen, who)
		}
	}
	return strings.Join(seen, " ")
}

// await waits until just these hosts answer.
func (s *site) await(hosts string) {
	s.f.t.Helper()
	if got := s.f.until(s.round, hosts); got != hosts {
		s.f.t.Fatalf("%s: answered by %s, want %s", s.curl, got, hosts)
	}
}

// losesHost stops the app on the first host: no request fails, and when it is back it gets requests
// again.
func (s *site) losesHost() {
	s.f.t.Helper()
	s.f.web[0].MustExec(s.f.t, "systemctl", "stop", "which")
	for range 3 {
		if got := s.round(); strings.Contains(got, "web1") || strings.Contains(got, "failed") {
			s.f.t.Errorf("%s: without a host answered by %s", s.curl, got)
		}
	}
	s.f.web[0].MustExec(s.f.t, "systemctl", "start", "which.socket", "which.service")
	s.await("web1 web2 web3")
}
