package app

import "strings"

// PrivateTmp reports whether the instances have a /tmp of their own: not where the command or its directory are in /tmp.
func (a App) PrivateTmp() bool { return !a.uses(inTmp) }

// ProtectHome reports whether home directories are hidden from the instances: not where the command or its directory are in one;
// then they are read-only.
func (a App) ProtectHome() bool { return !a.uses(inHome) }

// Hidden returns the property that shows the instances a file which the sandbox of their unit hides, with its value; none if
// it is in sight.
func (a App) Hidden(path string) Property {
	for key, hides := range map[string]bool{"ProtectHome": inHome(path) && a.ProtectHome(), "PrivateTmp": inTmp(path) && a.PrivateTmp()} {
		if _, given := a.Property(key); hides && !given {
			return Property{Key: key, Value: map[string]string{"ProtectHome": "read-only", "PrivateTmp": "no"}[key]}
		}
	}
	return Property{}
}

func (a App) uses(place func(string) bool) bool {
	if place(a.WorkingDirectory) {
		return true
	}
	for _, word := range a.Command {
		if place(word) {
			return true
		}
	}
	return false
}

func inTmp(path string) bool { return below(path, "/tmp/", "/var/tmp/") }

func inHome(path string) bool { return below(path, "/home/", "/root/", "/run/user/") }

func below(path string, dirs ...string) bool {
	for _, dir := range dirs {
		if strings.HasPrefix(path+"/", dir) {
			return true
		}
	}
	return false
}
