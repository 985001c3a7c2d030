package plan

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"

	"github.com/unitgen/unitgen/internal/app"
)

// Removals returns the changes that remove all files and links of an app. Its settings need not be
// readable, but unitgen must have written app.service. The error is fs.ErrNotExist if there is no
// such app.
func (s Site) Removals(name app.Name) ([]Change, error) {
	var paths []string
	always := app.App{Name: name}.Units()
	for _, unit := range name.Units() {
		file := filepath.Join(s.Dir, unit)
		_, err := readUnit(file)
		switch {
		case errors.Is(err, fs.ErrNotExist):
			if unit == name.Service() {
				return nil, fs.ErrNotExist
			}
		case err != nil && slices.Contains(always, unit):
			return nil, err
		case err != nil: // somebody else's, where this app had nothing
		default:
			paths = append(paths, file)
		}
	}
	d := newDisk(s, name)
	d.readPins()
	for _, i := range d.pins {
		paths = append(paths, filepath.Join(s.Dir, name.Pin(i)))
	}
	if err := d.readLinks(); err != nil {
		return nil, err
	}
	wants := filepath.Join(s.Dir, name.WantsDir())
	for _, i := range d.Instances {
		paths = append(paths, filepath.Join(wants, name.Instance(i)))
	}
	for _, unit := range d.triggers {
		paths = append(paths, filepath.Join(wants, unit))
	}
	var changes []Change
	for _, path := range append(paths, s.enableLinks(name)...) {
		changes = append(changes, Change{Path: path})
	}
	return changes, nil
}

// enableLinks returns the links that systemctl enable and add-wants made. PID 1 is not asked to
// remove them, because it first reads the unit and refuses a damaged one.
func (s Site) enableLinks(name app.Name) []string {
	var found []string
	for _, dir := range []string{"*.wants", "*.requires", "*.upholds"} {
		for _, unit := range []string{name.Service(), name.Socket()} {
			links, _ := filepath.Glob(filepath.Join(s.Dir, dir, unit))
			for _, link := range links {
				if st, err := os.Lstat(link); err == nil && st.Mode()&fs.ModeSymlink != 0 {
					found = append(found, link)
				}
			}
		}
	}
	return found
}
