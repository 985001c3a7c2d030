package wanted

import (
	"path/filepath"
	"strings"

	"github.com/unitgen/unitgen/internal/doctor"
	"github.com/unitgen/unitgen/internal/fault"
	"github.com/unitgen/unitgen/internal/program"
)

// resolve returns the absolute path of a program: as it is, from the current directory, or from
// $PATH. It must be an executable file. For packages, programs need not be installed where the
// units are written.
func (r *Request) resolve(name string) (string, error) {
	if name == "" {
		return "", fault.Input("", "the command must not be empty")
	}
	if r.Site.Packaging && filepath.IsAbs(name) {
		return name, nil
	}
	var path string
	if strings.Contains(name, "/") {
		if r.commandDir() == "" && !filepath.IsAbs(name) {
			return "", fault.Input("", "the current directory does not exist, so %q is nowhere", name)
		}
		path = Join(r.commandDir(), name)
	} else if path = program.Search(name, r.Path, r.Dir); path == "" {
		hint := ""
		if program.IsExecutable(Join(r.commandDir(), name)) {
			hint = "./" + name
		}
		return "", fault.Input(hint, "the command %q is not in $PATH", name)
	}
	return path, doctor.CheckExecutable(name, path)
}
