package app

import "path/filepath"

// The notes that keep the drain of a host when the shim ends: the host is drained if one of them
// exists. Root or the owner of the app writes them. The shim reads them when it starts.

// DrainNote is the note that is gone after a reboot, beside the control socket; runtimeDir is as
// for ControlPath.
func (n Name) DrainNote(runtimeDir string) string {
	return filepath.Join(filepath.Dir(n.ControlPath(runtimeDir)), "drained")
}

// PersistentDrainNote is the note that outlives a reboot, below stateDir: /var/lib or, for a user's
// units, $XDG_STATE_HOME.
func (n Name) PersistentDrainNote(stateDir string) string {
	return filepath.Join(stateDir, "unitgen", string(n)+".drained")
}

// StateDir is the stateDir of PersistentDrainNote; getenv is of the user whose units they are.
func StateDir(userUnits bool, getenv func(string) string) string {
	switch state := getenv("XDG_STATE_HOME"); {
	case !userUnits:
		return "/var/lib"
	case filepath.IsAbs(state):
		return state
	}
	return filepath.Join(getenv("HOME"), ".local/state")
}
