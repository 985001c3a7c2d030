// Package plan turns the wanted app into units on disk: it reads the present state, compares, and
// makes the changes, all or none. It knows nothing of what runs; Plan.Effect says what a running
// app needs before a change counts.
//
//	disk, err := site.Read(name)
//	p, err := disk.For(wanted, instances)
//	err = p.Write()
//
// Reading an app costs an lstat(2) for each of its possible files, which are some 530 with the
// drop-ins, and writing one fsync(2) for each file that changes.
package plan

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
	"github.com/unitgen/unitgen/internal/fault"
)

// Site is where the units of apps are, and what goes into them because of that.
type Site struct {
	Dir       string // where unitgen writes unit files
	Root      string // before every path of the system; empty for the real one
	Packaging bool   // --output=: no manager, and nothing else of this machine matters
	UserUnits bool
	Lbshim    string       // the balancer that units start
	CPUs      func() []int // numbers of the processors that instances may use; never nil if an app has Pin
}

// others lists the directories in which a unit of the same name would be hidden by one of ours, or
// would hide it (systemd.unit(5), table 1 and 2): systemd-run and generators make units too.
func (s Site) others() []string {
	if s.Packaging {
		return nil
	}
	dirs := []string{"/run/systemd/transient", "/run/systemd/generator.early", "/run/systemd/system", "/run/systemd/generator",
		"/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system", "/run/systemd/generator.late"}
	if s.UserUnits {
		dirs = []string{"/etc/systemd/user", "/run/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user"}
	}
	for i, dir := range dirs {
		dirs[i] = s.Root + dir
	}
	return dirs
}

// Dirs lists the manager's unit directories: unitgen's first, then the others.
func (s Site) Dirs() []string { return append([]string{s.Dir}, s.others()...) }

// Listed is an app on this machine, written by unitgen or installed by a package.
type Listed struct {
	Name app.Name
	App  *app.App // nil if its settings cannot be read: it may be running all the same
	Err  error    // why
}

// Apps reads every app.service with a section [X-Unitgen], and returns them sorted by name. A unit
// in two directories counts once, in the manager's order: /etc before /run before /usr.
func (s Site) Apps() ([]Listed, error) {
	var apps []Listed
	for _, dir := range s.Dirs() {
		entries, err := os.ReadDir(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		for _, entry := range entries {
			word, ok := strings.CutSuffix(entry.Name(), ".service")
			if !ok || !entry.Type().IsRegular() || strings.Contains(word, "@") {
				continue
			}
			name := app.Name(word)
			if slices.ContainsFunc(apps, func(l Listed) bool { return l.Name == name }) {
				continue
			}
			text, err := os.ReadFile(filepath.Join(dir, entry.Name()))
			if err != nil || !strings.Contains(string(text), "["+app.SettingsSection+"]") {
				continue // somebody else's, and none of our business
			}
			apps = append(apps, listed(name, string(text)))
		}
	}
	slices.SortFunc(apps, func(a, b Listed) int { return strings.Compare(string(a.Name), string(b.Name)) })
	return apps, nil
}

func listed(name app.Name, text string) Listed {
	a, err := app.ParseSettings(name, text)
	if err != nil {
		return Listed{Name: name, Err: err}
	}
	return Listed{Name: name, App: &a}
}

// Find returns the text of an app's service that the manager would load. The error is
// fs.ErrNotExist if no directory has it. unitgen may not have written the service.
func (s Site) Find(name app.Name) (text string, err error) {
	for _, dir := range s.Dirs() {
		text, err := os.ReadFile(filepath.Join(dir, name.Service()))
		if !errors.Is(err, fs.ErrNotExist) {
			return string(text), fault.Write(err)
		}
	}
	return "", fs.ErrNotExist
}

// Has reports whether a service of that name is on this machine, whoever installed it.
func (s Site) Has(name app.Name) bool {
	return slices.ContainsFunc(s.Dirs(), func(dir string) bool {
		_, err := os.Lstat(filepath.Join(dir, name.Service()))
		return err == nil
	})
}

// Owns reports whether the app's units are in the directory in which unitgen writes.
func (s Site) Owns(name app.Name) bool {
	_, err := os.Lstat(filepath.Join(s.Dir, name.Service()))
	return !errors.Is(err, fs.ErrNotExist)
}

// Instances is the union of the links in the app's .wants directories, sorted. A directory that
// cannot be read has none.
func (s Site) Instances(name app.Name) []int {
	var all []int
	for _, dir := range s.Dirs() {
		d := newDisk(Site{Dir: dir}, name)
		d.readLinks()
		all = append(all, d.Instances...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}
