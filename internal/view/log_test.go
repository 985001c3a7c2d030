package view

import (
	"strings"
	"testing"
	"time"
)

func TestLog(t *testing.T) {
	now := time.Date(2026, 5, 4, 12, 0, 0, 0, time.UTC)
	const today, before = `"__REALTIME_TIMESTAMP":"1777892400000000"`, `"__REALTIME_TIMESTAMP":"1777719600000000"`
	for _, test := range []struct{ entry, want string }{
		{`{` + today + `,"MESSAGE":"hello","_SYSTEMD_UNIT":"web@12.service"}`, "11:00:00 web@12 hello"},
		{`{` + before + `,"MESSAGE":"hello","_SYSTEMD_UNIT":"web.service"}`, "May  2 11:00:00 web hello"},
		{`{` + today + `,"MESSAGE":"Started.","_PID":"1","SYSLOG_IDENTIFIER":"systemd","UNIT":"web@1.service","_SYSTEMD_UNIT":"init.scope"}`,
			"11:00:00 web@1 systemd: Started."},
		{`{` + today + `,"MESSAGE":[104,105,27],"_SYSTEMD_USER_UNIT":"web@1.service"}`, `11:00:00 web@1 hi\x1b`},
		{`{` + today + `,"MESSAGE":"","_SYSTEMD_UNIT":"web@1.service"}`, "11:00:00 web@1 "},
		{`{` + today + `,"MESSAGE":null,"_SYSTEMD_UNIT":"web@1.service"}`, "11:00:00 web@1 (a line of more than 4096 bytes)"},
		// A program wrote these by the journal's own protocol: several fields of one name, of text
		// and of bytes.
		{`{` + today + `,"MESSAGE":["a","b"],"SYSLOG_IDENTIFIER":["x",[1,2]],"PRIORITY":[[51],"3"],"UNIT":[["w\u001b"],"y"]}`, `11:00:00 w\x1b a`},
		{`{` + today + `,"MESSAGE":{"a":1},"SYSLOG_IDENTIFIER":7,"_SYSTEMD_UNIT":"web@1.service"}`, "11:00:00 web@1 "},
	} {
		var b strings.Builder
		l := Log{App: "web", Now: func() time.Time { return now }}
		if err := l.Print(&b, strings.NewReader(test.entry)); err != nil || b.String() != test.want+"\n" {
			t.Errorf("%s: got %q, %v, want %q", test.entry, b.String(), err, test.want)
		}
	}
	var b strings.Builder
	l := Log{App: "web", Now: func() time.Time { return now }, Colour: true}
	entries := `{` + today + `,"MESSAGE":"a","_SYSTEMD_UNIT":"web.service"}{` + today + `,"MESSAGE":"b","PRIORITY":"3","_SYSTEMD_UNIT":"web@1.service"}`
	want := "11:00:00 web a\n11:00:00 \x1b[36mweb@1\x1b[0m \x1b[0;1;31mb\x1b[0m\n"
	if err := l.Print(&b, strings.NewReader(entries)); err != nil || b.String() != want {
		t.Errorf("in colour: %q, %v, want %q", b.String(), err, want)
	}
	if err := l.Print(&b, strings.NewReader(`{"MESSAGE"`)); err == nil {
		t.Error("half an entry is no error")
	}
}
