package wanted

import (
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/app"
)

func TestPropertyErrors(t *testing.T) {
	a := app.App{Name: "web", Properties: []app.Property{{Key: "Nice", Value: "999"}, {Key: "CPUShares", Value: "5"}, {Key: "Foo", Value: "1"}}}
	text := "[Service]\nUMask=9\nNice=999\nCPUShares=5\nFoo=1\n"
	messages := "/tmp/x/web@.service:2: Failed to parse mode value, ignoring: 9\n" + // a line of a template of the admin's
		"/tmp/x/web@.service:3: Nice priority out of range, ignoring: 999\n" +
		"/tmp/x/web@.service:4: Unit uses CPUShares=; please use CPUWeight= instead. Support will be removed soon.\n" +
		"/tmp/x/web@.service:5: Unknown key 'Foo' in section [Service], ignoring.\n" +
		"web@i.service: Command /opt/server is not executable: No such file or directory\n"
	want := "--property=Nice=999 is not understood by systemd: Nice priority out of range\n" +
		"--property=Foo=1 is not understood by systemd: Unknown key 'Foo' in section [Service]"
	if err := propertyErrors(a, text, messages); err == nil || err.Error() != want {
		t.Errorf("got %v\nwant %s", err, want)
	}
	if err := propertyErrors(a, text, strings.SplitAfter(messages, "\n")[4]); err != nil {
		t.Errorf("of another file: %v", err)
	}
}
