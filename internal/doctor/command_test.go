package doctor

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// A command is followed to all that the kernel executes for it. What cannot be known is let pass.
func TestCheckCommand(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good", "#!/bin/sh\n")
	lost := file("lost", "#!/opt/none/sh -e\n")
	twice := file("twice", "#!"+lost+"\n")
	plain := file("plain", "#!/usr/bin/env nosuchlang\n")
	split := file("split", "#!/usr/bin/env -S nosuchlang --x\n")
	own := file("own", "#!/usr/bin/env mylang\n")
	windows := file("windows", "#!/bin/sh\r\n")
	file("mylang", "#!/bin/sh\n")
	with := func(settings app.App, argv ...string) app.App {
		settings.Name, settings.Command = "web", argv
		return settings
	}
	path := app.App{Environment: []app.Assignment{{Key: "PATH", Value: dir + ":/bin"}}}
	for _, tt := range []struct {
		name       string
		app        app.App
		want, hint string // nothing is wrong if both are empty
	}{
		{"a script", with(app.App{}, good), "", ""},
		{"an ELF file", with(app.App{}, "/bin/true"), "", ""},
		{"gone", with(app.App{}, dir+"/gone"), "does not exist", "unitgen web -- COMMAND"},
		{"no interpreter", with(app.App{}, lost, "a b"), `is a script for "/opt/none/sh", which does not exist`, "unitgen web -- /usr/bin/sh -e " + lost + " 'a b'"},
		{"of an interpreter", with(app.App{}, twice), `"` + lost + `" is a script for "/opt/none/sh"`, "unitgen web -- /usr/bin/sh -e " + lost + " " + twice},
		{"by env", with(app.App{}, plain, "x"), `is a script for "nosuchlang", which is not in a unit's PATH`, `unitgen web -- "$(command -v nosuchlang)" ` + plain + " x"},
		{"by env -S", with(app.App{}, split), `is a script for "nosuchlang"`, `unitgen web -- "$(command -v nosuchlang)" --x ` + split},
		{"env typed", with(app.App{}, "/usr/bin/env", "A=1", "nosuchlang", "x"), `the command "/usr/bin/env" starts "nosuchlang"`, `unitgen web --env=A=1 -- "$(command -v nosuchlang)" x`},
		{"env typed, of a script", with(app.App{}, "/usr/bin/env", lost), `"` + lost + `" is a script for`, "unitgen web -- /usr/bin/sh -e " + lost},
		{"env with options", with(app.App{}, "/usr/bin/env", "-u", "A", "nosuchlang"), "", ""},
		{"a shell that executes", with(app.App{}, "/bin/sh", "-c", "exec nosuchlang x"), `starts "nosuchlang"`, `unitgen web -- "$(command -v nosuchlang)" x`},
		{"a shell that does more", with(app.App{}, "/bin/sh", "-c", "exec $HOME/nosuchlang x"), "", ""},
		{"of Windows", with(app.App{}, windows), "line ends of Windows", `sed -i 's/\r$//' ` + windows},
		{"PATH of the app", with(path, own), "", ""},
		{"PATH of env", with(app.App{}, "/usr/bin/env", "PATH="+dir+":/bin", "mylang"), "", ""},
		{"not in PATH", with(app.App{}, own), `is a script for "mylang", which is not in a unit's PATH`, `unitgen web -- "$(command -v mylang)" ` + own},
		{"a user's manager", with(app.App{UserUnits: true}, own), "", ""},
		{"variables of a file", with(app.App{EnvironmentFiles: []string{"/x"}}, own), "", ""},
		{"another root", with(app.App{Properties: []app.Property{{Key: "RootDirectory", Value: "/srv"}}}, "/gone"), "", ""},
	} {
		err := CheckCommand(tt.app, "")
		switch {
		case err == nil && tt.want == "":
		case err == nil || tt.want == "" || !strings.Contains(err.Error(), tt.want) || fault.Hint(err) != tt.hint:
			t.Errorf("%s: %v; hint %q\nwant %q; hint %q", tt.name, err, fault.Hint(err), tt.want, tt.hint)
		}
	}
}
