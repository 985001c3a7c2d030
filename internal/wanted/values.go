package wanted

import (
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// envFile reads --env-file=. A leading "-" allows the file to be missing, as in EnvironmentFile=.
func (r *Request) envFile(text string) (string, error) {
	file, optional := strings.CutPrefix(text, "-")
	if file == "" {
		return "", fault.Input("", "--env-file= must name a file, got %q", text)
	}
	file = r.absolute(file)
	if optional {
		return "-" + file, nil
	}
	if !r.Site.Packaging {
		if st, err := os.Stat(file); err != nil || st.IsDir() {
			return "", fault.Input(app.ShellWord("--env-file=-"+text), "--env-file= must name a file that exists, got %q", text)
		}
	}
	return file, nil
}

// watched reads --watch=. A file that is not there would be watched for all the same, but a slip of
// the pen would never be noticed.
func (r *Request) watched(text string) (string, error) {
	path := filepath.Clean(r.absolute(text))
	if r.Site.Packaging {
		return path, nil
	}
	if _, err := os.Lstat(path); err != nil {
		return "", fault.Input("", "--watch= must name a file or directory that exists, got %q", text)
	}
	return path, nil
}

// calendar reads --reload-at=.
func (r *Request) calendar(text string) (string, error) {
	if !r.Calendar(text) {
		return "", fault.Input("systemd-analyze calendar 'Mon..Fri 04:00'", "--reload-at= must be a calendar expression (systemd.time(7)), got %q", text)
	}
	return text, nil
}

// directory reads --working-directory=.
func (r *Request) directory(text string) (string, error) {
	dir := r.absolute(text)
	if st, err := os.Stat(dir); !r.Site.Packaging && (err != nil || !st.IsDir()) {
		return "", fault.Input("mkdir "+app.ShellWord(text), "--working-directory= must be a directory that exists, got %q", text)
	}
	return dir, nil
}

// setDirectory is where an app starts that does not say it. A new app starts where the user stands,
// as it would from a shell: "gunicorn app:app" finds its module there, "caddy run" its Caddyfile. A
// package's app, and one of a file, start in /, as nobody stands anywhere when they are installed;
// but a file's, where an argument names a file beside it.
func (r *Request) setDirectory(a *app.App, isNew bool) {
	if r.Given("working-directory") {
		return
	}
	dir := r.commandDir()
	if !isNew || r.Site.Packaging || len(a.Command) == 0 || dir == "" || dir == "/" {
		return
	}
	about := strings.HasPrefix(a.Command[0], dir+"/") || slices.ContainsFunc(a.Command[1:], relative)
	switch {
	case r.file != nil && !r.namesFile(a, dir), isHome(dir) && !about:
	default:
		a.WorkingDirectory = dir
	}
}

// isHome knows the directories in which people stand without a reason. Apps that start there could
// see all home directories.
func isHome(dir string) bool {
	return filepath.Dir(dir) == "/home" || dir == "/root" || dir == "/tmp" || dir == "/var/tmp"
}

// namesFile reports whether an argument of the command is a file in dir.
func (r *Request) namesFile(a *app.App, dir string) bool {
	return slices.ContainsFunc(a.Command[1:], func(arg string) bool {
		if !relative(arg) {
			return false
		}
		if a.Kind == app.KindNode {
			return true // of a module too: "node dist", "node ."
		}
		st, err := os.Stat(Join(dir, arg))
		return err == nil && st.Mode().IsRegular()
	})
}

// relative reports whether an argument may name something in the directory in which the program
// starts.
func relative(arg string) bool {
	return arg != "" && arg[0] != '-' && !filepath.IsAbs(arg)
}
