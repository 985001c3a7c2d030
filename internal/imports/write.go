package imports

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

func envFile(name app.Name) string { return string(name) + ".env" }

// File is a file of an import.
type File struct {
	Path   string
	Text   string
	Secret bool // its mode is 0600
}

// Files are the files of the apps in dir: a .unitgen file each, and one for the secrets of its
// environment.
func (m *Import) Files(dir string) []File {
	var files []File
	for _, a := range m.Apps {
		if a.Skip != "" {
			continue
		}
		files = append(files, File{Path: filepath.Join(dir, string(a.Name)+app.FileExtension), Text: a.settings(m.Shown)})
		if len(a.Secrets) > 0 {
			files = append(files, File{Path: filepath.Join(dir, envFile(a.Name)), Text: environmentText(a.Secrets), Secret: true})
		}
	}
	return files
}

// Text returns the files under their paths, without the values of secrets.
func Text(files []File) string {
	var b strings.Builder
	for _, f := range files {
		if f.Secret {
			fmt.Fprintf(&b, "\n# %s, readable by its owner only; values are not shown\n", f.Path)
			continue
		}
		fmt.Fprintf(&b, "\n# %s\n%s", f.Path, f.Text)
	}
	return b.String()
}

// settings returns the .unitgen file, its keys in the order of unitgen(5).
func (a *App) settings(from string) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# From %s, by unitgen import.\n", app.QuoteWord(from))
	for _, key := range app.Table() {
		for _, s := range a.Settings {
			if s.Key == key.Key {
				b.WriteString(settingLine(s.Key, s.Values) + "\n")
			}
		}
	}
	return b.String()
}

// environmentText returns a file for EnvironmentFile= (systemd.exec(5)): each value in double
// quotes, unchanged except for four characters (parse_env_file_internal() in src/basic/env-file.c).
// The last of several values counts.
func environmentText(vars []app.Assignment) string {
	var b strings.Builder
	for i, v := range vars {
		if slices.ContainsFunc(vars[i+1:], func(later app.Assignment) bool { return later.Key == v.Key }) {
			continue
		}
		value := strings.NewReplacer(`\`, `\\`, `"`, `\"`, "$", `\$`, "`", "\\`").Replace(v.Value)
		fmt.Fprintf(&b, "%s=\"%s\"\n", v.Key, value)
	}
	return b.String()
}

// Write writes all files or none. It never changes one that is there: that is an InputError, unless
// it has the same text already. It returns the paths that it wrote.
func Write(files []File) (written []string, err error) {
	var found []error
	files = slices.DeleteFunc(slices.Clone(files), func(f File) bool {
		old, _, err := readText(f.Path)
		if errors.Is(err, fs.ErrNotExist) {
			return false
		}
		if err != nil || old != f.Text {
			found = append(found, &app.InputError{Msg: fmt.Sprintf("%s is there already, and says something else", f.Path), Hint: "--output=DIR writes to another directory"})
			return false
		}
		return !f.Secret || private(f.Path)
	})
	if len(found) > 0 {
		return nil, errors.Join(found...)
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, Remove(written))
			written = nil
		}
	}()
	var fresh []string
	defer func() {
		for _, path := range fresh {
			os.Remove(path)
		}
	}()
	// First every text, where a full disk or a missing right shows; then every name.
	for _, f := range files {
		path, err := writeFresh(f)
		if err != nil {
			return written, fmt.Errorf("write %s: %w", f.Path, fault.WithoutPath(err))
		}
		fresh = append(fresh, path)
	}
	for i, f := range files {
		if err := os.Link(fresh[i], f.Path); err != nil {
			return written, fmt.Errorf("write %s: %w", f.Path, fault.WithoutPath(err))
		}
		written = append(written, f.Path)
	}
	return written, nil
}

func private(path string) bool {
	st, err := os.Stat(path)
	return err == nil && st.Mode().Perm()&0o077 == 0
}

// writeFresh writes the text beside its place, under a name that begins with a dot. Only its owner
// can open a secret, from the first moment on.
func writeFresh(f File) (path string, err error) {
	mode := os.FileMode(0o644)
	if f.Secret {
		mode = 0o600
	}
	path = filepath.Join(filepath.Dir(f.Path), fmt.Sprintf(".unitgen-%d-%s", os.Getpid(), filepath.Base(f.Path)))
	out, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, mode)
	if err != nil {
		return "", err
	}
	_, err = out.WriteString(f.Text)
	if err == nil {
		err = out.Sync()
	}
	if err = errors.Join(err, out.Close()); err != nil {
		os.Remove(path)
	}
	return path, err
}

// Remove takes back what Write wrote.
func Remove(paths []string) error {
	var found []error
	for _, path := range paths {
		found = append(found, os.Remove(path))
	}
	return errors.Join(found...)
}
