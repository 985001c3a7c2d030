//go:build integration

package packages

import "testing"

// testOperators: who is in an app's group may do what the polkit rule says, and no more.
func testOperators(t *testing.T, a *hello) {
	a.MustExec(t, "sh", "-c", "groupadd --system unitgen-hello && useradd --groups unitgen-hello member && useradd stranger")
	for _, words := range [][]string{
		{"reload", "hello"}, {"restart", "hello@2"}, {"stop", "hello@4"}, {"start", "hello@4"}, {"restart", "hello"},
	} {
		if out := a.as(t, "member", words...); out.Status != 0 {
			t.Errorf("systemctl %q of an operator: exit status %d: %s", words, out.Status, out.Stderr)
		}
		if out := a.as(t, "stranger", words...); out.Status == 0 {
			t.Errorf("systemctl %q of somebody else was done", words)
		}
	}
	for _, words := range [][]string{
		{"stop", "hello"}, {"stop", "hello.socket"}, {"restart", "hello-control.socket"}, {"restart", "systemd-logind"},
		{"kill", "hello"}, {"daemon-reload"}, {"disable", "hello"}, {"mask", "hello@1"},
	} {
		if out := a.as(t, "member", words...); out.Status == 0 {
			t.Errorf("systemctl %q of an operator was done", words)
		}
	}
	a.AwaitUp(a.N)
}
