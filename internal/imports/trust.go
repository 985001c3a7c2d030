package imports

import (
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/unitgen/unitgen/internal/app"
)

// readFile is a file of the source and the user whose it was as it was read: a name may be another
// file a moment later.
type readFile struct {
	shown string
	owner uint32
}

// Claims returns an InputError for each thing that a user's source says and only root may: another
// user, files that PID 1 reads, settings of PID 1 with a few exceptions, and files of others beside
// the source, which root can read and the user perhaps cannot. It is nil for a source whose files
// all are root's. It protects root, who would make the apps without reading the files.
func (m *Import) Claims() error {
	if len(m.read) == 0 {
		return nil
	}
	owner := m.read[0].owner
	var found []error
	for _, f := range m.read[1:] {
		if f.owner != owner {
			found = append(found, app.FileError(f.shown, 0, &app.InputError{
				Msg:  fmt.Sprintf("it belongs to user %d, and %s to user %d: --now takes files of one user", f.owner, m.Shown, owner),
				Hint: hintClaims}))
		}
	}
	return errors.Join(append(found, m.claims(owner))...)
}

const hintClaims = "leave out --now, look at the files, and make the apps of them"

func (m *Import) claims(owner uint32) error {
	if owner == 0 {
		return nil
	}
	var found []error
	for _, a := range m.Starting() {
		for _, s := range a.Settings {
			if s.word == "" || s.word == "--user=" || !claims(s, owner) { // what import adds has no word of the source
				continue
			}
			found = append(found, app.FileError(s.file, s.line, &app.InputError{
				Msg:  fmt.Sprintf("%s: %s is root's to say, and the file belongs to user %d", s.word, settingLine(s.Key, s.Values), owner),
				Hint: hintClaims}))
		}
	}
	return errors.Join(found...)
}

func claims(s Setting, owner uint32) bool {
	switch s.Key {
	case "User":
		u, err := lookup(s.Values[0])
		return err != nil || u.Uid != strconv.FormatUint(uint64(owner), 10)
	case "EnvironmentFile":
		return true
	case "Property":
		switch key, _, _ := strings.Cut(s.Values[0], "="); key {
		case "Slice", "KillSignal", "Restart", "UMask", "Environment":
			return false
		}
		return true
	}
	return false
}
