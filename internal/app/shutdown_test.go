package app

import (
	"strings"
	"testing"
)

func TestShutdownOrDefault(t *testing.T) {
	for _, tc := range []struct {
		command  string
		shutdown Shutdown
		property string // KillSignal=
		want     Shutdown
		signal   string
	}{
		{command: "/usr/bin/gunicorn app:app", want: ShutdownGraceful},
		{command: "/usr/bin/python3.11 -m uvicorn --fd 3 app:app", want: ShutdownGraceful},
		{command: "/usr/sbin/nginx -c /srv/nginx.conf", want: ShutdownGraceful, signal: "SIGQUIT"},
		{command: "/usr/sbin/nginx", property: "SIGQUIT", want: ShutdownGraceful},
		{command: "/usr/sbin/nginx", property: "SIGTERM"},
		{command: "/usr/sbin/nginx", shutdown: ShutdownQuick, want: ShutdownQuick},
		{command: "/usr/sbin/nginx", property: "SIGTERM", shutdown: ShutdownGraceful, want: ShutdownGraceful},
		{command: "/usr/bin/gunicorn app:app", property: "SIGINT"},
		{command: "/opt/app/server"},
		{command: "/opt/app/server", shutdown: ShutdownGraceful, want: ShutdownGraceful},
		{command: "/usr/bin/python3 -m"},
		{command: "/usr/bin/python3 nginx x"},
	} {
		a := App{Command: strings.Fields(tc.command), Shutdown: tc.shutdown}
		if tc.property != "" {
			a.Properties = []Property{{"KillSignal", tc.property}}
		}
		if got, signal := a.ShutdownOrDefault(), a.KillSignal(); got != tc.want || signal != tc.signal {
			t.Errorf("%s, --shutdown=%s, KillSignal=%s: got %q and signal %q, want %q and %q", tc.command, tc.shutdown, tc.property, got, signal, tc.want, tc.signal)
		}
	}
}
