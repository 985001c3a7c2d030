package imports

import (
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"syscall"

	"github.com/unitgen/unitgen/internal/app"
)

// Claims returns an InputError for each setting of a user's source at path that only root may give
// an app: another user, files that PID 1 reads, and settings of PID 1 with a few exceptions. It is
// nil for a source that root owns. It protects root, who would make the apps without reading the
// files.
func (m *Import) Claims(path string) error {
	st, err := os.Stat(path)
	if err != nil {
		return fmt.Errorf("stat %s: %w", m.Shown, cause(err))
	}
	return m.claims(st.Sys().(*syscall.Stat_t).Uid)
}

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
				Hint: "leave out --now, look at the files, and make the apps of them"}))
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
