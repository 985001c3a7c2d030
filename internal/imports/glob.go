package imports

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// Limits of what a source has read beside it. A pattern may match every file of a disk, and root
// may be who reads them.
const (
	maxNames = 10_000  // in the directories that patterns are compared with
	maxFiles = maxApps // with the source
	maxBytes = 8 << 20 // of these files together
)

// glob returns the files that match an absolute pattern, by name and bounded by maxNames for all
// patterns of a source. As in a shell, and as for Python's glob, "*" matches no name that begins
// with a dot.
func (s *source) glob(pattern string) ([]string, error) {
	disk := &boundedFS{FS: os.DirFS("/"), names: &s.names, hidden: strings.Contains(pattern, "/.")}
	matches, err := fs.Glob(disk, strings.TrimPrefix(filepath.Clean(pattern), "/"))
	if err == nil && s.names > maxNames { // Glob passes over directories that it cannot read
		err = fmt.Errorf("%q looks at more than %d names", pattern, maxNames)
	}
	if errors.Is(err, path.ErrBadPattern) {
		err = fmt.Errorf("%q is no pattern of files", pattern)
	}
	for i := range matches {
		matches[i] = "/" + matches[i]
	}
	return matches, err
}

// boundedFS is a file system that reads no more directories when it has given maxNames names.
type boundedFS struct {
	fs.FS
	names  *int // given so far
	hidden bool // gives those that begin with a dot
}

// ReadDir reads a directory up to the limit.
func (b *boundedFS) ReadDir(name string) ([]fs.DirEntry, error) {
	dir, err := b.Open(name)
	if err != nil {
		return nil, err
	}
	defer dir.Close()
	list, ok := dir.(fs.ReadDirFile)
	if !ok {
		return nil, &fs.PathError{Op: "readdir", Path: name, Err: fs.ErrInvalid}
	}
	entries, err := list.ReadDir(max(maxNames-*b.names, 0) + 1)
	*b.names += len(entries)
	if *b.names > maxNames {
		return nil, errors.New("too many names")
	}
	if !b.hidden {
		entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool { return strings.HasPrefix(e.Name(), ".") })
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return entries, err
}
