package app

import (
	"path/filepath"
	"slices"
	"strings"
)

// TmpPaths returns the paths of the machine's /tmp and /var/tmp that the instances need: their
// working directory, and the directories of files that the command names. Besides these the
// instances have a private /tmp: PID 1 gives one to every dynamic user, and ignores PrivateTmp=no
// for those (unit_patch_contexts in src/core/unit.c).
func (a App) TmpPaths() []string {
	needed := []string{tmpPath(a.WorkingDirectory, true)}
	for _, word := range a.Command {
		if !filepath.IsAbs(word) && !strings.HasPrefix(word, "-") && a.WorkingDirectory != "" {
			word = filepath.Join(a.WorkingDirectory, word)
		}
		needed = append(needed, tmpPath(word, false))
	}
	var paths []string
	for _, path := range needed {
		if path != "" && !slices.ContainsFunc(paths, func(p string) bool { return below(path, p+"/") }) {
			paths = append(paths, path)
		}
	}
	return paths
}

// tmpPath returns the part of /tmp to show for a path there: the directory of a file, or the file
// itself if it is in /tmp directly. It is "" for paths elsewhere, and for those that BindPaths=
// would read differently.
func tmpPath(path string, directory bool) string {
	if !below(path, "/tmp/", "/var/tmp/") || strings.ContainsFunc(path, func(r rune) bool { return strings.ContainsRune("\"'\\: \t\n%", r) }) {
		return ""
	}
	path = filepath.Clean(path)
	if dir := filepath.Dir(path); !directory && dir != "/tmp" && dir != "/var/tmp" {
		return dir
	}
	if path == "/tmp" || path == "/var/tmp" {
		return ""
	}
	return path
}

// ProtectHome reports whether home directories are hidden from the instances: not where the command
// or its directory are in one; then they are read-only.
func (a App) ProtectHome() bool {
	return !inHome(a.WorkingDirectory) && !slices.ContainsFunc(a.Command, inHome)
}

// Hidden returns the property that shows the instances a file which the sandbox of their unit
// hides, with its value; none if it is in sight.
func (a App) Hidden(path string) Property {
	show := Property{}
	if shown := tmpPath(path, false); shown != "" && !slices.ContainsFunc(a.TmpPaths(), func(p string) bool { return below(path, p+"/") }) {
		show = Property{Key: "BindPaths", Value: shown}
	} else if inHome(path) && a.ProtectHome() {
		show = Property{Key: "ProtectHome", Value: "read-only"}
	}
	if _, given := a.Property(show.Key); given {
		return Property{}
	}
	return show
}

// TmpHint is the option that shows a program the file at a path in /tmp.
func TmpHint(path string) string {
	if shown := tmpPath(path, false); shown != "" {
		return "-p BindPaths=" + shown
	}
	return "-p BindPaths=DIRECTORY"
}

func inHome(path string) bool { return below(path, "/home/", "/root/", "/run/user/") }

func below(path string, dirs ...string) bool {
	for _, dir := range dirs {
		if strings.HasPrefix(path+"/", dir) {
			return true
		}
	}
	return false
}
